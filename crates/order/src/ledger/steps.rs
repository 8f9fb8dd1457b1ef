//! The algorithm of the ledger's transactions, written once: which statements in which order, and what their answers mean.
//! Each store brings the statements: Postgres, SQLite, and the tables of the simulation.
//!
//! Every statement sees what was committed before it began. So the order of them is the algorithm: locks first, then what
//! is decided by, then what is written, then what stands.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    slice,
    time::Duration,
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, Lease, ReservationId, Stamp, Timestamp};
use service::{
    environment::Env,
    planted::{self, Bug},
};
use uuid::Uuid;

pub use super::judging::{Epochs, Standing, bounded, event};
use super::{
    CLIENT_TOMBSTONE_SECONDS, CommitOutcome, ItemStock, KeyedOrder, LEASE_GRACE_MS, LedgerError, NewOrder, OpenOutcome,
    OutboxEvent, ResolveQuery, Restock, RestockOutcome, Verdict,
    judging::{self, Found, corrupt},
};

/// Keeps a tombstone for ever: no item's epoch comes above it.
pub const PINNED: Epoch = Epoch(i64::MAX);

/// A lease to be made.
#[derive(Debug, Clone, Copy)]
pub struct Raise<'a> {
    /// What is lent.
    pub item: &'a Item,
    /// Units, if it is the first lease.
    pub initial: i64,
    /// The new epoch is above this one, and above the newest.
    pub dead: Epoch,
    /// When.
    pub now: Timestamp,
    /// A newest lease made after this moment and not in the future is left alone, unless it is dead. One from the future is
    /// of a clock that jumped back: it counts as old, or nobody would get one until the clock is there again.
    pub fresh_after: Timestamp,
}

/// A tombstone to be written.
#[derive(Debug, Clone, Copy)]
pub struct Tombstone<'a> {
    /// What can never become an order.
    pub id: ReservationId,
    /// It stands against holds of this item, at the item's newest epoch: once that is above the tombstone's, a commit is
    /// fenced without it.
    pub item: &'a Item,
    /// It stands against holds of another item too: there is no moment when it may go.
    pub is_pinned: bool,
}

/// Which tombstones may go.
#[derive(Debug, Clone, Copy)]
pub struct Prunable {
    /// Those whose item's newest epoch is above their own by so much at least.
    pub epochs_behind: i64,
    /// Of those of clients' ids only the ones written before.
    pub client_end: Timestamp,
}

impl Prunable {
    /// At this moment.
    pub fn at(now: Timestamp) -> Self {
        Self {
            epochs_behind: if planted::is(Bug::TombstonesByAge) { 0 } else { 1 },
            client_end: Timestamp(now.0.saturating_sub(CLIENT_TOMBSTONE_SECONDS * 1_000_000)),
        }
    }
}

/// The statements of one transaction. Dropped without [`commit`](Self::commit), everything is undone.
#[async_trait]
pub trait Statements: Send + Sized {
    /// Locks items to the transaction's end, together with others that sell or restock them.
    async fn lock_shared(&mut self, items: &BTreeSet<&Item>) -> Result<(), LedgerError>;

    /// Locks an item to the transaction's end, against all others.
    async fn lock_alone(&mut self, item: &Item) -> Result<(), LedgerError>;

    /// The newest epochs.
    async fn newest_epochs(&mut self, items: &BTreeSet<&Item>) -> Result<Epochs, LedgerError>;

    /// Inserts those that meet neither their id nor their key, with their events written at `now`, and says which.
    async fn insert_orders(&mut self, orders: &[&NewOrder], now: Timestamp) -> Result<Vec<bool>, LedgerError>;

    /// What stands under ids.
    async fn by_ids(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Standing>, LedgerError>;

    /// The orders that have keys.
    async fn by_keys(&mut self, keys: &[&str]) -> Result<HashMap<String, KeyedOrder>, LedgerError>;

    /// Raises the epoch, unless the newest lease is to be left alone.
    async fn raise_epoch(&mut self, raise: &Raise<'_>) -> Result<Option<Epoch>, LedgerError>;

    /// Epoch, received and sold, in the order of the items; of unknown ones `initial` was received.
    async fn count(&mut self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError>;

    /// Makes the lease row, at epoch 0, unless there is one.
    async fn insert_lease_row(&mut self, item: &Item, initial: i64) -> Result<(), LedgerError>;

    /// Journals a restock with its item's epoch, unless its id is there.
    async fn insert_restock(&mut self, restock: &Restock, now: Timestamp) -> Result<(), LedgerError>;

    /// A restock that is there, and its epoch.
    async fn restock(&mut self, id: Uuid) -> Result<(Restock, Epoch), LedgerError>;

    /// Writes tombstones, in the order of their ids. One that is there is raised to its item's newest epoch, or pinned if it
    /// is of another item. An order stays as it is.
    async fn bury(&mut self, tombstones: &[Tombstone<'_>], now: Timestamp) -> Result<(), LedgerError>;

    /// The stamps of the orders under ids; none for a tombstone.
    async fn stamps(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Option<Stamp>>, LedgerError>;

    /// Makes it all durable and seen.
    async fn commit(self) -> Result<(), LedgerError>;

    /// Undoes it all.
    async fn rollback(self) -> Result<(), LedgerError>;
}

/// Group commit.
pub async fn commit(
    mut transaction: impl Statements,
    env: &Env,
    orders: &[NewOrder],
) -> Result<Vec<CommitOutcome>, LedgerError> {
    transaction.lock_shared(&items(orders)).await?;
    let outcomes = write(&mut transaction, env, orders).await?;
    transaction.commit().await?;
    Ok(outcomes)
}

/// The epochs, the orders of the newest epochs with their events, then what became of the rest. Their items are locked.
pub async fn write(
    transaction: &mut impl Statements,
    env: &Env,
    orders: &[NewOrder],
) -> Result<Vec<CommitOutcome>, LedgerError> {
    let newest = transaction.newest_epochs(&items(orders)).await?;
    let mut created = vec![false; orders.len()];
    let admitted = newest.admitted(orders);
    if !admitted.is_empty() {
        let admitted_orders: Vec<&NewOrder> = admitted.iter().map(|index| &orders[*index]).collect();
        let inserted = transaction.insert_orders(&admitted_orders, env.now()).await?;
        for (index, inserted) in admitted.into_iter().zip(inserted) {
            created[index] = inserted;
        }
    }
    let rest: Vec<&NewOrder> =
        orders.iter().zip(&created).filter_map(|(order, created)| (!created).then_some(order)).collect();
    let found = if rest.is_empty() {
        Found::default()
    } else {
        let ids: Vec<ReservationId> = rest.iter().map(|order| order.id).collect();
        let keys: Vec<&str> = rest.iter().filter_map(|order| Some(order.key.as_ref()?.0.as_str())).collect();
        Found { by_id: transaction.by_ids(&ids).await?, by_key: transaction.by_keys(&keys).await? }
    };
    judging::outcomes(orders, &created, &newest, &found)
}

fn items(orders: &[NewOrder]) -> BTreeSet<&Item> {
    orders.iter().map(|order| &order.stamp.item).collect()
}

/// Whether a store holds the second order of a key to be none, as the index `order_keys` does in SQL: tables without a schema
/// ask here.
pub fn is_key_unique() -> bool {
    !planted::is(Bug::KeyCheckedThenInserted)
}

/// Lends an item's stock.
pub async fn lend(
    mut transaction: impl Statements,
    env: &Env,
    item: &Item,
    initial: i64,
    dead: Epoch,
) -> Result<OpenOutcome, LedgerError> {
    let item_alone = slice::from_ref(item);
    let mut counted = Vec::new();
    if planted::is(Bug::LeaseSummedFirst) {
        counted = transaction.count(item_alone, initial).await?;
    }
    transaction.lock_alone(item).await?;
    let now = env.now();
    let grace = i64::try_from(Duration::from_millis(LEASE_GRACE_MS).as_micros()).expect("a fraction of a second");
    let dead = if planted::is(Bug::EpochNotAboveStore) { Epoch::NONE } else { dead };
    let raise = Raise { item, initial, dead, now, fresh_after: Timestamp(now.0.saturating_sub(grace)) };
    let Some(epoch) = transaction.raise_epoch(&raise).await? else {
        transaction.rollback().await?;
        return Ok(OpenOutcome::Wait);
    };
    // After the epoch is raised: an order that this misses is of an older epoch and can no longer be committed.
    if !planted::is(Bug::LeaseSummedFirst) {
        counted = transaction.count(item_alone, initial).await?;
    }
    let [ItemStock { received, sold, .. }] = counted[..] else {
        return Err(corrupt(&"lease", item));
    };
    transaction.commit().await?;
    // A hand has sold more than there is. Nobody gets the item, and orders under its old leases end too.
    if sold > received {
        return Err(corrupt(&"oversold", &format_args!("{item}: {sold} of {received}")));
    }
    Ok(OpenOutcome::Lease(Lease { item: item.clone(), epoch, received, sold }))
}

/// Journals a restock.
pub async fn journal(
    mut transaction: impl Statements,
    env: &Env,
    restock: &Restock,
    initial: i64,
) -> Result<RestockOutcome, LedgerError> {
    transaction.lock_shared(&BTreeSet::from([&restock.item])).await?;
    transaction.insert_lease_row(&restock.item, initial).await?;
    transaction.insert_restock(restock, env.now()).await?;
    let (there, epoch) = transaction.restock(restock.id).await?;
    if there == *restock {
        transaction.commit().await?;
        Ok(RestockOutcome::Journalled(epoch))
    } else {
        // Undone, so that a refusal leaves no lease row behind.
        transaction.rollback().await?;
        Ok(RestockOutcome::OtherContent)
    }
}

/// Whether nothing is to be judged, only looked up: then [`verdicts`] needs no transaction.
pub fn only_look(queries: &[ResolveQuery]) -> bool {
    queries.iter().all(|query| query.stamp.is_none())
}

/// Judges reservations.
pub async fn judge(
    mut transaction: impl Statements,
    env: &Env,
    queries: &[ResolveQuery],
) -> Result<Vec<Verdict>, LedgerError> {
    if !planted::is(Bug::NoTombstone) {
        transaction.bury(&tombstones(queries), env.now()).await?;
    }
    let verdicts = verdicts(&mut transaction, queries).await?;
    transaction.commit().await?;
    Ok(verdicts)
}

/// The verdicts on reservations, by what stands.
pub async fn verdicts(
    transaction: &mut impl Statements,
    queries: &[ResolveQuery],
) -> Result<Vec<Verdict>, LedgerError> {
    judging::verdicts(queries, &transaction.stamps(&ids(queries)).await?)
}

pub(super) fn ids(queries: &[ResolveQuery]) -> Vec<ReservationId> {
    queries.iter().map(|query| query.id).collect()
}

/// Each id once. In the order of the ids, or two who bury the same ones would wait for each other in turn.
fn tombstones(queries: &[ResolveQuery]) -> Vec<Tombstone<'_>> {
    let mut tombstones = BTreeMap::new();
    for query in queries {
        if let Some(Stamp { item, .. }) = &query.stamp {
            let tombstone = tombstones.entry(query.id).or_insert(Tombstone { id: query.id, item, is_pinned: false });
            tombstone.is_pinned |= tombstone.item != item;
        }
    }
    tombstones.into_values().collect()
}

/// The numbers of the events that the broker has (`published`, aligned with them).
pub fn settled(events: &[OutboxEvent], published: &[bool]) -> Vec<i64> {
    assert_eq!(published.len(), events.len(), "one answer for each event");
    events.iter().zip(published).filter_map(|(event, done)| done.then_some(event.seq)).collect()
}
