//! What callers ask and are told, in the order in which it happens.

use std::sync::{Arc, Mutex, PoisonError};

use contracts::{
    Reason,
    orders::v1::CreateOrderRequest,
    values::{Item, Quantity, ReservationId},
};
use order::{
    attempt::{self, Identity},
    ledger::{Fingerprint, RequestKey},
};
use uuid::Uuid;

/// A request for an order. Whoever sends it again means the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRequest {
    /// What to buy.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// The Idempotency-Key, or the attempt id that gateway and edge give to all repeats of one POST.
    pub identity: Identity,
    /// The hold that it is to be made of.
    pub hold: Option<ReservationId>,
}

impl OrderRequest {
    /// What the ledger keeps of its content.
    pub fn fingerprint(&self) -> Fingerprint {
        attempt::fingerprint(&self.item, self.quantity, self.hold)
    }

    /// What the ledger knows it by.
    pub fn key(&self) -> RequestKey {
        self.identity.request_key(&self.fingerprint())
    }

    /// Whether a client has named it.
    pub fn is_keyed(&self) -> bool {
        matches!(self.identity, Identity::Key(_))
    }

    /// As it is sent.
    pub fn message(&self) -> CreateOrderRequest {
        let (key, attempt) = match &self.identity {
            Identity::Key(key) => (Some(key.as_str().to_owned()), None),
            Identity::Attempt(attempt) => (None, Some(attempt.as_str().to_owned())),
        };
        CreateOrderRequest {
            item: self.item.to_string(),
            quantity: self.quantity.get(),
            idempotency_key: key,
            reservation_id: self.hold.map(|id| id.to_string()),
            attempt_id: attempt,
        }
    }
}

/// Something that a caller does or is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request for an order leaves; its number is its place among all that left.
    Asked(Arc<OrderRequest>, u64),
    /// It is answered with an order.
    Ordered(Arc<OrderRequest>, ReservationId, String, i64),
    /// It is refused for good.
    Refused(Arc<OrderRequest>, Reason, u64),
    /// Something failed, so that nobody knows whether it was done.
    Unknown(&'static str, Reason),
    /// Units were counted in.
    Restocked(Uuid, Item, i64),
    /// A hold was answered.
    Held(ReservationId, Item, i64),
    /// Something other than an order was refused for good.
    Declined(&'static str, Reason),
    /// A read answered so many units.
    Stock(Item, i64),
    /// A read answered whether there is this order; it was sent when so many requests had left.
    Found(ReservationId, bool, u64),
    /// Answered with less than it must have.
    Malformed(String),
}

/// All that happens to callers.
#[derive(Default)]
pub struct History(Mutex<(Vec<Event>, u64)>);

impl History {
    /// Adds what happens.
    pub fn note(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(event);
    }

    /// What happened since the last time.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The place of the latest thing that was asked.
    pub fn now(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// The place of something among all that is asked.
    pub fn next(&self) -> u64 {
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        history.1 += 1;
        history.1
    }
}
