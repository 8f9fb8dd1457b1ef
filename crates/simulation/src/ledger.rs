//! The ledger in memory, for all order services of a simulation: its tables behave as those of Postgres do, statement by
//! statement, and its algorithm is the product's own ([`order::ledger::steps`]).
//!
//! - this module: the port, and answers that are lost
//! - [`database`]: transactions, locks, connections that end
//! - `statements`: what each statement does
//! - [`tables`]: what is stored

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId};
use order::ledger::{
    COMMIT_BATCH_MAX, CommitOutcome, ItemStock, KeyedOrder, Ledger, LedgerError, ListQuery, NewOrder, OUTBOX_COUNT_MAX,
    OpenOutcome, Order, OutboxBacklog, OutboxBatch, OutboxEvent, QUERY_BATCH_MAX, RequestKey, ResolveQuery, Restock,
    RestockOutcome, Verdict,
    postgres::{
        CALL_MAX_MS, COMMIT_CALL_MAX_MS, COMMIT_LOCK_WAIT_MAX_MS, IDLE_IN_TRANSACTION_MAX_MS, LOCK_WAIT_MAX_MS,
        OUTBOX_HOLD_MAX_MS,
    },
    steps::{self, Prunable, Statements, bounded},
};
use service::environment::Env;

pub mod database;
mod statements;
pub mod tables;

pub use database::{Database, Pause};
use database::{Failed, Lose, SimTransaction};
pub use tables::Tables;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It is answered, so much later.
    Slow(Duration),
    /// The ledger cannot be reached; nothing is done.
    Down,
    /// The connection is lost before anything is committed.
    LostBefore,
    /// It is done, and the connection is lost before the answer.
    LostAfter,
}

/// Asked with the name of a port's method whenever it is called.
pub type Fates = Arc<dyn Fn(&'static str) -> Fate + Send + Sync>;

/// The ledger of one order service.
pub struct SimLedger {
    client: Client,
}

/// The way of one order service to the database.
#[derive(Clone)]
struct Client {
    database: Arc<Database>,
    env: Env,
    fates: Fates,
}

impl SimLedger {
    /// Every call is answered. `env` is that of the order service.
    pub fn new(database: Arc<Database>, env: Env) -> Arc<Self> {
        Self::with_fates(database, env, Arc::new(|_| Fate::Answered))
    }

    /// Calls become what `fates` says.
    pub fn with_fates(database: Arc<Database>, env: Env, fates: Fates) -> Arc<Self> {
        Arc::new(Self { client: Client { database, env, fates } })
    }

    async fn commit_together(&self, orders: &[NewOrder], lose: Lose) -> Result<Vec<CommitOutcome>, LedgerError> {
        let transaction = self.client.database.begin(COMMIT_LOCK_WAIT_MAX_MS, lose).await;
        steps::commit(transaction, &self.client.env, orders).await
    }

    async fn commit_each_alone(
        &self,
        orders: &[NewOrder],
        lose: Lose,
    ) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        let mut outcomes = Vec::with_capacity(orders.len());
        for order in orders {
            outcomes.push(match self.commit_together(std::slice::from_ref(order), lose).await {
                Ok(mut one) => Ok(one.remove(0)),
                Err(error) if blames_data(&error) => Err(error),
                Err(error) => return Err(error),
            });
        }
        Ok(outcomes)
    }
}

fn blames_data(error: &LedgerError) -> bool {
    let LedgerError::Store(source) = error else { return true };
    matches!(source.downcast_ref(), Some(Failed::BadData))
}

impl Client {
    /// Does `work`, unless the call's fate is another one.
    async fn call<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        name: &'static str,
        limit_ms: u64,
        work: impl FnOnce(Lose) -> W,
    ) -> Result<T, LedgerError> {
        let lose = match (self.fates)(name) {
            Fate::Answered => Lose::Nothing,
            Fate::Slow(by) => {
                self.env.sleep(by).await;
                Lose::Nothing
            }
            Fate::Down => return Err(Failed::Lost.into()),
            Fate::LostBefore => Lose::Before,
            Fate::LostAfter => Lose::After,
        };
        let done = self.env.timeout(Duration::from_millis(limit_ms), work(lose)).await;
        done.unwrap_or_else(|_| Err(Failed::Lost.into()))
    }

    async fn transact<T, W: Future<Output = Result<T, LedgerError>>>(
        &self,
        name: &'static str,
        work: impl FnOnce(SimTransaction) -> W,
    ) -> Result<T, LedgerError> {
        let begun = |lose| async move { work(self.database.begin(LOCK_WAIT_MAX_MS, lose).await).await };
        self.call(name, CALL_MAX_MS, begun).await
    }

    /// One statement that only reads.
    async fn look<T>(&self, name: &'static str, look: impl FnOnce(&Tables) -> T) -> Result<T, LedgerError> {
        let work = |lose| async move {
            (self.database.pause)(name).await;
            let found = self.database.read(look);
            if lose == Lose::Nothing { Ok(found) } else { Err(Failed::Lost.into()) }
        };
        self.call(name, CALL_MAX_MS, work).await
    }
}

#[async_trait]
impl Ledger for SimLedger {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        bounded(orders.len(), COMMIT_BATCH_MAX)?;
        let work = |lose| async move {
            match self.commit_together(orders, lose).await {
                Ok(outcomes) => Ok(outcomes.into_iter().map(Ok).collect()),
                Err(error) if blames_data(&error) => self.commit_each_alone(orders, lose).await,
                Err(error) => Err(error),
            }
        };
        self.client.call("ledger: commit", COMMIT_CALL_MAX_MS, work).await
    }

    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        self.client.look("ledger: order_by_key", |tables| tables.by_key(key.as_str())).await
    }

    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.order(hold).await
    }

    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.client.look("ledger: order", |tables| tables.verdicts.get(&id)?.order(id)).await
    }

    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        let page = |tables: &Tables| {
            let orders = tables.verdicts.iter().filter_map(|(id, row)| row.order(*id));
            let is_wanted = |order: &Order| {
                query.item.as_ref().is_none_or(|item| order.item == *item)
                    && query.after.is_none_or(|after| (order.created_at, order.id) < after)
            };
            let mut orders: Vec<Order> = orders.filter(is_wanted).collect();
            orders.sort_by_key(|order| std::cmp::Reverse((order.created_at, order.id)));
            orders.truncate(query.limit as usize);
            orders
        };
        self.client.look("ledger: orders", page).await
    }

    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        let lend = |transaction| steps::lend(transaction, &self.client.env, item, initial, dead);
        self.client.transact("ledger: open_stock", lend).await
    }

    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        bounded(items.len(), QUERY_BATCH_MAX)?;
        let count = |tables: &Tables| items.iter().map(|item| tables.count(item, initial)).collect();
        self.client.look("ledger: stock", count).await
    }

    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        bounded(queries.len(), QUERY_BATCH_MAX)?;
        let judge = |mut transaction| async move {
            if steps::only_look(queries) {
                return steps::verdicts(&mut transaction, queries).await;
            }
            steps::judge(transaction, &self.client.env, queries).await
        };
        self.client.transact("ledger: resolve", judge).await
    }

    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        let journal = |transaction| steps::journal(transaction, &self.client.env, restock, initial);
        self.client.transact("ledger: record_restock", journal).await
    }

    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        let take = |mut transaction: SimTransaction| async move {
            transaction.idle_limit(OUTBOX_HOLD_MAX_MS).await?;
            let events = transaction.oldest_free(limit).await?;
            if transaction.lose != Lose::Nothing {
                return Err(Failed::Lost.into());
            }
            let transaction = Some(transaction).filter(|_| !events.is_empty());
            let batch: Box<dyn OutboxBatch> = Box::new(SimBatch { client: self.client.clone(), transaction, events });
            Ok(batch)
        };
        self.client.transact("ledger: take_outbox", take).await
    }

    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        let count = |tables: &Tables| OutboxBacklog {
            events: (tables.outbox.len() as u64).min(OUTBOX_COUNT_MAX.unsigned_abs()),
            oldest: tables.outbox.values().next().map(|row| row.created_at),
        };
        self.client.look("ledger: outbox_backlog", count).await
    }

    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError> {
        let prune = |mut transaction: SimTransaction| async move {
            let pruned = transaction.prune(limit, Prunable::at(self.client.env.now())).await?;
            transaction.commit().await?;
            Ok(pruned)
        };
        self.client.transact("ledger: prune_tombstones", prune).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.client.look("ledger: ping", |_| ()).await
    }
}

/// Events in hand, locked by the transaction.
struct SimBatch {
    client: Client,
    /// None if there are no events.
    transaction: Option<SimTransaction>,
    events: Vec<OutboxEvent>,
}

#[async_trait]
impl OutboxBatch for SimBatch {
    fn events(&self) -> &[OutboxEvent] {
        &self.events
    }

    async fn settle(mut self: Box<Self>, published: &[bool]) -> Result<(), LedgerError> {
        let gone = steps::settled(&self.events, published);
        let Some(mut transaction) = self.transaction.take() else { return Ok(()) };
        let work = |lose| async move {
            transaction.lose = lose;
            if gone.is_empty() {
                return transaction.rollback().await;
            }
            transaction.idle_limit(IDLE_IN_TRANSACTION_MAX_MS).await?;
            transaction.lock_leases(&gone).await?;
            transaction.settle(&gone).await?;
            transaction.commit().await
        };
        self.client.call("ledger: settle", CALL_MAX_MS, work).await
    }
}
