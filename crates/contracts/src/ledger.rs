//! What the ledger is asked and answers, as both sides of `orders.v1.LedgerService` hold it.

use uuid::Uuid;

use crate::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp};

/// Most items of one `GetStock`, and reservations of one `ResolveReservation`.
pub const QUERY_BATCH_MAX: usize = 500;

/// Answer to a request for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenOutcome {
    /// Granted. It may be loaded at most once.
    Lease(Lease),
    /// Somebody else was granted a lease a moment ago: look at the store again before asking again.
    Wait,
}

/// What the ledger knows of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemStock {
    /// The newest lease; [`Epoch::NONE`] when it was never lent.
    pub epoch: Epoch,
    /// Initial stock plus all restocks, in units.
    pub received: i64,
    /// Units in confirmed orders, never more than `received`.
    pub sold: i64,
}

impl ItemStock {
    /// Units that a lease granted now would have free: none where a hand in the stock store has sold more than there is.
    pub fn free(&self) -> i64 {
        (self.received - self.sold).max(0)
    }
}

/// Whose books are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BooksOf {
    /// This item's.
    Item(Item),
    /// Those of the item after this one in the order of names, or of the first.
    After(Option<Item>),
}

/// All that the ledger's tables say of one item, read at one moment: `settled + outbox_units == orders`, always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// The item.
    pub item: Item,
    /// The newest lease; [`Epoch::NONE`] when it was never lent.
    pub epoch: Epoch,
    /// Initial stock plus all restocks, in units.
    pub received: i64,
    /// Units of the orders whose events have left the outbox.
    pub settled: i64,
    /// Units of the events in the outbox.
    pub outbox_units: i64,
    /// Events in the outbox.
    pub outbox_events: i64,
    /// Units of all confirmed orders; `None` where there are too many to sum them up.
    pub orders: Option<i64>,
}

impl Books {
    /// Units in confirmed orders, as leases count them.
    pub fn sold(&self) -> i64 {
        self.settled.saturating_add(self.outbox_units)
    }
}

/// A reservation to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveQuery {
    /// The reservation.
    pub id: ReservationId,
    /// The hold to judge; without a verdict it is aborted for ever. `None` only looks the verdict up.
    pub stamp: Option<Stamp>,
}

/// The ledger's judgement of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An order under this stamp, or under any when none was named.
    Confirmed,
    /// An order under another stamp: this hold is surplus.
    ConfirmedElsewhere,
    /// Not an order, for ever.
    Aborted,
    /// None yet; only without a stamp.
    Unknown,
}

/// Units that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restock {
    /// Names it: repeats change nothing.
    pub id: Uuid,
    /// The item.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
}
