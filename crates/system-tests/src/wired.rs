//! The order and inventory services wired together in this process, without a network: the real use case, ledger and
//! stock store. A [`Script`] at the seams between them makes one thing go wrong at a chosen moment.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use broker::in_process::InProcessBroker;
use contracts::{
    Failure, Reason,
    values::{Epoch, IdempotencyKey, Item, Quantity, ReservationId, Token, Ttl},
};
use futures::future::BoxFuture;
use inventory::{
    Inventory as InventoryService,
    audit::Auditor,
    backend::Backend,
    ledger::{LedgerBooks, StockLedger},
    metrics::{AuditMetrics, InventoryMetrics},
    reservations::{self, Reservations},
    stock::{ReserveRequest, memory::MemoryStock},
};
use order::{
    assembly::{OrderService, Ports},
    attempt::Identity,
    inventory::{Inventory, Reserve, Reserved},
    ledger::{
        Books, BooksOf, CommitOutcome, ItemStock, KeyedOrder, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome,
        Order, OutboxBacklog, OutboxBatch, RequestKey, ResolveQuery, Restock, RestockOutcome, Verdict,
        sqlite::SqliteLedger,
    },
    metrics::OrderMetrics,
    place_order::{Placed, Placement},
};
use prometheus_client::registry::Registry;
use service::{call::Call, environment::Env, lifecycle::Lifecycle};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Runs before a step and decides what becomes of it.
pub type Script<T> = Box<dyn FnMut(T) -> BoxFuture<'static, Fate> + Send>;

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It happens and is answered.
    Happens,
    /// It happens, but the answer is lost.
    AnswerLost,
    /// It does not happen, and is not answered.
    Lost,
}

/// Where scripts are put.
pub struct Seams {
    commit: tokio::sync::Mutex<Option<Script<Vec<NewOrder>>>>,
    reserve: tokio::sync::Mutex<Option<Script<Reserve>>>,
    read: tokio::sync::Mutex<Option<Script<()>>>,
    /// Whether the ledger fails to count its outbox.
    pub uncounted: AtomicBool,
    /// How many orders each commit had.
    pub commits: Mutex<Vec<usize>>,
    /// Every reserve that was asked.
    pub reserves: Mutex<Vec<Reserve>>,
    /// Every id whose release was asked.
    pub releases: Mutex<Vec<ReservationId>>,
}

/// The services, wired.
pub struct Wired {
    /// The real clock and tasks.
    pub env: Env,
    /// The real ledger.
    pub ledger: Arc<SqliteLedger>,
    /// The real stock store.
    pub stock: Arc<MemoryStock>,
    /// The real broker. The relay publishes to it; nobody consumes.
    pub broker: Arc<InProcessBroker>,
    /// The inventory service, whose background work is not run.
    pub inventory: InventoryService,
    /// What it has counted.
    pub inventory_metrics: InventoryMetrics,
    /// Holds ledger and stock store against each other, when it is told to.
    pub auditor: Auditor,
    /// What it has counted.
    pub audit_metrics: AuditMetrics,
    /// What the inventory service does.
    pub reservations: Reservations,
    /// What the order service does.
    pub order: order::place_order::PlaceOrder,
    /// Where its orders wait.
    pub committer: order::committer::Committer,
    /// Where scripts are put, and what was seen.
    pub seams: Arc<Seams>,
    _stop: DropGuard,
    data: TempDir,
}

/// An item.
pub fn item(text: &str) -> Item {
    Item::parse(text).expect("a valid item")
}

/// So many units.
pub fn units(count: i64) -> Quantity {
    Quantity::parse(count).expect("a valid quantity")
}

impl Wired {
    /// With an empty ledger; every item starts with `default_stock`.
    pub async fn new(default_stock: i64) -> Self {
        let env = Lifecycle::new().env();
        let data = TempDir::new().expect("a temporary directory");
        let ledger = SqliteLedger::open(&data.path().join("ledger.db"), env.clone()).await.expect("it opens");
        let broker = InProcessBroker::open(&data.path().join("broker.db"), env.clone()).await.expect("it opens");
        let stock = MemoryStock::new(env.clone());
        let seams = Arc::new(Seams {
            commit: tokio::sync::Mutex::new(None),
            reserve: tokio::sync::Mutex::new(None),
            read: tokio::sync::Mutex::new(None),
            uncounted: AtomicBool::new(false),
            commits: Mutex::default(),
            reserves: Mutex::default(),
            releases: Mutex::default(),
        });
        let inventory_metrics = InventoryMetrics::register(&mut Registry::default());
        let backend = Backend {
            env: env.clone(),
            store: stock.clone(),
            ledger: Arc::new(DirectLedger(ledger.clone())),
            default_stock,
            metrics: inventory_metrics.clone(),
        };
        let inventory = InventoryService::new(backend, broker.clone());
        let audit_metrics = AuditMetrics::register(&mut Registry::default(), env.now());
        let auditor = inventory.auditor(Arc::new(DirectLedger(ledger.clone())), audit_metrics.clone());
        let reservations = inventory.reservations();
        let stop = CancellationToken::new();
        let ports = Ports {
            env: env.clone(),
            ledger: Arc::new(ScriptedLedger { ledger: ledger.clone(), seams: seams.clone() }),
            inventory: Arc::new(DirectInventory { reservations: reservations.clone(), seams: seams.clone() }),
            broker: broker.clone(),
        };
        let metrics = OrderMetrics::register(&mut Registry::default());
        let service = OrderService::new(ports, Ttl::parse_seconds(30).expect("valid"), &metrics, &stop);
        for work in service.background {
            env.start(work);
        }
        let (order, committer) = (service.place_order, service.committer);
        Self {
            env,
            ledger,
            stock,
            broker,
            inventory,
            inventory_metrics,
            auditor,
            audit_metrics,
            reservations,
            order,
            committer,
            seams,
            _stop: stop.drop_guard(),
            data,
        }
    }

    /// Runs before every commit.
    pub async fn script_commits(&self, script: Script<Vec<NewOrder>>) {
        *self.seams.commit.lock().await = Some(script);
    }

    /// Runs before every reserve.
    pub async fn script_reserves(&self, script: Script<Reserve>) {
        *self.seams.reserve.lock().await = Some(script);
    }

    /// Runs before every look for an order, by its id or its key, which happens whatever its fate.
    pub async fn script_reads(&self, script: Script<()>) {
        *self.seams.read.lock().await = Some(script);
    }

    /// Changes the ledger past everything, as an operator's hand would.
    pub async fn sql(&self, statements: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.data.path().join("ledger.db"));
        let mut hand = SqliteConnection::connect_with(&options).await.expect("it opens");
        sqlx::raw_sql(statements).execute(&mut hand).await.expect("SQLite knows it");
        hand.close().await.expect("it is closed");
    }

    /// A call with the usual deadline.
    pub fn call(&self) -> Call {
        Call::background(&*self.env)
    }

    /// Places an order of `widget`.
    pub async fn place(&self, quantity: i64, identity: Identity) -> Result<Placed, Failure> {
        self.order.place(placement(quantity, identity), self.call()).await
    }

    /// Units of `widget` that are free.
    pub async fn free(&self) -> i64 {
        self.reservations.available(&self.call(), &item("widget")).await.expect("it is read")
    }

    /// All orders.
    pub async fn orders(&self) -> Vec<Order> {
        let all = ListQuery { item: None, after: None, limit: 1_000 };
        self.ledger.orders(&all).await.expect("they are listed")
    }

    /// A hold of `widget` that a client made.
    pub async fn hold(&self, quantity: i64) -> ReservationId {
        self.client_hold(quantity, Ttl::DEFAULT).await
    }

    /// The same for a second.
    pub async fn short_hold(&self, quantity: i64) -> ReservationId {
        self.client_hold(quantity, Ttl::parse_seconds(1).expect("valid")).await
    }

    async fn client_hold(&self, quantity: i64, ttl: Ttl) -> ReservationId {
        let id = ReservationId(self.env.uuid());
        let request = ReserveRequest { hint: true, ttl, ..hold_request(id, quantity) };
        let held = self.reservations.reserve(&self.call(), &request).await.expect("answered");
        assert!(matches!(held, reservations::Reserved::Held { .. }));
        request.id
    }
}

/// A hold of `widget`.
pub fn hold_request(id: ReservationId, quantity: i64) -> ReserveRequest {
    ReserveRequest {
        id,
        item: item("widget"),
        quantity: units(quantity),
        ttl: Ttl::DEFAULT,
        least_epoch: Epoch::NONE,
        hint: false,
    }
}

/// An order of `widget`.
pub fn placement(quantity: i64, identity: Identity) -> Placement {
    Placement { item: item("widget"), quantity: units(quantity), identity, reservation: None }
}

/// Under this Idempotency-Key.
pub fn key(text: &str) -> Identity {
    Identity::Key(IdempotencyKey::parse(text).expect("a valid key"))
}

/// Without a key, under this attempt id.
pub fn attempt(text: &str) -> Identity {
    Identity::Attempt(Token::parse(text).expect("a valid id"))
}

/// The inventory service's view of the ledger, without gRPC.
struct DirectLedger(Arc<SqliteLedger>);

fn unavailable(error: LedgerError) -> Failure {
    Failure::unavailable(error)
}

#[async_trait]
impl StockLedger for DirectLedger {
    async fn open_stock(&self, _: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        self.0.open_stock(item, initial, dead).await.map_err(unavailable)
    }

    async fn stock(&self, _: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        self.0.stock(items, initial).await.map_err(unavailable)
    }

    async fn resolve(&self, _: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        self.0.resolve(queries).await.map_err(unavailable)
    }

    async fn record_restock(&self, _: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure> {
        match self.0.record_restock(restock, initial).await.map_err(unavailable)? {
            RestockOutcome::Journalled(epoch) => Ok(epoch),
            RestockOutcome::OtherContent => Err(Failure::of(Reason::RestockMismatch)),
        }
    }
}

#[async_trait]
impl LedgerBooks for DirectLedger {
    async fn books(&self, _: &Call, of: &BooksOf) -> Result<Option<Books>, Failure> {
        self.0.books(of).await.map_err(unavailable)
    }
}

/// The order service's view of the inventory service, without gRPC.
struct DirectInventory {
    reservations: Reservations,
    seams: Arc<Seams>,
}

#[async_trait]
impl Inventory for DirectInventory {
    async fn reserve(&self, call: &Call, request: &Reserve) -> Result<Reserved, Failure> {
        self.seams.reserves.lock().expect("whole").push(request.clone());
        let fate = match self.seams.reserve.lock().await.as_mut() {
            Some(script) => script(request.clone()).await,
            None => Fate::Happens,
        };
        if fate == Fate::Lost {
            return Err(Failure::unavailable("lost by the script"));
        }
        let asked = ReserveRequest {
            id: request.id,
            item: request.item.clone(),
            quantity: request.quantity,
            ttl: request.ttl,
            least_epoch: request.least_epoch,
            hint: request.id.is_client(),
        };
        let reserved = match self.reservations.reserve(call, &asked).await {
            Ok(reservations::Reserved::Held { stamp, .. }) => Reserved::Held(stamp),
            Ok(reservations::Reserved::Insufficient { remaining }) => Reserved::Insufficient { remaining },
            Err(failure) if failure.reason == Reason::ReservationReleased => Reserved::Released,
            Err(failure) if failure.reason == Reason::ReservationMismatch => Reserved::Mismatch,
            Err(failure) if failure.reason == Reason::ReservationConfirmed => Reserved::Confirmed,
            Err(failure) => return Err(failure),
        };
        if fate == Fate::AnswerLost { Err(Failure::unavailable("answer lost by the script")) } else { Ok(reserved) }
    }

    async fn release(&self, call: &Call, id: ReservationId, item: &Item) -> Result<(), Failure> {
        self.seams.releases.lock().expect("whole").push(id);
        self.reservations.release(call, id, Some(item)).await
    }
}

/// The ledger, with a script before each commit.
struct ScriptedLedger {
    ledger: Arc<SqliteLedger>,
    seams: Arc<Seams>,
}

impl ScriptedLedger {
    async fn before_read(&self) {
        if let Some(script) = self.seams.read.lock().await.as_mut() {
            script(()).await;
        }
    }
}

#[async_trait]
impl Ledger for ScriptedLedger {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        self.seams.commits.lock().expect("whole").push(orders.len());
        let fate = match self.seams.commit.lock().await.as_mut() {
            Some(script) => script(orders.to_vec()).await,
            None => Fate::Happens,
        };
        match fate {
            Fate::Happens => self.ledger.commit(orders).await,
            Fate::AnswerLost => {
                self.ledger.commit(orders).await?;
                Err(LedgerError::Store("answer lost by the script".into()))
            }
            Fate::Lost => Err(LedgerError::Store("lost by the script".into())),
        }
    }

    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        self.before_read().await;
        self.ledger.order_by_key(key).await
    }

    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.before_read().await;
        self.ledger.order_of_hold(hold).await
    }

    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.before_read().await;
        self.ledger.order(id).await
    }

    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        self.ledger.orders(query).await
    }

    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        self.ledger.open_stock(item, initial, dead).await
    }

    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        self.ledger.stock(items, initial).await
    }

    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        self.ledger.resolve(queries).await
    }

    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        self.ledger.record_restock(restock, initial).await
    }

    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        self.ledger.take_outbox(limit).await
    }

    async fn books(&self, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        self.ledger.books(of).await
    }

    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        if self.seams.uncounted.load(Ordering::Relaxed) {
            return Err(LedgerError::Store("the test does not count".into()));
        }
        self.ledger.outbox_backlog().await
    }

    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError> {
        self.ledger.prune_tombstones(limit).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.ledger.ping().await
    }
}
