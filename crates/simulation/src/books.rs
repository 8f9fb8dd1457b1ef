//! What stands in the simulated stores, as the invariants read it.

use std::collections::{BTreeMap, BTreeSet};

use contracts::values::{Epoch, Item, ReservationId, Stamp};
use order::ledger::Fingerprint;
use uuid::Uuid;

/// A confirmed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// The hold that became it.
    pub stamp: Stamp,
    /// Units.
    pub quantity: i64,
    /// What the request is known by, and what that stands for.
    pub key: Option<(String, Fingerprint)>,
}

/// An item's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    /// The newest.
    pub epoch: Epoch,
    /// Units before all restocks.
    pub initial: i64,
    /// Units of orders whose event has left the outbox.
    pub settled: i64,
}

/// The ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// Confirmed.
    pub orders: BTreeMap<ReservationId, Booked>,
    /// Aborted.
    pub tombstones: BTreeSet<ReservationId>,
    /// By item.
    pub leases: BTreeMap<Item, Lent>,
    /// With item, units and the epoch at which each was journalled.
    pub restocks: BTreeMap<Uuid, (Item, i64, Epoch)>,
    /// Orders whose events wait.
    pub outbox: BTreeMap<ReservationId, (Item, i64)>,
}

impl Books {
    /// Initial stock and all restocks; `None` for an item that the ledger has never heard of.
    pub fn received(&self, item: &Item) -> Option<i64> {
        let restocked: i64 = self.restocks.values().filter(|restock| restock.0 == *item).map(|restock| restock.1).sum();
        Some(self.leases.get(item)?.initial + restocked)
    }

    /// Units of confirmed orders.
    pub fn sold(&self, item: &Item) -> i64 {
        self.orders.values().filter(|order| order.stamp.item == *item).map(|order| order.quantity).sum()
    }
}

/// An item on one stock server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// Whether a script would work on it.
    pub open: bool,
    /// The lease.
    pub epoch: Epoch,
    /// Initial stock and restocks.
    pub received: i64,
    /// Free.
    pub available: i64,
    /// Set aside.
    pub held: i64,
    /// In orders.
    pub sold: i64,
}

impl Shelf {
    /// Whether the numbers are those of an item.
    pub fn adds_up(&self) -> bool {
        let numbers = [self.received, self.available, self.held, self.sold];
        numbers.iter().all(|n| *n >= 0) && self.received == self.available + self.held + self.sold
    }
}
