//! What the order service asks the inventory service: a trait with a method per call, so that a simulation can stand
//! between the two.

use async_trait::async_trait;
use contracts::{
    Failure,
    values::{Epoch, Item, Quantity, ReservationId, Stamp, Ttl},
};
use service::call::Call;

pub mod grpc;

/// Units to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    /// Names the hold. The same id again answers the same hold.
    pub id: ReservationId,
    /// The item.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// How long until the reaper asks for a verdict.
    pub ttl: Ttl,
    /// Least epoch that will do.
    pub least_epoch: Epoch,
}

/// Answer to [`Inventory::reserve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// The units are held under this stamp.
    Held(Stamp),
    /// So many are free, which is too few.
    Insufficient {
        /// Units free.
        remaining: i64,
    },
    /// The id was released: it never becomes an order.
    Released,
    /// The id is a hold of something else.
    Mismatch,
    /// The id is an order already.
    Confirmed,
}

/// The inventory service.
#[async_trait]
pub trait Inventory: Send + Sync + 'static {
    /// Holds units. Safe to repeat with the same id after any failure.
    async fn reserve(&self, call: &Call, request: &Reserve) -> Result<Reserved, Failure>;

    /// Gives a hold back unless the ledger says that it is an order.
    async fn release(&self, call: &Call, id: ReservationId, item: &Item) -> Result<(), Failure>;
}
