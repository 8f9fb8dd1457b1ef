//! What stands in the simulated stores, as the invariants read it.

use std::{collections::BTreeMap, sync::LazyLock};

use contracts::values::{Epoch, Item, ReservationId, Stamp};
use order::ledger::Fingerprint;
use uuid::Uuid;

use crate::{
    ledger::{Database, Tables},
    redis::{Numbers, Redis, SERVERS},
    workload::{ITEMS, item},
};

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
    /// Aborted, with the item and its epoch.
    pub tombstones: BTreeMap<ReservationId, (Item, Epoch)>,
    /// By item.
    pub leases: BTreeMap<Item, Lent>,
    /// With item, units and the epoch at which each was journalled.
    pub restocks: BTreeMap<Uuid, (Item, i64, Epoch)>,
    /// Orders whose events wait.
    pub outbox: BTreeMap<ReservationId, (Item, i64)>,
}

impl Books {
    /// As it is committed.
    pub fn read(database: &Database) -> Self {
        database.read(Self::of)
    }

    fn of(tables: &Tables) -> Self {
        let mut books = Self::default();
        for (id, verdict) in &tables.verdicts {
            let (Some(order), Some(stamp)) = (&verdict.order, verdict.stamp()) else {
                books.tombstones.insert(*id, (verdict.item.clone(), verdict.epoch));
                continue;
            };
            let key = order.key.as_ref().map(|(key, fingerprint)| (key.as_str().to_owned(), *fingerprint));
            books.orders.insert(*id, Booked { stamp, quantity: order.quantity.get(), key });
        }
        for (item, lease) in &tables.leases {
            let lent = Lent { epoch: lease.epoch, initial: lease.initial, settled: lease.settled };
            books.leases.insert(item.clone(), lent);
        }
        for (id, restock) in &tables.restocks {
            books.restocks.insert(*id, (restock.item.clone(), restock.quantity.get(), restock.epoch));
        }
        for event in tables.outbox.values() {
            books.outbox.insert(event.order_id, (event.item.clone(), event.quantity.get()));
        }
        books
    }

    /// Initial stock and all restocks; `None` for an item that the ledger has never heard of.
    pub fn received(&self, item: &Item) -> Option<i64> {
        let restocked: i64 = self.restocks.values().filter(|restock| restock.0 == *item).map(|restock| restock.1).sum();
        Some(self.leases.get(item)?.initial + restocked)
    }

    /// The item's newest lease.
    pub fn epoch(&self, item: &Item) -> Epoch {
        self.leases.get(item).map_or(Epoch::NONE, |lent| lent.epoch)
    }

    /// What a lease of this epoch has counted: units received, and units sold, under the epochs before it.
    pub fn before(&self, item: &Item, epoch: Epoch) -> (i64, i64) {
        let restocks = self.restocks.values().filter(|(of, _, at)| of == item && *at < epoch);
        let orders = self.orders.values().filter(|order| order.stamp.item == *item && order.stamp.epoch < epoch);
        let initial = self.leases.get(item).map_or(0, |lent| lent.initial);
        (initial + restocks.map(|(_, units, _)| units).sum::<i64>(), orders.map(|order| order.quantity).sum())
    }

    /// Units of confirmed orders.
    pub fn sold(&self, item: &Item) -> i64 {
        self.orders.values().filter(|order| order.stamp.item == *item).map(|order| order.quantity).sum()
    }
}

/// An item on one stock server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// Whether a script would work on it; false where that was not asked.
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

/// What is sold.
static SOLD: LazyLock<[Item; 3]> = LazyLock::new(|| ITEMS.map(item));

/// Shelves by server and item.
pub type Shelves = BTreeMap<(usize, Item), Shelf>;

impl Shelf {
    /// All items that are sold, on all servers, without asking whether they are open.
    pub fn read_all(redis: &Redis) -> Shelves {
        let mut shelves = Shelves::new();
        for (server, item) in (0..SERVERS).flat_map(|server| SOLD.iter().map(move |item| (server, item))) {
            if let Some(numbers) = redis.figures(server, item.as_str()) {
                shelves.insert((server, item.clone()), Self::of(&numbers));
            }
        }
        shelves
    }

    /// An item as the product's scripts find it.
    pub fn read(redis: &Redis, server: usize, item: &Item) -> Option<Self> {
        redis.numbers(server, item.as_str()).as_ref().map(Self::of)
    }

    fn of(numbers: &Numbers) -> Self {
        let Numbers { open, epoch, received, available, held, sold, .. } = *numbers;
        Self { open, epoch: Epoch(epoch), received, available, held, sold }
    }

    /// Whether the numbers are those of an item.
    pub fn adds_up(&self) -> bool {
        let numbers = [self.received, self.available, self.held, self.sold];
        numbers.iter().all(|n| *n >= 0) && self.received == self.available + self.held + self.sold
    }
}
