//! The ledger port: the only judge of what is sold. Each method is one atomic step of what
//! ARCHITECTURE.md describes, and may be repeated after any failure.

pub mod conformance;
mod judging;
pub mod postgres;
mod rows;
pub mod sqlite;
pub mod steps;

use async_trait::async_trait;
pub use contracts::ledger::{ItemStock, OpenOutcome, QUERY_BATCH_MAX, ResolveQuery, Restock, Verdict};
use contracts::{
    Failure,
    values::{Epoch, IdempotencyKey, Item, Quantity, ReservationId, Stamp, Timestamp},
};

/// Most orders of one [`Ledger::commit`].
pub const COMMIT_BATCH_MAX: usize = 256;
/// Most events that are counted: counting more would take longer than anybody may wait.
pub const OUTBOX_COUNT_MAX: i64 = 1_000_000;
/// How long a fresh lease is left alone before another may fence it, in milliseconds.
pub const LEASE_GRACE_MS: u64 = 250;

/// How long a tombstone of a client's id (v4) is kept at least, in seconds: a client may come back with the id under a newer
/// lease, which would not fence it. The order service derives another id then.
pub const CLIENT_TOMBSTONE_SECONDS: i64 = 86_400;

/// What a key stands for, besides its name: a digest of the request's content.
pub type Fingerprint = [u8; 32];

/// What the ledger knows a request by: at most one order has it. A client's Idempotency-Key and the id of an attempt never
/// make the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey(String);

impl RequestKey {
    /// Of a client's key.
    pub fn of_key(key: &IdempotencyKey) -> Self {
        Self(format!("key:{}", key.as_str()))
    }

    /// Of an attempt without a key: the id of its first hold, which depends on attempt and content.
    pub fn of_attempt(first: ReservationId) -> Self {
        Self(format!("attempt:{first}"))
    }

    /// The text that is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An order to commit: the hold exists, the verdict does not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// The hold's id, which becomes the order's.
    pub id: ReservationId,
    /// The hold.
    pub stamp: Stamp,
    /// Units.
    pub quantity: Quantity,
    /// What the request is known by, and what that stands for.
    pub key: Option<(RequestKey, Fingerprint)>,
    /// When it was made.
    pub created_at: Timestamp,
    /// W3C `traceparent` of the request, stored with the event; empty for none.
    pub traceparent: String,
}

/// A confirmed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: ReservationId,
    /// What was sold.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The order that a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedOrder {
    /// The order.
    pub order: Order,
    /// What the key stands for.
    pub fingerprint: Fingerprint,
}

/// What became of an order; the first that applies, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Committed now, with its event.
    Created(Order),
    /// Committed before, under this id, with this item and quantity.
    Existing(Order),
    /// This id is an order for something else.
    OtherContent,
    /// A tombstone: this id can never become an order.
    Aborted,
    /// Another order has the key.
    KeyTaken(KeyedOrder),
    /// The hold's epoch is not the item's newest, which is this.
    Fenced(Epoch),
}

/// What became of a restock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestockOutcome {
    /// Journalled, now or before, at this epoch: later leases have counted it.
    Journalled(Epoch),
    /// The id was used for another item or quantity.
    OtherContent,
}

/// Which orders to list: newest first, by (`created_at`, `id`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only this item.
    pub item: Option<Item>,
    /// Only those after this one, that is, older.
    pub after: Option<(Timestamp, ReservationId)>,
    /// Most orders to answer.
    pub limit: u32,
}

/// An event that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its number in the outbox. A later one may be seen earlier: numbers are given before commits.
    pub seq: i64,
    /// The order.
    pub order_id: ReservationId,
    /// The message's body.
    pub payload: Vec<u8>,
    /// W3C `traceparent` of the request that placed the order; empty for none.
    pub traceparent: String,
}

/// How much waits to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBacklog {
    /// Events; [`OUTBOX_COUNT_MAX`] means as many or more.
    pub events: u64,
    /// When the oldest of them was written.
    pub oldest: Option<Timestamp>,
}

/// The ledger failed. What was under way may or may not have happened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store does not answer.
    #[error("ledger: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store holds what the ledger never wrote.
    #[error("ledger: corrupt: {0}")]
    Corrupt(String),
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Store(_) => Self::unavailable(error),
            LedgerError::Corrupt(_) => Self::internal(error),
        }
    }
}

/// The only judge of what is sold.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Commits every order whose hold is of its item's newest epoch, with its event, in one transaction, and says what
    /// became of each, in order. At most [`COMMIT_BATCH_MAX`]. If the data of one order makes a statement fail, each is
    /// committed alone; so the answer is per order.
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError>;

    /// The confirmed order that this key belongs to.
    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError>;

    /// The order that a client's hold has become, for who is about to order on it. Does not wait for clients that read.
    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError>;

    /// A confirmed order, for a client.
    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError>;

    /// Confirmed orders.
    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError>;

    /// Lends an item's stock under a new epoch: above `dead` and above every earlier one. `initial` counts at the item's
    /// first lease only. In one statement after the epoch is raised, received and sold are read.
    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError>;

    /// What is known of each item, in order; writes nothing. Unknown items have received `initial`. At most
    /// [`QUERY_BATCH_MAX`].
    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError>;

    /// Judges reservations, in order: for a stamp without a verdict a tombstone is written, of the item's newest epoch;
    /// one that is there is raised to it. At most [`QUERY_BATCH_MAX`].
    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError>;

    /// Journals a restock with the item's epoch. Makes the item's lease row (epoch 0, this `initial`) if it is missing.
    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError>;

    /// Takes up to `limit` events, oldest first, that no other relay has in hand.
    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError>;

    /// How much waits.
    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError>;

    /// Deletes up to `limit` tombstones of epochs older than their item's newest, and says how many. Those of clients' ids
    /// stay for [`CLIENT_TOMBSTONE_SECONDS`].
    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError>;

    /// Whether it can answer.
    async fn ping(&self) -> Result<(), LedgerError>;
}

/// Events in the hand of one relay. Dropped unsettled, they are free for the next.
#[async_trait]
pub trait OutboxBatch: Send {
    /// The events.
    fn events(&self) -> &[OutboxEvent];

    /// Deletes those that the broker has (`published`, aligned with `events`) and counts them as settled.
    async fn settle(self: Box<Self>, published: &[bool]) -> Result<(), LedgerError>;
}
