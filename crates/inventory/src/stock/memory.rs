//! The embedded stock store: the process's memory. It loses everything at every restart, which is what a stock store
//! may do: items are opened again by leases from the ledger.
//!
//! One mutex guards the whole table. An operation holds it for about a microsecond, far less than the ledger's write that
//! follows; so sharding would buy nothing, while one table makes hint and hold one step and needs no merging to answer
//! what is due or which items are open.
//!
//! - `table`: all items, what finds the due ones among them, and the hints
//! - [`item`]: one item and its changes
//! - [`numbers`]: its five numbers, and when they add up
//! - `expiring`: what is remembered for a while

mod expiring;
pub mod item;
pub mod numbers;
mod table;

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp};
use service::environment::Env;
use uuid::Uuid;

use self::{item::ItemState, table::Table};
use super::{
    ConfirmReply, Counts, Found, Hold, Incarnation, LoadReply, Probe, ReleaseReply, ReserveReply, ReserveRequest,
    RestockReply, StockError, StockReply, StockStore,
};

/// Most confirmed markers of an item, and most release markers; beyond it the oldest are forgotten. Forgetting is safe: a
/// late reserve then makes a hold, on which the ledger gives the verdict that it gave before (order or tombstone), so
/// the hold becomes no second order and its units come back when it is due.
pub const MARKERS_PER_ITEM_MAX: usize = 100_000;
/// Most hints of the store; beyond it those that end first are forgotten. Then a client's hold is not found by its id
/// alone: it cannot be released early, and is given back when it is due.
pub const HINTS_MAX: usize = 1_000_000;

/// A stock store in memory.
pub struct MemoryStock {
    env: Env,
    table: Mutex<Table>,
}

impl MemoryStock {
    /// Empty, with an incarnation of its own.
    pub fn new(env: Env) -> Arc<Self> {
        let table = Mutex::new(Table::new(fresh_incarnation(&env)));
        Arc::new(Self { env, table })
    }

    /// For tests and simulation: forgets everything within the same incarnation, as a `FLUSHALL` does to Redis.
    pub fn wipe(&self) {
        let mut table = self.table();
        let empty = table.emptied();
        let old = mem::replace(&mut *table, empty);
        drop(table);
        drop(old);
    }

    /// For tests and simulation: begins another incarnation with the same data, as a failover does to Redis.
    pub fn renew_incarnation(&self) {
        self.table().set_incarnation(fresh_incarnation(&self.env));
    }

    /// For tests and simulation: changes an item as an operator's hand would. Nothing happens if it is not there.
    pub fn edit(&self, item: &Item, change: impl FnOnce(&mut ItemState)) {
        self.table().edit(item, change);
    }

    /// For tests: entries kept as hints, as the item's confirmed markers and as its release markers, in this order.
    pub fn remembered(&self, item: &Item) -> (usize, usize, usize) {
        self.table().remembered(item)
    }

    /// The table. If an assertion broke while it was changed, nothing in it is believed any more: a new life begins, and the
    /// ledger lends every item again.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned: PoisonError<MutexGuard<'_, Table>>| {
            let mut table = poisoned.into_inner();
            *table = Table::new(fresh_incarnation(&self.env));
            self.table.clear_poison();
            table
        })
    }
}

fn fresh_incarnation(env: &Env) -> Incarnation {
    Incarnation(env.uuid().to_string())
}

#[async_trait]
impl StockStore for MemoryStock {
    async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError> {
        let now = self.env.now();
        Ok(self.table().reserve(request, now))
    }

    async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> Result<ConfirmReply, StockError> {
        let now = self.env.now();
        let reply = self.table().change(&stamp.item, Epoch::NONE, |state| state.confirm(id, stamp, now));
        Ok(reply.unwrap_or(ConfirmReply::NotOpen))
    }

    async fn release(&self, id: ReservationId, stamp: &Stamp, marker: bool) -> Result<ReleaseReply, StockError> {
        let now = self.env.now();
        let reply = self.table().change(&stamp.item, Epoch::NONE, |state| state.release(id, stamp, marker, now));
        Ok(reply.unwrap_or(ReleaseReply::NotOpen))
    }

    async fn restock(
        &self,
        id: Uuid,
        item: &Item,
        quantity: Quantity,
        epoch: Epoch,
    ) -> Result<RestockReply, StockError> {
        let reply = self.table().change(item, Epoch::NONE, |state| state.restock(id, quantity, epoch));
        Ok(reply.unwrap_or(RestockReply::NotOpen))
    }

    async fn available(&self, item: &Item) -> Result<StockReply, StockError> {
        let available = self.table().open(item).map(|state| state.numbers.available);
        Ok(available.map_or(StockReply::NotOpen, StockReply::Available))
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Found>, StockError> {
        let now = self.env.now();
        Ok(self.table().find(id, now))
    }

    async fn hold(&self, item: &Item, id: ReservationId) -> Result<Option<Hold>, StockError> {
        Ok(self.table().open(item).and_then(|state| state.hold(id)))
    }

    async fn probe(&self, item: &Item) -> Result<Probe, StockError> {
        Ok(self.table().probe(item))
    }

    async fn load(&self, lease: &Lease, incarnation: &Incarnation) -> Result<LoadReply, StockError> {
        let (reply, old) = self.table().load(lease, incarnation);
        // Many holds and markers take a while to drop; the lock is free already.
        drop(old);
        Ok(reply)
    }

    async fn due(&self) -> Result<Vec<Hold>, StockError> {
        let now = self.env.now();
        Ok(self.table().due(now))
    }

    async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError> {
        Ok(self.table().open_items(after))
    }

    async fn counts(&self, item: &Item) -> Result<Option<Counts>, StockError> {
        Ok(self.table().counts(item))
    }

    async fn ping(&self) -> Result<(), StockError> {
        Ok(())
    }
}
