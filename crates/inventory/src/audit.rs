//! The audit: holds the ledger's books, the outbox and the stock store against each other, item by item, while
//! everything works on. The numbers are read at different moments, so only what cannot be explained by that is a drift;
//! what looks like one is looked at a second time. `just audit` asks for it ([`router`]); in the background it comes
//! round by itself, counts and logs what it finds, and lends an item anew where the ledger's books are whole.
//!
//! What is always so, whatever is under way, while an item is open under the ledger's epoch:
//! - in the ledger, at each moment: settled + outbox = orders, and no more than received
//! - in the stock store: no more received or sold than in the ledger a moment later (a restock is journalled and an
//!   order committed first), and no less held and sold together than sold in the ledger a moment before (an order's
//!   units are held until they are sold)

use std::{sync::Arc, time::Duration};

use contracts::{
    Failure,
    values::{Epoch, Item},
};
use service::{call::Call, outage::Outage};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    ledger::{Books, BooksOf, ItemStock, LedgerBooks},
    metrics::AuditMetrics,
    opener::Opener,
    stock::Counts,
};

mod page;

pub use page::router;

/// Pause between two rounds in the background, in milliseconds.
pub const AUDIT_INTERVAL_MS: u64 = 60_000;
/// Most items of one round; the next goes on after them.
pub const AUDIT_ROUND_ITEMS_MAX: usize = 1_000;
/// Time between the first and the second look, in milliseconds: longer than a restock takes from ledger to stock store,
/// and than the reaper takes to see that an item's lease is old.
pub const AUDIT_LOOK_PAUSE_MS: u64 = 3_000;

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    /// The ledger: settled and outbox are not what the orders are.
    Orders,
    /// The ledger: more is sold than was received.
    Oversold,
    /// The stock store is at another epoch than the ledger.
    Epoch,
    /// The stock store has received other units than the ledger.
    Received,
    /// The stock store has sold what is no order, or misses an order.
    Sold,
}

impl DriftKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Orders, Self::Oversold, Self::Epoch, Self::Received, Self::Sold];

    /// What metrics and answers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Oversold => "oversold",
            Self::Epoch => "epoch",
            Self::Received => "received",
            Self::Sold => "sold",
        }
    }

    /// Whether a new lease mends it: the ledger's own books it would only repeat.
    pub fn heals(self) -> bool {
        match self {
            Self::Orders | Self::Oversold => false,
            Self::Epoch | Self::Received | Self::Sold => true,
        }
    }
}

/// One item as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The ledger's books.
    pub books: Books,
    /// The stock store's numbers; `None` where the item is not open, so that they do not count.
    pub stock: Option<Counts>,
    /// What does not fit.
    pub drift: Vec<DriftKind>,
}

/// The ledger, the stock store, and the ledger again.
#[derive(Debug, Clone)]
struct Look {
    books: Books,
    stock: Option<Counts>,
    after: ItemStock,
}

/// Looks at items.
#[derive(Clone)]
pub struct Auditor {
    backend: Backend,
    opener: Opener,
    books: Arc<dyn LedgerBooks>,
    metrics: AuditMetrics,
}

impl Auditor {
    /// Of this store and these books.
    pub fn new(backend: Backend, opener: Opener, books: Arc<dyn LedgerBooks>, metrics: AuditMetrics) -> Self {
        Self { backend, opener, books, metrics }
    }

    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let env = self.backend.env.clone();
        let mut outage = Outage::new(env.clone(), "the audit");
        let mut after = None;
        let mut pause = env.jittered(Duration::from_millis(AUDIT_INTERVAL_MS));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = env.sleep(pause) => {}
            }
            let round = self.round(after.clone());
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = round => result,
            };
            pause = match result {
                Ok(next) => {
                    outage.works();
                    after = next;
                    env.jittered(Duration::from_millis(AUDIT_INTERVAL_MS))
                }
                Err(failure) => outage.failed(&failure),
            };
        }
    }

    /// Looks at up to [`AUDIT_ROUND_ITEMS_MAX`] items after this one, tells of what drifted and heals what it can.
    /// Answers where to go on; `None` when it has come to the end.
    pub async fn round(&self, after: Option<Item>) -> Result<Option<Item>, Failure> {
        let audited = self.page(BooksOf::After(after), AUDIT_ROUND_ITEMS_MAX).await?;
        self.metrics.items(audited.len());
        let mut healed = Ok(());
        for one in audited.iter().filter(|one| !one.drift.is_empty()) {
            self.tell(one);
            // One that does not open must not keep the others as they are.
            healed = healed.and(self.heal(one).await);
        }
        healed?;
        if audited.len() < AUDIT_ROUND_ITEMS_MAX {
            self.metrics.whole_round(self.backend.env.now());
            return Ok(None);
        }
        Ok(audited.last().map(|last| last.books.item.clone()))
    }

    /// Looks at so many items, or at one; twice where that is needed. Changes nothing.
    pub async fn page(&self, of: BooksOf, items_max: usize) -> Result<Vec<Audited>, Failure> {
        let mut first = Vec::new();
        let mut of = of;
        // Ends, because each item comes after the one before.
        while first.len() < items_max {
            let Some(look) = self.look(&of).await? else { break };
            let item = look.books.item.clone();
            first.push(look);
            match of {
                BooksOf::Item(_) => break,
                BooksOf::After(_) => of = BooksOf::After(Some(item)),
            }
        }
        let is_doubtful = |look: &Look| !drift(look, look).is_empty();
        if first.iter().any(is_doubtful) {
            self.backend.env.sleep(Duration::from_millis(AUDIT_LOOK_PAUSE_MS)).await;
        }
        let mut audited = Vec::with_capacity(first.len());
        for look in first {
            let again = if is_doubtful(&look) {
                // Deleted by a hand meanwhile, there is no more to say of it than before.
                self.look(&BooksOf::Item(look.books.item.clone())).await?.unwrap_or_else(|| look.clone())
            } else {
                look.clone()
            };
            let drift = drift(&look, &again);
            audited.push(Audited { books: again.books, stock: again.stock, drift });
        }
        Ok(audited)
    }

    async fn look(&self, of: &BooksOf) -> Result<Option<Look>, Failure> {
        let call = Call::background(&*self.backend.env);
        let Some(books) = call.bounded(&self.backend.env, self.books.books(&call, of)).await? else { return Ok(None) };
        let stock = self.stock(&call, &books.item).await?;
        let after = self.backend.lent_of(&call, &books.item).await?;
        Ok(Some(Look { books, stock, after }))
    }

    /// The numbers of an item that was open before and after, in the same life of the store and under the same lease.
    async fn stock(&self, call: &Call, item: &Item) -> Result<Option<Counts>, Failure> {
        let before = self.backend.step(call, self.backend.store.probe(item)).await?;
        if !before.open {
            return Ok(None);
        }
        let counts = self.backend.step(call, self.backend.store.counts(item)).await?;
        let after = self.backend.step(call, self.backend.store.probe(item)).await?;
        Ok(counts.filter(|counts| before == after && counts.epoch == before.stored))
    }

    /// Counts and logs what does not fit.
    fn tell(&self, audited: &Audited) {
        let Audited { books, stock, drift } = audited;
        for kind in drift {
            self.metrics.drift(*kind);
            let (item, kind) = (&books.item, kind.name());
            if audited.heals() {
                tracing::warn!(%item, kind, ?books, ?stock, "drift: the item is lent anew");
            } else {
                tracing::error!(%item, kind, ?books, ?stock, "drift in the ledger, which no lease heals");
            }
        }
    }

    /// Lends the item anew, above all that is stored anywhere.
    async fn heal(&self, audited: &Audited) -> Result<(), Failure> {
        if !audited.heals() {
            return Ok(());
        }
        let stored = audited.stock.map_or(Epoch::NONE, |counts| counts.epoch);
        let least = stored.next().max(audited.books.epoch);
        let call = Call::background(&*self.backend.env);
        self.opener.open(&call, &audited.books.item, least).await.map(drop)
    }
}

impl Audited {
    /// Whether a new lease mends all of it.
    fn heals(&self) -> bool {
        self.drift.iter().all(|kind| kind.heals())
    }
}

/// What cannot be explained by the moments at which the numbers were read. `first` may be `second`: then what takes
/// time counts too.
fn drift(first: &Look, second: &Look) -> Vec<DriftKind> {
    let Look { books, stock, after } = second;
    let mut kinds = Vec::new();
    if books.orders.is_some_and(|orders| orders != books.sold()) {
        kinds.push(DriftKind::Orders);
    }
    if books.sold().max(books.orders.unwrap_or(0)) > books.received {
        kinds.push(DriftKind::Oversold);
    }
    // Against wrong books the store cannot be held; and while leases change, numbers of two of them would be compared.
    let (Some(stock), Some(before), true) = (stock, &first.stock, kinds.is_empty()) else { return kinds };
    if first.books.epoch != after.epoch || before.epoch != stock.epoch {
        return kinds;
    }
    if stock.epoch != after.epoch {
        return vec![DriftKind::Epoch];
    }
    if stock.received > after.received || stock.received < first.books.received {
        kinds.push(DriftKind::Received);
    }
    if stock.sold > after.sold || stock.sold.saturating_add(stock.held) < books.sold() {
        kinds.push(DriftKind::Sold);
    }
    kinds
}
