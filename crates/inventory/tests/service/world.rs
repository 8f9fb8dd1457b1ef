//! A service over the real memory store and the real in-process broker, with a ledger in the test's hands.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use broker::{Broker, Message, PublishOutcome, in_process::InProcessBroker, queues};
use contracts::{
    event::{ORDER_CREATED, OrderCreated},
    values::{Epoch, Item, Quantity, ReservationId, Stamp, Timestamp, Ttl},
};
use futures::future::BoxFuture;
use inventory::{
    Inventory,
    backend::Backend,
    metrics::InventoryMetrics,
    reservations::Reserved,
    stock::{Counts, ReserveRequest, StockStore, memory::MemoryStock},
};
use prometheus_client::registry::Registry;
use service::{
    call::Call,
    environment::{Env, Environment, RealEnvironment},
};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{ledger::TestLedger, store::TestStore};

/// Units of an item that the ledger has never heard of.
pub const STOCK: i64 = 100;
/// Longest wait for anything that must happen.
const ARRIVAL_TIMEOUT_MS: u64 = 10_000;

/// The real environment, with a wall clock that can jump.
pub struct JumpingEnvironment {
    real: RealEnvironment,
    jumped_micros: AtomicI64,
}

impl Environment for JumpingEnvironment {
    fn now(&self) -> Timestamp {
        Timestamp(self.real.now().0 + self.jumped_micros.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        self.real.uptime()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.real.sleep(duration)
    }

    fn start(&self, task: BoxFuture<'static, ()>) {
        self.real.start(task);
    }

    fn random(&self) -> u128 {
        self.real.random()
    }
}

/// Everything a test needs.
pub struct World {
    pub clock: Arc<JumpingEnvironment>,
    pub env: Env,
    pub memory: Arc<MemoryStock>,
    pub store: Arc<TestStore>,
    pub ledger: Arc<TestLedger>,
    pub broker: Arc<InProcessBroker>,
    pub metrics: InventoryMetrics,
    pub inventory: Inventory,
    pub backend: Backend,
    _folder: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with_stock(STOCK).await
    }

    pub async fn with_stock(default_stock: i64) -> Self {
        let clock = Arc::new(JumpingEnvironment {
            real: RealEnvironment::new(TaskTracker::new()),
            jumped_micros: AtomicI64::new(0),
        });
        let env: Env = clock.clone();
        let memory = MemoryStock::new(env.clone());
        let store = TestStore::new(memory.clone());
        let ledger = TestLedger::new(env.clone());
        let folder = TempDir::new().expect("a folder");
        let broker = InProcessBroker::open(&folder.path().join("broker.db"), env.clone()).await.expect("opens");
        broker.declare(&queues::order_created()).await.expect("declares");
        let metrics = InventoryMetrics::register(&mut Registry::default());
        let backend = Backend {
            env: env.clone(),
            store: store.clone(),
            ledger: ledger.clone(),
            default_stock,
            metrics: metrics.clone(),
        };
        let inventory = Inventory::new(backend.clone(), broker.clone());
        Self { clock, env, memory, store, ledger, broker, metrics, inventory, backend, _folder: folder }
    }

    pub fn call(&self) -> Call {
        Call::background(&*self.env)
    }

    /// A v4 id, as clients bring them.
    pub fn id(&self) -> ReservationId {
        ReservationId(self.env.uuid())
    }

    pub fn request(&self, item: &Item, units: i64) -> ReserveRequest {
        ReserveRequest {
            id: self.id(),
            item: item.clone(),
            quantity: quantity(units),
            ttl: Ttl::DEFAULT,
            least_epoch: Epoch::NONE,
            hint: true,
        }
    }

    /// Holds units under a new id.
    pub async fn hold(&self, item: &Item, units: i64) -> (ReservationId, Stamp) {
        let request = self.request(item, units);
        match self.inventory.reservations().reserve(&self.call(), &request).await {
            Ok(Reserved::Held { stamp, .. }) => (request.id, stamp),
            other => panic!("not held: {other:?}"),
        }
    }

    pub async fn counts(&self, item: &Item) -> Option<Counts> {
        self.memory.counts(item).await.expect("memory answers")
    }

    /// (epoch, available, held, sold)
    pub async fn numbers(&self, item: &Item) -> (i64, i64, i64, i64) {
        let counts = self.counts(item).await.expect("the item is there");
        assert_eq!(counts.received, counts.available + counts.held + counts.sold, "I1");
        (counts.epoch.0, counts.available, counts.held, counts.sold)
    }

    /// Until every hold made so far is overdue.
    pub fn pass_deadlines(&self) {
        self.clock.jumped_micros.fetch_add(1_000_000_000, Ordering::SeqCst);
    }

    /// Commits an order on a hold, without its event.
    pub fn commit(&self, id: ReservationId, stamp: &Stamp, units: i64) {
        self.ledger.commit(id, stamp, units);
    }

    pub async fn publish(&self, id: &str, body: Vec<u8>) {
        let message = Message { id: id.into(), routing_key: ORDER_CREATED.into(), body, headers: BTreeMap::new() };
        let outcomes = self.broker.publish(&[message]).await.expect("publishes");
        assert_eq!(outcomes, [PublishOutcome::Confirmed]);
    }

    pub async fn publish_order(&self, id: ReservationId, stamp: &Stamp, units: i64) {
        let created_at = self.env.now();
        let event = OrderCreated { id, stamp: stamp.clone(), quantity: quantity(units), created_at };
        self.publish(&id.to_string(), event.to_json()).await;
    }

    /// Events that wait or are in hand, and dead letters.
    pub async fn depths(&self) -> (u64, u64) {
        let depth = async |name: &str| self.broker.depth(name).await.expect("answers");
        (depth(ORDER_CREATED).await, depth(&queues::order_created().dead_letter_queue()).await)
    }

    /// Runs background work until the guard is dropped or stopped.
    pub fn run<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(CancellationToken) -> F) -> Running {
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let (task, end) = (work(stop.clone()), ended.clone());
        self.env.start(Box::pin(async move {
            task.await;
            end.cancel();
        }));
        Running { stop, ended }
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let end = self.env.uptime() + Duration::from_millis(ARRIVAL_TIMEOUT_MS);
        while !so().await {
            assert!(self.env.uptime() < end, "never: {what}");
            self.env.sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Background work.
pub struct Running {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Running {
    /// Stops it and waits for its end.
    pub async fn end(self, world: &World) {
        self.stop.cancel();
        world.until("the work ends", async || self.ended.is_cancelled()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn item(name: &str) -> Item {
    Item::parse(name).expect("a good item")
}

pub fn quantity(units: i64) -> Quantity {
    Quantity::parse(units).expect("a good quantity")
}
