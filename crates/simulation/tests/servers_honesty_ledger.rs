//! The simulated ledger is honest: random calls of the port have the same answers from it, from SQLite and from Postgres, and
//! leave the same tables behind.
#![expect(clippy::disallowed_methods, reason = "Postgres answers on the real clock")]

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use contracts::values::{Epoch, Item, ReservationId, Stamp, Timestamp};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use order::ledger::{
    CommitOutcome, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome, OutboxBatch, ResolveQuery, Restock,
    RestockOutcome, Verdict,
    conformance::{item, request_key, units},
    postgres::PostgresLedger,
    sqlite::SqliteLedger,
};
use servers::Postgres;
use service::{
    environment::{Env, Environment, RealEnvironment},
    manual::{Dice, ManualEnvironment},
};
use simulation::ledger::{
    Database, SimLedger, Tables,
    tables::{OrderRow, VerdictRow},
};
use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const OPERATIONS_DEFAULT: u32 = 10_000;
/// How often each outcome has to occur.
const OCCURRENCES_MIN: usize = 20;
const ITEMS: [&str; 3] = ["anvil", "bolt", "chisel"];
/// Ids and keys are drawn from so many, and the set moves on by one every so many operations.
const NAMES: u64 = 12;
const NAMES_MOVE_OPERATIONS: u64 = 6;
/// Far more than is sold.
const INITIAL: i64 = 1_000_000;
/// Most batches that relays have in hand at once.
const HELD_MAX: usize = 2;

/// The wall clock of the test; waits in real time.
struct Waiting {
    clock: Arc<ManualEnvironment>,
    real: RealEnvironment,
}

impl Environment for Waiting {
    fn now(&self) -> Timestamp {
        self.clock.now()
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
        self.clock.random()
    }
}

/// The three ledgers side by side, and what was drawn so far.
struct Trial {
    ledgers: [Arc<dyn Ledger>; 3],
    clock: Arc<ManualEnvironment>,
    dice: Dice,
    operation: u64,
    epochs: BTreeMap<Item, Epoch>,
    held: VecDeque<Vec<Box<dyn OutboxBatch>>>,
    outcomes: BTreeMap<&'static str, usize>,
}

/// An answer, but for an error's text.
fn told<T: Debug>(answer: &Result<T, LedgerError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(LedgerError::Store(_)) => "store".to_owned(),
        Err(LedgerError::Corrupt(_)) => "corrupt".to_owned(),
    }
}

/// Commits, and tells errors apart by their kind.
async fn commit(ledger: &dyn Ledger, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, String>>, LedgerError> {
    let outcomes = ledger.commit(orders).await?.into_iter();
    Ok(outcomes.map(|outcome| outcome.map_err(|error| told::<()>(&Err(error)))).collect())
}

impl Trial {
    /// Asks all three, and sees that they answer the same.
    async fn ask<T: Debug>(&self, what: &str, answers: Vec<BoxFuture<'_, Result<T, LedgerError>>>) -> T {
        let mut answers = join_all(answers).await;
        let [simulated, sqlite, postgres] = [&answers[0], &answers[1], &answers[2]].map(told);
        assert_eq!(simulated, postgres, "{what}: simulated and Postgres, operation {}", self.operation);
        assert_eq!(sqlite, postgres, "{what}: SQLite and Postgres, operation {}", self.operation);
        answers.remove(0).expect("no call fails as a whole")
    }

    fn count(&mut self, outcome: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    fn below(&mut self, end: u64) -> u64 {
        self.dice.below(end)
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn name(&mut self) -> u64 {
        self.operation / NAMES_MOVE_OPERATIONS + self.below(NAMES)
    }

    /// Every third is a client's.
    fn id(&mut self) -> ReservationId {
        let name = self.name();
        let bytes = u128::from(name).to_be_bytes();
        let client = uuid::Builder::from_random_bytes(bytes).into_uuid();
        ReservationId(if name.is_multiple_of(3) { client } else { Uuid::new_v8(bytes) })
    }

    fn item(&mut self) -> Item {
        let index = usize::try_from(self.below(3)).expect("small");
        item(ITEMS[index])
    }

    /// Mostly of the item's newest epoch.
    fn stamp(&mut self) -> Stamp {
        let item = self.item();
        let newest = self.epochs.get(&item).copied().unwrap_or(Epoch(1));
        let epoch = match self.below(10) {
            0 => Epoch(newest.0.saturating_sub(1)),
            1 => newest.next(),
            _ => newest,
        };
        let number = i64::try_from(1 + self.below(2)).expect("small");
        Stamp { item, epoch, number }
    }

    fn order(&mut self) -> NewOrder {
        let key = self.is(60).then(|| {
            let (name, fingerprint) = (self.name(), u8::try_from(self.below(2)).expect("small"));
            (request_key(&name.to_string()), [fingerprint; 32])
        });
        let mut order = NewOrder {
            id: self.id(),
            stamp: self.stamp(),
            quantity: units(i64::try_from(1 + self.below(2)).expect("small")),
            key,
            created_at: self.clock.now(),
            traceparent: String::new(),
        };
        if self.is(1) {
            order.stamp.number = 0;
        }
        order
    }

    async fn commit(&mut self) {
        let orders: Vec<NewOrder> = (0..=self.below(3)).map(|_| self.order()).collect();
        let answers = self.ledgers.iter().map(|ledger| commit(&**ledger, &orders).boxed()).collect();
        let outcomes = self.ask(&format!("{orders:?}"), answers).await;
        for outcome in outcomes {
            self.count(match outcome {
                Ok(CommitOutcome::Created(_)) => "created",
                Ok(CommitOutcome::Existing(_)) => "existing",
                Ok(CommitOutcome::OtherContent) => "another order",
                Ok(CommitOutcome::Aborted) => "stopped by a tombstone",
                Ok(CommitOutcome::KeyTaken(_)) => "key taken",
                Ok(CommitOutcome::Fenced(_)) => "fenced",
                Err(_) => "bad data",
            });
        }
    }

    async fn operate(&mut self) {
        self.operation += 1;
        let micros = self.below(120_000);
        self.clock.advance(Duration::from_micros(micros));
        if self.is(1) {
            let jump = i64::try_from(self.below(7_200_000_000)).expect("an hour either way") - 3_600_000_000;
            self.clock.jump(jump);
        }
        match self.below(100) {
            0..40 => self.commit().await,
            40..58 => self.resolve().await,
            58..70 => self.open().await,
            70..78 => self.restock().await,
            78..86 => self.relay().await,
            86..88 => self.prune().await,
            _ => self.read().await,
        }
    }

    async fn resolve(&mut self) {
        let mut queries = Vec::new();
        for _ in 0..=self.below(3) {
            let stamp = if self.is(70) { Some(self.stamp()) } else { None };
            queries.push(ResolveQuery { id: self.id(), stamp });
        }
        let answers = self.ledgers.iter().map(|ledger| ledger.resolve(&queries)).collect();
        for verdict in self.ask(&format!("{queries:?}"), answers).await {
            self.count(match verdict {
                Verdict::Confirmed => "confirmed",
                Verdict::ConfirmedElsewhere => "confirmed elsewhere",
                Verdict::Aborted => "aborted",
                Verdict::Unknown => "unknown",
            });
        }
    }

    async fn open(&mut self) {
        let dead = self.stamp();
        let dead_epoch = if self.is(50) { Epoch::NONE } else { dead.epoch };
        let answers = self.ledgers.iter().map(|ledger| ledger.open_stock(&dead.item, INITIAL, dead_epoch)).collect();
        match self.ask(&format!("lease of {dead:?}"), answers).await {
            OpenOutcome::Lease(lease) => {
                self.epochs.insert(lease.item, lease.epoch);
                self.count("lease");
            }
            OpenOutcome::Wait => self.count("wait"),
        }
    }

    async fn restock(&mut self) {
        let restock = Restock { id: self.id().0, item: self.item(), quantity: units(1) };
        let answers = self.ledgers.iter().map(|ledger| ledger.record_restock(&restock, INITIAL)).collect();
        let outcome = self.ask(&format!("{restock:?}"), answers).await;
        self.count(match outcome {
            RestockOutcome::Journalled(_) => "journalled",
            RestockOutcome::OtherContent => "another restock",
        });
    }

    async fn relay(&mut self) {
        if self.held.len() == HELD_MAX || (!self.held.is_empty() && self.is(50)) {
            let batches = self.held.pop_front().expect("some are held");
            if self.is(20) {
                return;
            }
            let published: Vec<bool> = batches[0].events().iter().map(|_| self.dice.below(4) > 0).collect();
            let settled = batches.into_iter().map(|batch| {
                let published = published.clone();
                async move { batch.settle(&published).await }.boxed()
            });
            return self.ask("settle", settled.collect()).await;
        }
        let limit = u32::try_from(1 + self.below(8)).expect("small");
        let taken = join_all(self.ledgers.iter().map(|ledger| ledger.take_outbox(limit))).await;
        let taken: Vec<Box<dyn OutboxBatch>> = taken.into_iter().map(|batch| batch.expect("answers")).collect();
        let events = |n: usize| -> Vec<_> {
            let batch: &dyn OutboxBatch = &*taken[n];
            batch.events().iter().map(|event| (event.order_id, event.payload.clone())).collect()
        };
        assert_eq!(events(0), events(2), "events of simulated and Postgres, operation {}", self.operation);
        assert_eq!(events(1), events(2), "events of SQLite and Postgres, operation {}", self.operation);
        if !events(0).is_empty() {
            self.held.push_back(taken);
        }
    }

    async fn prune(&mut self) {
        let answers = self.ledgers.iter().map(|ledger| ledger.prune_tombstones(100_000)).collect();
        self.ask("prune", answers).await;
    }

    async fn read(&mut self) {
        let (id, of, name) = (self.id(), self.item(), self.name());
        let ledgers = self.ledgers.clone();
        match self.below(5) {
            0 => drop(self.ask("stock", ledgers.iter().map(|l| l.stock(std::slice::from_ref(&of), 7)).collect()).await),
            1 => drop(self.ask("order", ledgers.iter().map(|l| l.order(id)).collect()).await),
            2 => {
                let key = request_key(&name.to_string());
                self.ask("by key", ledgers.iter().map(|l| l.order_by_key(&key)).collect()).await;
            }
            3 => {
                let after = self.is(50).then(|| (self.clock.now(), id));
                let query = ListQuery { item: self.is(50).then_some(of), after, limit: 5 };
                self.ask("list", ledgers.iter().map(|l| l.orders(&query)).collect()).await;
            }
            _ => {
                self.ask("backlog", ledgers.iter().map(|l| l.outbox_backlog()).collect()).await;
            }
        }
    }
}

/// A row of every table as text, in SQL that both databases know.
const ROWS: [&str; 4] = [
    "SELECT cast(id AS text) || ' ' || state || ' ' || item || ' ' || coalesce(cast(quantity AS text), '-') || ' '
        || cast(epoch AS text) || ' ' || coalesce(cast(number AS text), '-') || ' ' || coalesce(request_key, '-')
    FROM order_verdicts",
    "SELECT item || ' ' || cast(epoch AS text) || ' ' || cast(initial AS text) || ' ' || cast(settled AS text)
    FROM stock_leases",
    "SELECT cast(id AS text) || ' ' || item || ' ' || cast(quantity AS text) || ' ' || cast(epoch AS text) FROM restocks",
    "SELECT cast(order_id AS text) || ' ' || item || ' ' || cast(quantity AS text) || ' ' || payload FROM outbox",
];

/// The same of the simulated tables.
fn simulated_rows(tables: &Tables) -> [Vec<String>; 4] {
    let verdict = |(id, row): (&ReservationId, &VerdictRow)| {
        let (item, epoch) = (&row.item, row.epoch);
        match &row.order {
            None => format!("{id} aborted {item} - {epoch} - -"),
            Some(OrderRow { number, quantity, key }) => {
                let key = key.as_ref().map_or("-", |(key, _)| key.as_str());
                format!("{id} confirmed {item} {} {epoch} {number} {key}", quantity.get())
            }
        }
    };
    [
        tables.verdicts.iter().map(verdict).collect(),
        tables.leases.iter().map(|(of, row)| format!("{of} {} {} {}", row.epoch, row.initial, row.settled)).collect(),
        tables
            .restocks
            .iter()
            .map(|(id, row)| format!("{id} {} {} {}", row.item, row.quantity.get(), row.epoch))
            .collect(),
        tables
            .outbox
            .values()
            .map(|row| format!("{} {} {} {}", row.order_id, row.item, row.quantity.get(), row.payload))
            .collect(),
    ]
    .map(sorted)
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort_unstable();
    rows
}

fn operations() -> u32 {
    env::var("SIMULATION_HONESTY_OPERATIONS")
        .map_or(OPERATIONS_DEFAULT, |text| text.parse().expect("SIMULATION_HONESTY_OPERATIONS is a number"))
}

#[tokio::test]
async fn the_simulated_ledger_answers_as_the_real_ones_do() {
    let clock = ManualEnvironment::new(1);
    let env: Env = Arc::new(Waiting { clock: clock.clone(), real: RealEnvironment::new(TaskTracker::new()) });
    let server = Postgres::shared().await;
    let url = server.database().await;
    let postgres = PostgresLedger::new(&url.parse().expect("a valid URL"), env.clone());
    postgres.prepare(true).await.expect("it migrates");
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("ledger.db");
    let sqlite = SqliteLedger::open(&file, env.clone()).await.expect("opens");
    // Its own clock stands still: what is in hand is not taken away.
    let database = Database::new(ManualEnvironment::new(1), Arc::new(|_| futures::future::ready(()).boxed()));
    let simulated = SimLedger::new(database.clone(), env);
    let mut trial = Trial {
        ledgers: [simulated, sqlite.clone(), postgres],
        clock,
        dice: Dice::new(7),
        operation: 0,
        epochs: BTreeMap::new(),
        held: VecDeque::new(),
        outcomes: BTreeMap::new(),
    };
    for _ in 0..operations() {
        trial.operate().await;
    }
    trial.held.clear();
    let outcomes = [
        "created",
        "existing",
        "another order",
        "stopped by a tombstone",
        "key taken",
        "fenced",
        "bad data",
        "confirmed",
        "confirmed elsewhere",
        "aborted",
        "unknown",
        "lease",
        "wait",
        "journalled",
        "another restock",
    ];
    for outcome in outcomes {
        let count = trial.outcomes.get(outcome).copied().unwrap_or_default();
        assert!(count >= OCCURRENCES_MIN, "{outcome}: {count} times; {:?}", trial.outcomes);
    }

    let simulated = database.read(simulated_rows);
    let mut postgres = PgConnection::connect(&url).await.expect("connects");
    let options = SqliteConnectOptions::new().filename(&file).read_only(true);
    let mut sqlite = SqliteConnection::connect_with(&options).await.expect("opens");
    for (statement, simulated) in ROWS.into_iter().zip(simulated) {
        let of_postgres: Vec<String> = sqlx::query_scalar(statement).fetch_all(&mut postgres).await.expect("answers");
        let of_sqlite: Vec<String> = sqlx::query_scalar(statement).fetch_all(&mut sqlite).await.expect("answers");
        assert!(!simulated.is_empty(), "{statement}");
        assert_eq!(simulated, sorted(of_postgres), "simulated and Postgres: {statement}");
        assert_eq!(simulated, sorted(of_sqlite), "simulated and SQLite: {statement}");
    }
}
