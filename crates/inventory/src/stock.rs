//! The stock store port: a fast table of holds that may lose anything at any moment. Each method is one atomic step, may
//! be repeated, and changes nothing when it answers that the item is not open.
//!
//! An item is *not open* when it is missing, of another incarnation of the store's data, below the least epoch asked
//! for, or when its counts do not add up (received = available + held + sold; holds and deadlines as many as counted).
//!
//! - [`memory`]: the embedded store
//! - [`redis`]: the store that processes share
//! - [`conformance`]: what every store must do, as tests written once

pub mod conformance;
pub mod memory;
pub mod redis;

use async_trait::async_trait;
use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp, Timestamp, Ttl};
use uuid::Uuid;

/// Most holds of one [`StockStore::due`].
pub const DUE_BATCH_MAX: usize = 500;
/// Most items of one [`StockStore::open_items`].
pub const OPEN_ITEMS_BATCH_MAX: usize = 500;
/// How long a marker is kept that refuses a reserve which its release overtook, in seconds.
pub const RELEASE_MARKER_SECONDS: u64 = 86_400;
/// How long it is remembered that a hold was confirmed, so that a late repeat of its reserve answers it again, in
/// seconds. Forgetting is safe: the ledger judges the new hold surplus.
pub const CONFIRMED_MARKER_SECONDS: u64 = 60;
/// How long a hint outlives its hold, in seconds: longer than a ledger is away, because until it has given the verdict on
/// the overdue hold, nobody but the hint knows that the id ever was.
pub const HINT_GRACE_SECONDS: u64 = 3_600;

/// Most restocks that a lease takes. Beyond it an item answers that it is not open: the next lease has counted them all.
pub const RESTOCKS_PER_LEASE_MAX: usize = 10_000;

/// One life of a stock store's data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(pub String);

/// Units to set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveRequest {
    /// Names the hold.
    pub id: ReservationId,
    /// The item.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// How long until it is due. A repeat lengthens the deadline at most.
    pub ttl: Ttl,
    /// Least epoch that will do.
    pub least_epoch: Epoch,
    /// Whether it is a client's hold. Then [`StockStore::find`] finds it by its id alone: the hint is written before the
    /// hold and outlives it by [`HINT_GRACE_SECONDS`]. And a repeat past its deadline does not lengthen it: it is
    /// [`ReserveReply::Overdue`].
    pub hint: bool,
}

/// Answer to a reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveReply {
    /// Held, now or before; or already confirmed under this id.
    Held {
        /// The hold.
        stamp: Stamp,
        /// Units still free.
        remaining: i64,
        /// When it is due.
        deadline: Timestamp,
    },
    /// Fewer units are free than asked for.
    Insufficient {
        /// Units free.
        remaining: i64,
    },
    /// The id was released before.
    Released,
    /// The id is a hold of another item (as far as its hint tells) or another quantity.
    Mismatch,
    /// The id is a client's hold that is past its deadline. Nothing was changed: the ledger's verdict is to be asked for.
    Overdue,
    /// See the module.
    NotOpen,
}

/// Answer to a confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmReply {
    /// Held became sold.
    Confirmed,
    /// No hold of this stamp is there: it was confirmed before.
    AlreadyDone,
    /// The stamp's epoch is older than the item's: its lease has counted the order.
    Superseded,
    /// See the module; also when the stamp's epoch is newer than the item's.
    NotOpen,
}

/// Answer to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseReply {
    /// Held became available.
    Released,
    /// No hold of this id is there, or one of another stamp, which is left alone.
    Absent,
    /// The stamp's epoch is not the item's.
    Superseded,
    /// See the module.
    NotOpen,
}

/// Answer to a restock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestockReply {
    /// Added now or before (at most once by id), or counted by a newer lease; so many are available.
    Counted {
        /// Units free.
        available: i64,
    },
    /// See the module; also when the restock was journalled at a newer epoch than the item's, or is beyond
    /// [`RESTOCKS_PER_LEASE_MAX`].
    NotOpen,
}

/// Answer to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StockReply {
    /// Open; so many are free.
    Available(i64),
    /// See the module.
    NotOpen,
}

/// Answer to a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadReply {
    /// The item is open under the lease.
    Loaded,
    /// Another incarnation, or an epoch as high is stored. The lease is burnt.
    Refused,
}

/// What [`StockStore::probe`] finds, before a lease is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The life of the store's data; a load names it.
    pub incarnation: Incarnation,
    /// The epoch stored for the item, open or not; [`Epoch::NONE`] without one.
    pub stored: Epoch,
    /// Whether the item is open.
    pub open: bool,
}

/// A hold as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: ReservationId,
    /// Which hold it is.
    pub stamp: Stamp,
    /// Units.
    pub quantity: Quantity,
    /// When it is due.
    pub deadline: Timestamp,
}

/// What [`StockStore::find`] finds under a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The item that the hint names.
    pub item: Item,
    /// The hold, if it is there.
    pub hold: Option<Hold>,
}

/// One item's numbers, for audits and tests. received = available + held + sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The lease.
    pub epoch: Epoch,
    /// Initial stock plus restocks.
    pub received: i64,
    /// Free.
    pub available: i64,
    /// Set aside.
    pub held: i64,
    /// In orders.
    pub sold: i64,
    /// Number of holds.
    pub holds: u64,
}

/// The store does not answer. What was under way may or may not have happened, or may still happen.
#[derive(Debug, thiserror::Error)]
#[error("stock store: {0}")]
pub struct StockError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A fast table of holds.
#[async_trait]
pub trait StockStore: Send + Sync + 'static {
    /// Sets units aside, at most once per id.
    async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError>;

    /// Turns the hold of this stamp into a sale, at most once.
    async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> Result<ConfirmReply, StockError>;

    /// Gives the units of the hold of this stamp back, at most once. With `marker` the id is remembered for
    /// [`RELEASE_MARKER_SECONDS`], also when no hold is there: a reserve that arrives later is refused. A stamp with
    /// number 0 names no hold and its epoch is not compared: it only leaves the marker.
    ///
    /// No hold is released whose verdict was not asked for, and no marker hides one: while a hold of another stamp has
    /// the id, or it is remembered as confirmed, the answer is [`ReleaseReply::Absent`] and no marker is left. Neither
    /// is one left by [`ReleaseReply::Superseded`]: the stamp says nothing about the item's present lease.
    async fn release(&self, id: ReservationId, stamp: &Stamp, marker: bool) -> Result<ReleaseReply, StockError>;

    /// Adds units, at most once per id, if the item's epoch is the one the restock was journalled at.
    async fn restock(
        &self,
        id: Uuid,
        item: &Item,
        quantity: Quantity,
        epoch: Epoch,
    ) -> Result<RestockReply, StockError>;

    /// Units free.
    async fn available(&self, item: &Item) -> Result<StockReply, StockError>;

    /// The hold of a client's id, by its hint. On an item that is not open no hold is found: it goes with the next lease.
    async fn find(&self, id: ReservationId) -> Result<Option<Found>, StockError>;

    /// The hold of this id on this item, if the item is open.
    async fn hold(&self, item: &Item, id: ReservationId) -> Result<Option<Hold>, StockError>;

    /// Whether the item is open, and what a load must name. An error while the store takes no writes: no lease may be asked
    /// for then.
    async fn probe(&self, item: &Item) -> Result<Probe, StockError>;

    /// Opens an item: forgets all that is known of it and starts at the lease. Never sent twice: any doubt burns it.
    async fn load(&self, lease: &Lease, incarnation: &Incarnation) -> Result<LoadReply, StockError>;

    /// Holds past their deadline on open items, longest overdue first, at most [`DUE_BATCH_MAX`].
    async fn due(&self) -> Result<Vec<Hold>, StockError>;

    /// Open items with their epochs, in order of their names, after this one; at most [`OPEN_ITEMS_BATCH_MAX`].
    async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError>;

    /// An item's numbers as they stand, if it is there, open or not.
    async fn counts(&self, item: &Item) -> Result<Option<Counts>, StockError>;

    /// Whether at least one of its servers can be asked and takes writes.
    async fn ping(&self) -> Result<(), StockError>;
}
