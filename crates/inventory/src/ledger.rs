//! The port to the ledger: a trait with a method per call of `orders.v1.LedgerService`, so that a simulation can hand in
//! another implementation. The ledger is the only judge of what is sold; every call may be repeated after any failure.

use async_trait::async_trait;
use contracts::{
    Failure,
    values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp},
};
use service::call::Call;
use uuid::Uuid;

pub mod grpc;

/// Most items of one [`StockLedger::stock`], and reservations of one [`StockLedger::resolve`].
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
    /// Units that a lease granted now would have free.
    pub fn free(&self) -> i64 {
        self.received - self.sold
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

/// What the inventory service asks the ledger. `initial` is the stock of an item that the ledger has never heard of.
#[async_trait]
pub trait StockLedger: Send + Sync + 'static {
    /// Lends the item's stock under a new epoch, above `dead` and above every earlier one. Whoever asks must be able to
    /// load the lease: it fences every hold of older epochs.
    async fn open_stock(&self, call: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure>;

    /// What is known of each item, in order; changes nothing. 1 to [`QUERY_BATCH_MAX`] items.
    async fn stock(&self, call: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure>;

    /// Judges each reservation, in order. 1 to [`QUERY_BATCH_MAX`] of them.
    async fn resolve(&self, call: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure>;

    /// Journals a restock, once per id, and answers the item's epoch at that time: later leases have counted it. With
    /// other content under a known id the failure is `RESTOCK_MISMATCH`.
    async fn record_restock(&self, call: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure>;
}
