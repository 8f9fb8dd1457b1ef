//! The statements of the ledger's transactions, over tables in memory. Each sees what was committed before it began, and
//! waits where Postgres does: for a row that another transaction has written and not yet committed.

use std::{
    collections::{BTreeSet, HashMap},
    task::Poll,
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId, Stamp, Timestamp};
use order::ledger::{
    ItemStock, KeyedOrder, LedgerError, NewOrder, OutboxEvent, Restock,
    steps::{self, Epochs, PINNED, Prunable, Raise, Standing, Statements, Tombstone},
};
use uuid::Uuid;

use super::{
    database::{Failed, Row, SimTransaction, State},
    tables::{EventRow, LeaseRow, OrderRow, RestockRow, VerdictRow, View},
};

impl SimTransaction {
    /// A statement that only reads waits for nobody.
    async fn look<T>(&mut self, name: &'static str, look: impl Fn(View<'_>) -> T) -> Result<T, LedgerError> {
        self.run(name, |state, id| Ok(Poll::Ready(look(state.view(id))))).await
    }
}

#[async_trait]
impl Statements for SimTransaction {
    async fn lock_shared(&mut self, items: &BTreeSet<&Item>) -> Result<(), LedgerError> {
        let step = |state: &mut State, id: u64| {
            let all_locked = items.iter().all(|item| state.lock_item(id, item, false).is_ready());
            Ok(if all_locked { Poll::Ready(()) } else { Poll::Pending })
        };
        self.run("ledger: lock shared", step).await
    }

    async fn lock_alone(&mut self, item: &Item) -> Result<(), LedgerError> {
        self.run("ledger: lock alone", |state, id| Ok(state.lock_item(id, item, true))).await
    }

    async fn newest_epochs(&mut self, items: &BTreeSet<&Item>) -> Result<Epochs, LedgerError> {
        let of = |view: View<'_>| items.iter().map(|item| (item.as_str().to_owned(), view.epoch(item).0)).collect();
        self.look("ledger: epochs", of).await
    }

    async fn insert_orders(&mut self, orders: &[&NewOrder], now: Timestamp) -> Result<Vec<bool>, LedgerError> {
        let mut places: Vec<usize> = (0..orders.len()).collect();
        let key = |place: usize| orders[place].key.as_ref().map(|(key, _)| key.as_str());
        places.sort_by_key(|place| (key(*place).is_none(), key(*place), orders[*place].id));
        let mut places = places.into_iter().peekable();
        let mut inserted = vec![false; orders.len()];
        let step = |state: &mut State, id: u64| {
            while let Some(place) = places.peek().copied() {
                match insert_order(state, id, orders[place])? {
                    Poll::Ready(done) => inserted[place] = done,
                    Poll::Pending => return Ok(Poll::Pending),
                }
                places.next();
            }
            for (order, _) in orders.iter().zip(&inserted).filter(|(_, inserted)| **inserted) {
                state.last_seq += 1;
                let seq = state.last_seq;
                state.transaction(id).changes.outbox.insert(seq, Some(event_row(order, now)));
            }
            Ok(Poll::Ready(inserted.clone()))
        };
        self.run("ledger: insert", step).await
    }

    async fn by_ids(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Standing>, LedgerError> {
        let of = |view: View<'_>| ids.iter().filter_map(|id| Some((*id, view.verdict(*id)?.standing(*id)))).collect();
        self.look("ledger: by id", of).await
    }

    async fn by_keys(&mut self, keys: &[&str]) -> Result<HashMap<String, KeyedOrder>, LedgerError> {
        let of = |view: View<'_>| keys.iter().filter_map(|key| Some(((*key).to_owned(), view.by_key(key)?))).collect();
        self.look("ledger: by key", of).await
    }

    async fn raise_epoch(&mut self, raise: &Raise<'_>) -> Result<Option<Epoch>, LedgerError> {
        let step = |state: &mut State, id: u64| {
            let row = Row::Lease(raise.item.clone());
            if state.is_others(id, &row) {
                return Ok(Poll::Pending);
            }
            let newest = state.view(id).lease(raise.item).cloned();
            if newest.as_ref().is_some_and(|newest| is_left_alone(newest, raise)) {
                return Ok(Poll::Ready(None));
            }
            let new = LeaseRow { epoch: Epoch::NONE, initial: raise.initial, settled: 0, leased_at: None };
            let lease = newest.unwrap_or(new);
            let epoch = Epoch(lease.epoch.max(raise.dead).0.checked_add(1).ok_or(Failed::BadData)?);
            state.take(id, row);
            let raised = LeaseRow { epoch, leased_at: Some(raise.now), ..lease };
            state.transaction(id).changes.leases.insert(raise.item.clone(), raised);
            Ok(Poll::Ready(Some(epoch)))
        };
        self.run("ledger: raise", step).await
    }

    async fn count(&mut self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        let of = |view: View<'_>| items.iter().map(|item| view.count(item, initial)).collect();
        self.look("ledger: count", of).await
    }

    async fn insert_lease_row(&mut self, item: &Item, initial: i64) -> Result<(), LedgerError> {
        let step = |state: &mut State, id: u64| {
            let row = Row::Lease(item.clone());
            if state.is_others(id, &row) {
                return Ok(Poll::Pending);
            }
            if state.view(id).lease(item).is_none() {
                state.take(id, row);
                let new = LeaseRow { epoch: Epoch::NONE, initial, settled: 0, leased_at: None };
                state.transaction(id).changes.leases.insert(item.clone(), new);
            }
            Ok(Poll::Ready(()))
        };
        self.run("ledger: lease row", step).await
    }

    async fn insert_restock(&mut self, restock: &Restock, _now: Timestamp) -> Result<(), LedgerError> {
        let mut seen = None;
        let step = |state: &mut State, id: u64| {
            let epoch = *seen.get_or_insert_with(|| state.view(id).epoch(&restock.item));
            let row = Row::Restock(restock.id);
            if state.is_others(id, &row) {
                return Ok(Poll::Pending);
            }
            if state.view(id).restock(restock.id).is_none() {
                state.take(id, row);
                let new = RestockRow { item: restock.item.clone(), quantity: restock.quantity, epoch };
                state.transaction(id).changes.restocks.insert(restock.id, new);
            }
            Ok(Poll::Ready(()))
        };
        self.run("ledger: insert restock", step).await
    }

    async fn restock(&mut self, id: Uuid) -> Result<(Restock, Epoch), LedgerError> {
        let found = self.look("ledger: restock", |view| view.restock(id).cloned()).await?;
        let missing = || LedgerError::Corrupt(format!("restock {id} was neither inserted nor found"));
        let RestockRow { item, quantity, epoch } = found.ok_or_else(missing)?;
        Ok((Restock { id, item, quantity }, epoch))
    }

    async fn bury(&mut self, tombstones: &[Tombstone<'_>], now: Timestamp) -> Result<(), LedgerError> {
        let mut seen: Option<Vec<Epoch>> = None;
        let mut done = 0;
        let step = |state: &mut State, id: u64| {
            let epoch_of = |tombstone: &Tombstone<'_>| {
                if tombstone.is_pinned { PINNED } else { state.view(id).epoch(tombstone.item) }
            };
            let epochs = seen.get_or_insert_with(|| tombstones.iter().map(epoch_of).collect());
            while done < tombstones.len() {
                if bury_one(state, id, &tombstones[done], epochs[done], now).is_pending() {
                    return Ok(Poll::Pending);
                }
                done += 1;
            }
            Ok(Poll::Ready(()))
        };
        self.run("ledger: bury", step).await
    }

    async fn stamps(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Option<Stamp>>, LedgerError> {
        let of = |view: View<'_>| ids.iter().filter_map(|id| Some((*id, view.verdict(*id)?.stamp()))).collect();
        self.look("ledger: stamps", of).await
    }

    async fn commit(self) -> Result<(), LedgerError> {
        self.end(true).await
    }

    async fn rollback(self) -> Result<(), LedgerError> {
        self.end(false).await
    }
}

/// What the algorithm leaves to the stores.
impl SimTransaction {
    /// The transaction may do nothing for so long.
    pub(super) async fn idle_limit(&mut self, idle_max_ms: u64) -> Result<(), LedgerError> {
        let step = |state: &mut State, id: u64| {
            state.transaction(id).idle_max = std::time::Duration::from_millis(idle_max_ms);
            Ok(Poll::Ready(()))
        };
        self.run("ledger: idle limit", step).await
    }

    /// `FOR UPDATE SKIP LOCKED`.
    pub(super) async fn oldest_free(&mut self, limit: u32) -> Result<Vec<OutboxEvent>, LedgerError> {
        let step = |state: &mut State, id: u64| {
            let free = state.tables.outbox.iter().filter(|(seq, _)| !state.is_others(id, &Row::Event(**seq)));
            let events: Vec<OutboxEvent> = free.take(limit as usize).map(|(seq, row)| row.event(*seq)).collect();
            for event in &events {
                state.take(id, Row::Event(event.seq));
            }
            Ok(Poll::Ready(events))
        };
        self.run("ledger: oldest free", step).await
    }

    /// Locks the lease rows of these events, in the order of their items.
    pub(super) async fn lock_leases(&mut self, seqs: &[i64]) -> Result<(), LedgerError> {
        let step = |state: &mut State, id: u64| {
            let items: BTreeSet<Item> =
                seqs.iter().filter_map(|seq| Some(state.tables.outbox.get(seq)?.item.clone())).collect();
            for item in items {
                let row = Row::Lease(item);
                if state.is_others(id, &row) {
                    return Ok(Poll::Pending);
                }
                state.take(id, row);
            }
            Ok(Poll::Ready(()))
        };
        self.run("ledger: lock leases", step).await
    }

    /// Deletes events and counts their units as settled.
    pub(super) async fn settle(&mut self, seqs: &[i64]) -> Result<(), LedgerError> {
        let step = |state: &mut State, id: u64| {
            for seq in seqs {
                let Some(EventRow { item, quantity, .. }) = state.tables.outbox.get(seq).cloned() else { continue };
                let lease = state.view(id).lease(&item).cloned();
                let changes = &mut state.transaction(id).changes;
                changes.outbox.insert(*seq, None);
                if let Some(mut lease) = lease {
                    lease.settled += quantity.get();
                    changes.leases.insert(item, lease);
                }
            }
            Ok(Poll::Ready(()))
        };
        self.run("ledger: settle", step).await
    }

    /// Deletes tombstones, but for those that others write.
    pub(super) async fn prune(&mut self, limit: u32, prunable: Prunable) -> Result<u64, LedgerError> {
        let step = |state: &mut State, id: u64| {
            let view = state.view(id);
            let may_go = |of: ReservationId, row: &VerdictRow| {
                let newest = view.lease(&row.item).map(|lease| lease.epoch.0 - prunable.epochs_behind);
                row.order.is_none()
                    && newest.is_some_and(|newest| row.epoch.0 <= newest)
                    && (!of.is_client() || row.created_at < prunable.client_end)
                    && !state.is_others(id, &Row::Verdict(of))
            };
            let dead = state.tables.verdicts.iter().filter(|(of, row)| may_go(**of, row));
            let dead: Vec<ReservationId> = dead.map(|(of, _)| *of).take(limit as usize).collect();
            for of in &dead {
                state.take(id, Row::Verdict(*of));
                state.transaction(id).changes.verdicts.insert(*of, None);
            }
            Ok(Poll::Ready(dead.len() as u64))
        };
        self.run("ledger: prune", step).await
    }
}

fn is_left_alone(newest: &LeaseRow, raise: &Raise<'_>) -> bool {
    let is_fresh = newest.leased_at.is_some_and(|at| at > raise.fresh_after && at <= raise.now);
    newest.epoch > raise.dead && is_fresh
}

/// Inserts an order, and says whether it met neither its id nor its key.
fn insert_order(state: &mut State, id: u64, order: &NewOrder) -> Result<Poll<bool>, Failed> {
    if order.stamp.number < 1 || order.stamp.epoch < Epoch(1) {
        return Err(Failed::BadData);
    }
    let row = Row::Verdict(order.id);
    if state.is_others(id, &row) {
        return Ok(Poll::Pending);
    }
    if state.view(id).verdict(order.id).is_some() {
        return Ok(Poll::Ready(false));
    }
    if let Some((key, _)) = order.key.as_ref().filter(|_| steps::is_key_unique()) {
        let row = Row::Key(key.as_str().to_owned());
        if state.is_others(id, &row) {
            return Ok(Poll::Pending);
        }
        if state.view(id).by_key(key.as_str()).is_some() {
            return Ok(Poll::Ready(false));
        }
        state.take(id, row);
    }
    state.take(id, row);
    let new = VerdictRow {
        item: order.stamp.item.clone(),
        epoch: order.stamp.epoch,
        created_at: order.created_at,
        order: Some(OrderRow { number: order.stamp.number, quantity: order.quantity, key: order.key.clone() }),
    };
    state.transaction(id).changes.verdicts.insert(order.id, Some(new));
    Ok(Poll::Ready(true))
}

fn event_row(order: &NewOrder, now: Timestamp) -> EventRow {
    EventRow {
        order_id: order.id,
        item: order.stamp.item.clone(),
        quantity: order.quantity,
        payload: steps::event(order),
        traceparent: order.traceparent.clone(),
        created_at: now,
    }
}

fn bury_one(state: &mut State, id: u64, tombstone: &Tombstone<'_>, epoch: Epoch, now: Timestamp) -> Poll<()> {
    let row = Row::Verdict(tombstone.id);
    if state.is_others(id, &row) {
        return Poll::Pending;
    }
    let new = match state.view(id).verdict(tombstone.id) {
        None => VerdictRow { item: tombstone.item.clone(), epoch, created_at: now, order: None },
        Some(VerdictRow { order: Some(_), .. }) => return Poll::Ready(()),
        Some(there) => {
            let epoch = if there.item == *tombstone.item { there.epoch.max(epoch) } else { PINNED };
            VerdictRow { epoch, ..there.clone() }
        }
    };
    state.take(id, row);
    state.transaction(id).changes.verdicts.insert(tombstone.id, Some(new));
    Poll::Ready(())
}
