//! The ledger's tables, as committed, and what one transaction changes in them.

use std::collections::BTreeMap;

use contracts::values::{Epoch, Item, Quantity, ReservationId, Stamp, Timestamp};
use order::ledger::{Fingerprint, ItemStock, KeyedOrder, Order, OutboxEvent, RequestKey, steps::Standing};
use uuid::Uuid;

/// The verdict on a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictRow {
    /// Its item.
    pub item: Item,
    /// The hold's; of a tombstone the item's newest when it was written.
    pub epoch: Epoch,
    /// When it was written.
    pub created_at: Timestamp,
    /// None: a tombstone.
    pub order: Option<OrderRow>,
}

/// What an order has and a tombstone has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// The hold's.
    pub number: i64,
    /// Units.
    pub quantity: Quantity,
    /// What the request is known by, and what that stands for.
    pub key: Option<(RequestKey, Fingerprint)>,
}

impl VerdictRow {
    /// The order under this id; none of a tombstone.
    pub fn order(&self, id: ReservationId) -> Option<Order> {
        let OrderRow { quantity, .. } = *self.order.as_ref()?;
        Some(Order { id, item: self.item.clone(), quantity, created_at: self.created_at })
    }

    /// The stamp of an order; none of a tombstone.
    pub fn stamp(&self) -> Option<Stamp> {
        let order = self.order.as_ref()?;
        Some(Stamp { item: self.item.clone(), epoch: self.epoch, number: order.number })
    }

    pub(super) fn standing(&self, id: ReservationId) -> Standing {
        self.order(id).map_or(Standing::Aborted, Standing::Confirmed)
    }

    fn key(&self) -> Option<&str> {
        self.order.as_ref()?.key.as_ref().map(|(key, _)| key.as_str())
    }
}

/// The newest lease of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// 0 while the item was only restocked.
    pub epoch: Epoch,
    /// Units at the first lease.
    pub initial: i64,
    /// Units of the orders whose events are gone from the outbox.
    pub settled: i64,
    /// When it was made.
    pub leased_at: Option<Timestamp>,
}

/// A restock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestockRow {
    /// Of what.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// The item's newest when it was journalled.
    pub epoch: Epoch,
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The order.
    pub order_id: ReservationId,
    /// What was sold.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// The message's body.
    pub payload: String,
    /// Of the request.
    pub traceparent: String,
    /// When it was written.
    pub created_at: Timestamp,
}

impl EventRow {
    pub(super) fn event(&self, seq: i64) -> OutboxEvent {
        let payload = self.payload.clone().into_bytes();
        OutboxEvent { seq, order_id: self.order_id, payload, traceparent: self.traceparent.clone() }
    }
}

/// Units of one item, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// In confirmed orders.
    pub confirmed: i64,
    /// In restocks.
    pub restocked: i64,
    /// In events that wait.
    pub waiting: i64,
}

/// What is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Orders and tombstones.
    pub verdicts: BTreeMap<ReservationId, VerdictRow>,
    /// Leases.
    pub leases: BTreeMap<Item, LeaseRow>,
    /// Restocks.
    pub restocks: BTreeMap<Uuid, RestockRow>,
    /// Events that wait, by their numbers.
    pub outbox: BTreeMap<i64, EventRow>,
    /// Of every item that has any.
    pub sums: BTreeMap<Item, Sums>,
    keys: BTreeMap<String, ReservationId>,
}

impl Tables {
    /// Units that an item has received; none before its first lease or restock.
    pub fn received(&self, item: &Item) -> Option<i64> {
        let restocked = self.sums.get(item).map_or(0, |sums| sums.restocked);
        self.leases.get(item).map(|lease| lease.initial + restocked)
    }

    /// What is known of an item; if that is nothing, it has received `initial`.
    pub fn count(&self, item: &Item, initial: i64) -> ItemStock {
        View { committed: self, own: &Changes::default() }.count(item, initial)
    }

    /// The order that has a key.
    pub(super) fn by_key(&self, key: &str) -> Option<KeyedOrder> {
        let id = *self.keys.get(key)?;
        keyed(id, self.verdicts.get(&id)?)
    }

    fn sums(&mut self, item: &Item) -> &mut Sums {
        self.sums.entry(item.clone()).or_default()
    }

    /// Commits.
    pub(super) fn apply(&mut self, changes: Changes) {
        for (id, row) in changes.verdicts {
            let Some(row) = row else {
                self.verdicts.remove(&id);
                continue;
            };
            if let Some(order) = &row.order {
                self.sums(&row.item).confirmed += order.quantity.get();
            }
            if let Some(key) = row.key() {
                self.keys.insert(key.to_owned(), id);
            }
            self.verdicts.insert(id, row);
        }
        self.leases.extend(changes.leases);
        for (id, row) in changes.restocks {
            self.sums(&row.item).restocked += row.quantity.get();
            self.restocks.insert(id, row);
        }
        for (seq, row) in changes.outbox {
            match row {
                Some(row) => {
                    self.sums(&row.item).waiting += row.quantity.get();
                    self.outbox.insert(seq, row);
                }
                None => {
                    if let Some(gone) = self.outbox.remove(&seq) {
                        self.sums(&gone.item).waiting -= gone.quantity.get();
                    }
                }
            }
        }
    }
}

fn keyed(id: ReservationId, row: &VerdictRow) -> Option<KeyedOrder> {
    let (_, fingerprint) = row.order.as_ref()?.key.as_ref()?;
    Some(KeyedOrder { order: row.order(id)?, fingerprint: *fingerprint })
}

/// What a transaction changes; nobody else sees it before it is committed. None: deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) verdicts: BTreeMap<ReservationId, Option<VerdictRow>>,
    pub(super) leases: BTreeMap<Item, LeaseRow>,
    pub(super) restocks: BTreeMap<Uuid, RestockRow>,
    pub(super) outbox: BTreeMap<i64, Option<EventRow>>,
}

/// What a transaction sees.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) committed: &'a Tables,
    pub(super) own: &'a Changes,
}

impl View<'_> {
    pub(super) fn verdict(&self, id: ReservationId) -> Option<&VerdictRow> {
        match self.own.verdicts.get(&id) {
            Some(row) => row.as_ref(),
            None => self.committed.verdicts.get(&id),
        }
    }

    pub(super) fn by_key(&self, key: &str) -> Option<KeyedOrder> {
        let own = self.own.verdicts.iter().filter_map(|(id, row)| Some((*id, row.as_ref()?)));
        let own = own.filter(|(_, row)| row.key() == Some(key)).find_map(|(id, row)| keyed(id, row));
        own.or_else(|| self.committed.by_key(key))
    }

    pub(super) fn lease(&self, item: &Item) -> Option<&LeaseRow> {
        self.own.leases.get(item).or_else(|| self.committed.leases.get(item))
    }

    pub(super) fn epoch(&self, item: &Item) -> Epoch {
        self.lease(item).map_or(Epoch::NONE, |lease| lease.epoch)
    }

    pub(super) fn restock(&self, id: Uuid) -> Option<&RestockRow> {
        self.own.restocks.get(&id).or_else(|| self.committed.restocks.get(&id))
    }

    pub(super) fn count(&self, item: &Item, initial: i64) -> ItemStock {
        let sums = self.committed.sums.get(item).copied().unwrap_or_default();
        let lease = self.lease(item);
        let restocks = self.own.restocks.values().filter(|row| row.item == *item);
        let events = self.own.outbox.values().flatten().filter(|row| row.item == *item);
        let restocked = sums.restocked + restocks.map(|row| row.quantity.get()).sum::<i64>();
        let waiting = sums.waiting + events.map(|row| row.quantity.get()).sum::<i64>();
        ItemStock {
            epoch: self.epoch(item),
            received: lease.map_or(initial, |lease| lease.initial) + restocked,
            sold: lease.map_or(0, |lease| lease.settled) + waiting,
        }
    }
}
