//! Connections, and the outage while there are none.
//!
//! sqlx has a pool too. It tries a server that refuses until the caller's time is up, and asks each connection that comes
//! back whether it is well, without a limit: a server that hangs would take the pool with it. Here a connection comes back
//! only when its work has ended; otherwise it is dropped, and nobody waits for that.

use std::{
    future::Future,
    mem,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use service::environment::Env;
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{BEGIN, connect};
use crate::ledger::LedgerError;

/// Most connections of one order service. One of them is kept for the ping: that all others are busy is no outage. One more
/// the relay has while it publishes.
pub const CONNECTIONS_MAX: usize = 16;
/// Those of them that read orders for clients. Commits and leases have the others, so that neither waits for a flood of the
/// other to end.
pub const READ_CONNECTIONS_MAX: usize = 4;
/// Longest wait for one of them to become free, in milliseconds.
pub const SLOT_WAIT_MAX_MS: u64 = 1_500;
/// Longest wait of a caller for a new one, in milliseconds. Then there is an outage.
pub const CONNECT_WAIT_MAX_MS: u64 = 1_000;
/// How long connecting may take, in milliseconds, with nobody waiting for it.
pub const CONNECT_MAX_MS: u64 = 1_500;
/// Time between tries to connect during an outage, in milliseconds. Callers set them off, readiness among them.
pub const PROBE_PAUSE_MS: u64 = 100;

/// Connections of one order service.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    env: Env,
    options: PgConnectOptions,
    /// Whether the schema was found to be the one that is needed.
    is_open: AtomicBool,
    slots: Arc<Semaphore>,
    read_slots: Arc<Semaphore>,
    ping_slot: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why it could not be opened when that was last tried.
    closed: Option<String>,
    idle: Vec<PgConnection>,
    outage: Option<Outage>,
}

/// Since the last try to connect there is no connection to be had.
struct Outage {
    why: String,
    probing: bool,
    /// As uptime.
    next_probe: Duration,
}

/// The ledger cannot be asked.
#[derive(Debug, thiserror::Error)]
enum Unreachable {
    #[error("{}", .0.as_deref().unwrap_or("the schema has not been checked yet"))]
    NotOpen(Option<String>),
    #[error("down: {0}")]
    Outage(String),
    /// Milliseconds.
    #[error("no connection became free within {0} ms")]
    Busy(u64),
}

impl From<Unreachable> for LedgerError {
    fn from(error: Unreachable) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, env: Env) -> Self {
        let (is_open, state) = (AtomicBool::new(false), Mutex::default());
        let shares = [CONNECTIONS_MAX - READ_CONNECTIONS_MAX - 1, READ_CONNECTIONS_MAX, 1];
        let [slots, read_slots, ping_slot] = shares.map(|permits| Arc::new(Semaphore::new(permits)));
        Self(Arc::new(Shared { env, options, is_open, slots, read_slots, ping_slot, state }))
    }

    pub(super) fn env(&self) -> &Env {
        &self.0.env
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.0.options
    }

    /// Lets callers in.
    pub(super) fn open(&self) {
        self.0.is_open.store(true, Ordering::Release);
    }

    /// Tells callers why they are not let in.
    pub(super) fn stay_closed(&self, why: String) {
        self.state().closed = Some(why);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with a connection, within a limit of milliseconds from when one is free for it: having to wait for that
    /// is no sign of an outage.
    pub(super) async fn call<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        limit_ms: u64,
        work: impl FnOnce(Session) -> W,
    ) -> Result<T, LedgerError> {
        self.with_one_of(&self.0.slots, SLOT_WAIT_MAX_MS, limit_ms, work).await
    }

    /// The same with one of the connections that are kept for reading.
    pub(super) async fn read<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        limit_ms: u64,
        work: impl FnOnce(Session) -> W,
    ) -> Result<T, LedgerError> {
        self.with_one_of(&self.0.read_slots, SLOT_WAIT_MAX_MS, limit_ms, work).await
    }

    /// The same with the connection that is kept for the ping.
    pub(super) async fn ping<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        limit_ms: u64,
        work: impl FnOnce(Session) -> W,
    ) -> Result<T, LedgerError> {
        self.with_one_of(&self.0.ping_slot, limit_ms, limit_ms, work).await
    }

    async fn with_one_of<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        slots: &Arc<Semaphore>,
        wait_ms: u64,
        limit_ms: u64,
        work: impl FnOnce(Session) -> W,
    ) -> Result<T, LedgerError> {
        let slot = self.slot(slots, wait_ms).await?;
        self.within(limit_ms, async { work(self.take(slot).await?).await }).await
    }

    /// The right to a connection. During an outage the answer comes at once, and the next try goes on behind it.
    async fn slot(&self, slots: &Arc<Semaphore>, wait_ms: u64) -> Result<OwnedSemaphorePermit, Unreachable> {
        if !self.0.is_open.load(Ordering::Acquire) {
            return Err(Unreachable::NotOpen(self.state().closed.clone()));
        }
        self.check_outage()?;
        let slot = self.0.env.timeout(Duration::from_millis(wait_ms), slots.clone().acquire_owned()).await;
        let slot = slot.map_err(|_| Unreachable::Busy(wait_ms))?.expect("the semaphore is never closed");
        // It may have begun meanwhile.
        self.check_outage()?;
        Ok(slot)
    }

    async fn take(&self, slot: OwnedSemaphorePermit) -> Result<Session, LedgerError> {
        if let Some(connection) = self.state().idle.pop() {
            return Ok(Session { connection: Some(connection), pool: self.clone(), _slot: slot });
        }
        let connected = self.start_connecting(slot);
        match self.0.env.timeout(Duration::from_millis(CONNECT_WAIT_MAX_MS), connected).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.fail("connecting to Postgres died")),
            Err(_) => Err(self.fail(&format!("no connection within {CONNECT_WAIT_MAX_MS} ms"))),
        }
    }

    /// Connects in a task of its own: what it gets is kept, whoever has stopped waiting.
    fn start_connecting(&self, slot: OwnedSemaphorePermit) -> oneshot::Receiver<Result<Session, LedgerError>> {
        let (done, connected) = oneshot::channel();
        let pool = self.clone();
        self.0.env.start(Box::pin(async move {
            let result = match pool.connect().await {
                Ok(connection) => Ok(Session { connection: Some(connection), pool, _slot: slot }),
                Err(error) => Err(error),
            };
            if let Err(Ok(unwanted)) = done.send(result) {
                unwanted.keep();
            }
        }));
        connected
    }

    async fn connect(&self) -> Result<PgConnection, LedgerError> {
        let connecting = connect::connect(&self.0.options);
        match self.0.env.timeout(Duration::from_millis(CONNECT_MAX_MS), connecting).await {
            Ok(Ok(connection)) => {
                if self.state().outage.take().is_some() {
                    tracing::info!("Postgres answers again");
                }
                Ok(connection)
            }
            // It is there, and has no room: those that there are go on.
            Ok(Err(error)) if is_full(&error) && self.state().outage.is_none() => Err(error),
            Ok(Err(LedgerError::Store(why))) => Err(self.fail(&why.to_string())),
            Ok(Err(error @ LedgerError::Corrupt(_))) => Err(self.fail(&error.to_string())),
            Err(_) => Err(self.fail(&format!("no connection within {CONNECT_MAX_MS} ms"))),
        }
    }

    /// Whether there are connections to be had. If not, sets off the next try when it is time.
    fn check_outage(&self) -> Result<(), Unreachable> {
        let mut state = self.state();
        let Some(outage) = state.outage.as_mut() else { return Ok(()) };
        let why = outage.why.clone();
        if !outage.probing && self.0.env.uptime() >= outage.next_probe {
            outage.probing = true;
            drop(state);
            self.probe();
        }
        Err(Unreachable::Outage(why))
    }

    fn probe(&self) {
        let pool = self.clone();
        self.0.env.start(Box::pin(async move {
            // A failure has begun the next pause.
            if let Ok(connection) = pool.connect().await {
                pool.keep(connection);
            }
        }));
    }

    /// Begins an outage, or goes on with it. Idle connections are as dead as the one that failed.
    fn fail(&self, why: &str) -> LedgerError {
        let next_probe = self.0.env.uptime() + Duration::from_millis(PROBE_PAUSE_MS);
        let outage = Outage { why: why.to_owned(), probing: false, next_probe };
        let mut state = self.state();
        let idle = mem::take(&mut state.idle);
        let before = state.outage.replace(outage);
        drop(state);
        drop(idle);
        if before.is_none_or(|before| before.why != why) {
            tracing::warn!(why, "Postgres is down");
        }
        Unreachable::Outage(why.to_owned()).into()
    }

    /// Does `work`, which has its slot, within a limit of milliseconds, and sees by its failure what has become of the
    /// connections.
    pub(super) async fn within<T>(
        &self,
        limit_ms: u64,
        work: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        match self.0.env.timeout(Duration::from_millis(limit_ms), work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if is_lost(&error) {
                    // The idle ones are of the same server, which may have been started anew.
                    let idle = mem::take(&mut self.state().idle);
                    drop(idle);
                }
                Err(error)
            }
            Err(_) => Err(self.fail(&format!("no answer within {limit_ms} ms"))),
        }
    }

    fn keep(&self, connection: PgConnection) {
        let mut state = self.state();
        if state.idle.len() < CONNECTIONS_MAX {
            state.idle.push(connection);
        }
    }
}

/// Whether an error says that a connection is gone: I/O, protocol, or the server ending its sessions.
fn is_lost(error: &LedgerError) -> bool {
    let LedgerError::Store(source) = error else { return false };
    match source.downcast_ref() {
        Some(sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_)) => true,
        Some(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

/// Whether Postgres has as many connections as it may.
fn is_full(error: &LedgerError) -> bool {
    let LedgerError::Store(source) = error else { return false };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref() else { return false };
    database.code().is_some_and(|code| code == "53300")
}

/// A connection in the hand of one caller. Dropped without [`keep`](Self::keep) it is closed, and the server undoes what
/// was under way.
pub(super) struct Session {
    connection: Option<PgConnection>,
    pool: Pool,
    /// After the connection: a slot is free once its connection is back.
    _slot: OwnedSemaphorePermit,
}

impl Session {
    /// Its work has ended well: the next caller may have it.
    pub(super) fn keep(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.keep(connection);
        }
    }

    /// In a transaction.
    pub(super) async fn begin(self) -> Result<Self, LedgerError> {
        self.begin_with("").await
    }

    /// In a transaction whose statements wait so many milliseconds for a lock.
    pub(super) async fn begin_waiting(self, lock_wait_ms: u64) -> Result<Self, LedgerError> {
        self.begin_with(&format!("SET LOCAL lock_timeout = {lock_wait_ms}")).await
    }

    /// In a transaction that has this set.
    pub(super) async fn begin_with(mut self, set: &str) -> Result<Self, LedgerError> {
        sqlx::raw_sql(AssertSqlSafe(format!("{BEGIN}; {set}"))).execute(&mut *self).await?;
        Ok(self)
    }

    /// Out of its transaction, by this statement, and kept.
    pub(super) async fn end(mut self, statement: &'static str) -> Result<(), LedgerError> {
        sqlx::raw_sql(statement).execute(&mut *self).await?;
        self.keep();
        Ok(())
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("only keep takes it")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only keep takes it")
    }
}
