//! The ledger in Postgres, for order services that run as processes of their own.
//!
//! Every transaction states READ COMMITTED itself, takes the locks of its items in a statement of its own, and reads in
//! later ones: so it sees what was committed before it had the locks. An item's lock is an advisory one, held to the end
//! of the transaction: shared by those that sell and restock, alone by the one that lends (`item_lock`).
//!
//! Any number of order services may use one database. A connection whose work did not end well is thrown away, never used
//! again: what it was doing may hang. While Postgres is down, calls are answered at once.
//!
//! - `pool`: connections, and the outage while there are none
//! - `connect`: what a session is set to, and what is refused
//! - `schema`: migrations, the schema's version, the rights of the application's role
//! - `statements`: the statements of the transactions, whose algorithm is in [`steps`]
//! - `commit`: what a batch waits for, and what is done when it cannot be committed as a whole
//! - `prune`: tombstones are deleted
//! - `reads`: orders by id, by key, by page; stock; verdicts
//! - `outbox`: events are taken and settled
//! - `types`: ids and times in Postgres' own types

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId};
use service::environment::Env;
use sha2::{Digest, Sha256};

use super::{
    Books, BooksOf, CommitOutcome, ItemStock, KeyedOrder, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome, Order,
    OutboxBacklog, OutboxBatch, RequestKey, ResolveQuery, Restock, RestockOutcome, Verdict,
    steps::{self, Statements},
};
use pool::{Pool, Session};

mod books;
mod commit;
mod connect;
mod outbox;
mod pool;
mod prune;
mod reads;
mod schema;
mod statements;
mod types;

pub use commit::{COMMIT_ALONE_MAX_MS, COMMIT_CALL_MAX_MS, COMMIT_LOCK_WAIT_MAX_MS};
pub use connect::{
    IDLE_IN_TRANSACTION_MAX_MS, InvalidUrl, LOCK_WAIT_MAX_MS, PostgresUrl, SERVER_VERSION_MIN, STATEMENT_MAX_MS,
};
pub use outbox::OUTBOX_HOLD_MAX_MS;
pub use pool::{
    CONNECT_MAX_MS, CONNECT_WAIT_MAX_MS, CONNECTIONS_MAX, PROBE_PAUSE_MS, READ_CONNECTIONS_MAX, SLOT_WAIT_MAX_MS,
};
pub use schema::{APPLICATION_ROLE, PrepareError};

/// How long a call may take once it has a connection, in milliseconds, wherever it hangs: more than two waits for a lock
/// ([`LOCK_WAIT_MAX_MS`]), and than the server allows a statement. Then there is an outage.
pub const CALL_MAX_MS: u64 = 3_000;
/// How long a ping may take, in milliseconds: below what readiness waits for its answer.
pub const PING_MAX_MS: u64 = 700;
/// How long it may wait for a lock, in milliseconds. Whoever has a table for itself, such as a migration, is no outage.
const PING_LOCK_WAIT_MAX_MS: u64 = 400;

/// Both are asked for, or the planner would leave the table alone.
const LOOK: &str = "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM stock_leases)";

/// Opens every transaction. A stricter level would let a lease sum up an older state than that of its lock.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// A ledger in Postgres.
pub struct PostgresLedger {
    env: Env,
    pool: Pool,
    giving_back: outbox::GivingBack,
    /// Whether the last commit failed. Then a ping has to write: reading goes on when the disk is full.
    failing: AtomicBool,
}

impl PostgresLedger {
    /// For the database of this URL; connects to nothing yet. Until [`prepare`](Self::prepare) succeeded every call
    /// fails.
    pub fn new(url: &PostgresUrl, env: Env) -> Arc<Self> {
        let pool = Pool::new(url.0.clone(), env.clone());
        Arc::new(Self { env, pool, giving_back: outbox::GivingBack::default(), failing: AtomicBool::new(false) })
    }

    /// Brings the schema up to date if `migrate`, else only compares its version, and opens the ledger for calls. May be
    /// repeated after a failure, and be done by several instances at once.
    pub async fn prepare(&self, migrate: bool) -> Result<(), PrepareError> {
        // Large, and done once.
        let prepared = Box::pin(schema::prepare(&self.env, self.pool.options(), migrate)).await;
        match &prepared {
            Ok(()) => self.pool.open(),
            Err(error) => self.pool.stay_closed(error.cause()),
        }
        prepared
    }

    async fn call<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        work: impl FnOnce(Session) -> W,
    ) -> Result<T, LedgerError> {
        self.pool.call(CALL_MAX_MS, work).await
    }

    async fn look(&self, session: Session) -> Result<(), LedgerError> {
        let mut transaction = session.begin_waiting(PING_LOCK_WAIT_MAX_MS).await?;
        let (is_standby, _): (bool, bool) = sqlx::query_as(LOOK).fetch_one(&mut *transaction).await?;
        if is_standby {
            return Err(LedgerError::Store("Postgres is a standby, which cannot be written".into()));
        }
        let is_to_write = self.failing.load(Ordering::Relaxed);
        if is_to_write {
            for statement in
                ["INSERT INTO pulse (filler) VALUES (decode(repeat('00', 65536), 'hex'))", "DELETE FROM pulse"]
            {
                sqlx::query(statement).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        if is_to_write {
            self.failing.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The number of an item's advisory lock. Items that share one wait for each other more than they need to; nothing else.
/// Every order service of a database has to have the same.
fn item_lock(item: &Item) -> i64 {
    let digest = Sha256::digest(item.as_str().as_bytes());
    i64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        let committed = self.commit_batch(orders).await;
        self.failing.store(committed.is_err(), Ordering::Relaxed);
        committed
    }

    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        self.call(|session| self.read_by_key(session, key)).await
    }

    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.call(|session| self.read_order(session, hold)).await
    }

    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.pool.read(CALL_MAX_MS, |session| self.read_order(session, id)).await
    }

    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        self.pool.read(CALL_MAX_MS, |session| self.read_page(session, query)).await
    }

    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        let lend =
            |session: Session| async { steps::lend(session.begin().await?, &self.env, item, initial, dead).await };
        self.call(lend).await
    }

    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        self.call(|session| self.read_stock(session, items, initial)).await
    }

    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        self.call(|session| self.judge(session, queries)).await
    }

    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        let journal =
            |session: Session| async { steps::journal(session.begin().await?, &self.env, restock, initial).await };
        self.call(journal).await
    }

    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        self.call(|session| self.take_events(session, limit)).await
    }

    async fn books(&self, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        self.pool.read(CALL_MAX_MS, |session| self.read_books(session, of)).await
    }

    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        self.call(|session| self.backlog(session)).await
    }

    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError> {
        self.call(|session| self.prune(session, limit)).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.pool.ping(PING_MAX_MS, |session| self.look(session)).await
    }
}
