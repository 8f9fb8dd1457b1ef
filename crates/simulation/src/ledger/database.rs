//! One database for all order services: transactions, locks, and connections that end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use contracts::values::{Item, ReservationId};
use futures::future::BoxFuture;
use order::ledger::{
    LedgerError,
    postgres::{IDLE_IN_TRANSACTION_MAX_MS, STATEMENT_MAX_MS},
};
use service::environment::Env;
use tokio::sync::Notify;
use uuid::Uuid;

use super::tables::{Changes, Tables, View};

/// Awaited before each statement, with its name: so others get their turn between any two.
pub type Pause = Arc<dyn Fn(&'static str) -> BoxFuture<'static, ()> + Send + Sync>;

/// The database.
pub struct Database {
    pub(super) env: Env,
    pub(super) pause: Pause,
    state: Mutex<State>,
    /// Told when a transaction has ended.
    ended: Notify,
}

impl Database {
    /// An empty one; `env` has the server's clock.
    pub fn new(env: Env, pause: Pause) -> Arc<Self> {
        Arc::new(Self { env, pause, state: Mutex::default(), ended: Notify::new() })
    }

    /// Grows with every commit that changed something.
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// Looks at what is committed.
    pub fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.state().tables)
    }

    /// What is committed.
    pub fn snapshot(&self) -> Tables {
        self.read(Tables::clone)
    }

    /// The server is killed and starts again: what is not committed is undone, and its connections are gone.
    pub fn restart(&self) {
        let mut state = self.state();
        let open: Vec<u64> = state.open.keys().copied().collect();
        for id in open {
            state.end(id, false);
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// Restores what [`snapshot`](Self::snapshot) was once. What was answered since is lost, so I9 cannot hold.
    pub fn restore_older(&self, older: Tables) {
        self.restart();
        let mut state = self.state();
        state.tables = older;
        state.version += 1;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction.
    pub(super) async fn begin(self: &Arc<Self>, lock_wait_ms: u64, lose: Lose) -> SimTransaction {
        (self.pause)("ledger: begin").await;
        let idle_max = Duration::from_millis(IDLE_IN_TRANSACTION_MAX_MS);
        let deadline = self.env.uptime() + idle_max;
        let id = self.state().begin(Open { idle_max, deadline, ..Open::default() });
        let lock_wait = Duration::from_millis(lock_wait_ms);
        SimTransaction { database: self.clone(), id, lock_wait, lose }
    }
}

/// Which answer of a transaction is lost: that to its end, or to whatever ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lose {
    Nothing,
    /// And it is not committed.
    Before,
    /// And it is committed.
    After,
}

/// A row, or one that is to be, as far as one transaction at a time may write it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    Verdict(ReservationId),
    Key(String),
    Lease(Item),
    Restock(Uuid),
    Event(i64),
}

/// A transaction that has not ended.
#[derive(Default)]
pub(super) struct Open {
    pub(super) changes: Changes,
    rows: BTreeSet<Row>,
    pub(super) idle_max: Duration,
    /// When the server ends it, as uptime: it has done nothing, or one statement, for too long.
    deadline: Duration,
}

#[derive(Default)]
struct ItemLock {
    shared: BTreeSet<u64>,
    alone: Option<u64>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) tables: Tables,
    version: u64,
    open: BTreeMap<u64, Open>,
    rows: BTreeMap<Row, u64>,
    items: BTreeMap<Item, ItemLock>,
    begun: u64,
    /// Numbers of events are given when they are inserted, whether they are committed or not.
    pub(super) last_seq: i64,
}

impl State {
    fn begin(&mut self, open: Open) -> u64 {
        self.begun += 1;
        self.open.insert(self.begun, open);
        self.begun
    }

    pub(super) fn transaction(&mut self, id: u64) -> &mut Open {
        self.open.get_mut(&id).expect("a statement runs in an open transaction")
    }

    pub(super) fn view(&self, id: u64) -> View<'_> {
        View { committed: &self.tables, own: &self.open[&id].changes }
    }

    /// Whether another transaction has written a row, and has not ended.
    pub(super) fn is_others(&self, id: u64, row: &Row) -> bool {
        self.rows.get(row).is_some_and(|holder| *holder != id)
    }

    /// Takes a row that is no other's.
    pub(super) fn take(&mut self, id: u64, row: Row) {
        self.transaction(id).rows.insert(row.clone());
        self.rows.insert(row, id);
    }

    /// Locks an item if it is free.
    pub(super) fn lock_item(&mut self, id: u64, item: &Item, alone: bool) -> Poll<()> {
        let lock = self.items.entry(item.clone()).or_default();
        if lock.alone.is_some_and(|holder| holder != id) || (alone && lock.shared.iter().any(|holder| *holder != id)) {
            return Poll::Pending;
        }
        if alone {
            lock.alone = Some(id);
        } else {
            lock.shared.insert(id);
        }
        Poll::Ready(())
    }

    fn end(&mut self, id: u64, commit: bool) {
        let Some(open) = self.open.remove(&id) else { return };
        for row in open.rows {
            self.rows.remove(&row);
        }
        self.items.retain(|_, lock| {
            lock.shared.remove(&id);
            lock.alone.take_if(|holder| *holder == id);
            lock.alone.is_some() || !lock.shared.is_empty()
        });
        if commit && open.changes != Changes::default() {
            self.tables.apply(open.changes);
            self.version += 1;
        }
    }

    /// Ends those whose time is over, and says whether there were any.
    fn expire(&mut self, now: Duration) -> bool {
        let over: Vec<u64> = self.open.iter().filter(|(_, open)| open.deadline <= now).map(|(id, _)| *id).collect();
        for id in &over {
            self.end(*id, false);
        }
        !over.is_empty()
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.open.values().map(|open| open.deadline).min()
    }
}

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the connection is lost")]
    Lost,
    #[error("canceling statement due to lock timeout")]
    LockWait,
    #[error("a value does not fit")]
    BadData,
}

impl From<Failed> for LedgerError {
    fn from(failed: Failed) -> Self {
        Self::Store(Box::new(failed))
    }
}

/// A transaction, and the connection that it is on. Dropped, it is undone.
pub(super) struct SimTransaction {
    pub(super) database: Arc<Database>,
    id: u64,
    lock_wait: Duration,
    pub(super) lose: Lose,
}

impl Drop for SimTransaction {
    fn drop(&mut self) {
        self.finish(false);
    }
}

impl SimTransaction {
    fn finish(&self, commit: bool) {
        self.database.state().end(self.id, commit);
        self.database.ended.notify_waiters();
    }

    /// Runs one statement. Where `step` has to wait for another transaction, it is asked again when one has ended, and goes
    /// on where it was.
    pub(super) async fn run<T>(
        &mut self,
        name: &'static str,
        mut step: impl FnMut(&mut State, u64) -> Result<Poll<T>, Failed>,
    ) -> Result<T, LedgerError> {
        let database = self.database.clone();
        (database.pause)(name).await;
        let began = database.env.uptime();
        let until = began + self.lock_wait;
        let mut is_running = false;
        loop {
            // Before the look: it is woken by what ends after it.
            let ended = database.ended.notified();
            let now = database.env.uptime();
            let wake = {
                let mut state = database.state();
                if state.expire(now) {
                    database.ended.notify_waiters();
                }
                let Some(open) = state.open.get_mut(&self.id) else { return Err(Failed::Lost.into()) };
                if !is_running {
                    open.deadline = began + Duration::from_millis(STATEMENT_MAX_MS);
                    is_running = true;
                }
                match step(&mut state, self.id) {
                    Ok(Poll::Ready(done)) => {
                        let open = state.transaction(self.id);
                        open.deadline = now + open.idle_max;
                        return Ok(done);
                    }
                    Ok(Poll::Pending) if now >= until => Err(Failed::LockWait),
                    Ok(Poll::Pending) => Ok(state.next_deadline().unwrap_or(until).min(until)),
                    Err(failed) => Err(failed),
                }
            };
            let wake = wake.inspect_err(|_| self.finish(false))?;
            tokio::select! {
                biased;
                () = ended => {}
                () = database.env.sleep(wake.saturating_sub(now)) => {}
            }
        }
    }

    /// The last statement: commits or undoes.
    pub(super) async fn end(mut self, commit: bool) -> Result<(), LedgerError> {
        self.run(if commit { "ledger: commit" } else { "ledger: rollback" }, |_, _| Ok(Poll::Ready(()))).await?;
        self.finish(commit && self.lose != Lose::Before);
        // Its answer is on the way.
        (self.database.pause)("ledger: ended").await;
        if self.lose == Lose::Nothing { Ok(()) } else { Err(Failed::Lost.into()) }
    }
}
