//! The port to the ledger: a trait with a method per call of `orders.v1.LedgerService`, so that a simulation can hand in
//! another implementation. The ledger is the only judge of what is sold; every call may be repeated after any failure.

use async_trait::async_trait;
pub use contracts::ledger::{Books, BooksOf, ItemStock, OpenOutcome, QUERY_BATCH_MAX, ResolveQuery, Restock, Verdict};
use contracts::{
    Failure,
    values::{Epoch, Item},
};
use service::call::Call;

pub mod grpc;

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

/// What the ledger's tables say of an item. Only the audit asks.
#[async_trait]
pub trait LedgerBooks: Send + Sync + 'static {
    /// All that they say of one item at one moment, if there is such an item; changes nothing.
    async fn books(&self, call: &Call, of: &BooksOf) -> Result<Option<Books>, Failure>;
}
