//! The reaper. A hold never expires by itself (test `without_a_verdict_nothing_is_given_back_and_the_reaper_recovers`):
//! when it is overdue the ledger is asked, and its verdict decides whether the units are sold or given back. Beside that the reaper compares the epoch of every open item with the ledger's, so
//! that a lease that was overtaken unseen does not linger.

use std::{cmp::Ordering, time::Duration};

use contracts::{
    Failure,
    values::{Epoch, Item, Stamp},
};
use futures::{StreamExt, stream};
use service::{
    call::Call,
    outage::Outage,
    planted::{self, Bug},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    ledger::{ItemStock, QUERY_BATCH_MAX, ResolveQuery, Verdict},
    metrics::ReapOutcome,
    opener::Opener,
    stock::{ConfirmReply, DUE_BATCH_MAX, Hold, OPEN_ITEMS_BATCH_MAX, ReleaseReply},
};

/// Pause between two rounds, in milliseconds.
pub const REAPER_INTERVAL_MS: u64 = 1_000;
/// Most batches of one round; what is left waits for the next.
pub const REAP_BATCHES_MAX: u32 = 100;
/// Most holds that are settled, or items that are opened, at once.
pub const REAPER_CONCURRENCY_MAX: usize = 32;

// One batch is one question to the ledger.
const _: () = assert!(DUE_BATCH_MAX <= QUERY_BATCH_MAX && OPEN_ITEMS_BATCH_MAX <= QUERY_BATCH_MAX);

/// Settles overdue holds and reopens items of another epoch than the ledger's.
#[derive(Clone)]
pub struct Reaper {
    backend: Backend,
    opener: Opener,
}

impl Reaper {
    /// Of this store.
    pub fn new(backend: Backend, opener: Opener) -> Self {
        Self { backend, opener }
    }

    /// Works until `stop`; a round under way is finished.
    pub async fn run(self, stop: CancellationToken) {
        let mut outage = Outage::new(self.backend.env.clone(), "the reaper");
        let mut pause = self.backend.env.jittered(Duration::from_millis(REAPER_INTERVAL_MS));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.backend.env.sleep(pause) => {}
            }
            pause = match self.round(&stop).await {
                Ok(()) => {
                    outage.works();
                    self.backend.env.jittered(Duration::from_millis(REAPER_INTERVAL_MS))
                }
                Err(failure) => outage.failed(&failure),
            };
        }
    }

    async fn round(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let reaped = self.reap(stop).await;
        // One must not keep the other from its work.
        reaped.and(self.sweep_once().await)
    }

    async fn reap(&self, stop: &CancellationToken) -> Result<(), Failure> {
        for _ in 0..REAP_BATCHES_MAX {
            if self.reap_once().await? < DUE_BATCH_MAX || stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// Settles one batch of overdue holds, and answers how many there were: with [`DUE_BATCH_MAX`] more may wait.
    pub async fn reap_once(&self) -> Result<usize, Failure> {
        let call = Call::background(&*self.backend.env);
        let holds = self.backend.step(&call, self.backend.store.due()).await?;
        if holds.is_empty() {
            return Ok(0);
        }
        let query = |hold: &Hold| ResolveQuery { id: hold.id, stamp: Some(hold.stamp.clone()) };
        let queries: Vec<_> = holds.iter().map(query).collect();
        let verdicts = if planted::is(Bug::HoldsExpire) {
            vec![Verdict::Aborted; holds.len()]
        } else {
            self.backend.verdicts(&call, &queries).await?
        };

        let count = holds.len();
        let results: Vec<Result<(), Failure>> = stream::iter(holds.into_iter().zip(verdicts))
            .map(|(hold, verdict)| self.settle(&call, hold, verdict))
            .buffer_unordered(REAPER_CONCURRENCY_MAX)
            .collect()
            .await;
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(count)
    }

    /// Does what the ledger has decided. Where the item is no longer open, or of a newer lease, the hold is gone already.
    async fn settle(&self, call: &Call, hold: Hold, verdict: Verdict) -> Result<(), Failure> {
        let Hold { id, stamp, .. } = hold;
        let store = &self.backend.store;
        let release = async |outcome, marker| {
            let reply = self.backend.step(call, store.release(id, &stamp, marker)).await?;
            if reply == ReleaseReply::NotOpen {
                self.mend(call, &stamp).await?;
            }
            Ok((reply == ReleaseReply::Released).then_some(outcome))
        };
        let settled = match verdict {
            Verdict::Confirmed => {
                let reply = self.backend.step(call, store.confirm(id, &stamp)).await?;
                if reply == ConfirmReply::NotOpen {
                    self.mend(call, &stamp).await?;
                }
                (reply == ConfirmReply::Confirmed).then_some(ReapOutcome::Confirmed)
            }
            Verdict::Aborted => release(ReapOutcome::Released, true).await?,
            // The id is an order, whose own hold must stay: no marker.
            Verdict::ConfirmedElsewhere => release(ReapOutcome::Surplus, false).await?,
            Verdict::Unknown => return Err(Failure::internal("the ledger gave no verdict on a stamp")),
        };
        if let Some(outcome) = settled {
            self.backend.metrics.reaped(outcome);
        }
        Ok(())
    }

    /// An item that is open under this very lease and yet does not settle this hold has been changed by a hand in a way
    /// that no open check can see. The next lease knows nothing of the hold, and counts its order.
    async fn mend(&self, call: &Call, stamp: &Stamp) -> Result<(), Failure> {
        let probe = self.backend.step(call, self.backend.store.probe(&stamp.item)).await?;
        if probe.open && probe.stored == stamp.epoch {
            tracing::warn!(item = %stamp.item, epoch = %stamp.epoch, "a hold does not fit its item, which is lent anew");
            self.opener.open(call, &stamp.item, stamp.epoch.next()).await?;
        }
        Ok(())
    }

    /// Compares every stored epoch with the ledger's, and opens the items where they differ: all that can be, although
    /// one failed.
    pub async fn sweep_once(&self) -> Result<(), Failure> {
        let mut after: Option<Item> = None;
        let mut result = Ok(());
        // Ends, because each page begins after the one before.
        loop {
            let call = Call::background(&*self.backend.env);
            let page = self.backend.step(&call, self.backend.store.open_items(after.as_ref())).await?;
            let Some((last, _)) = page.last() else { return result };
            let last = Some(last.clone());
            assert!(last > after, "pages are in order");
            after = last;

            let items: Vec<Item> = page.iter().map(|(item, _)| item.clone()).collect();
            let stocks = self.backend.lent(&call, &items).await?;
            let differing = page
                .iter()
                .zip(stocks)
                .filter_map(|((item, stored), stock)| least_epoch(*stored, stock).map(|least| (item.clone(), least)));
            result = result.and(self.open(&call, differing.collect()).await);
            if page.len() < OPEN_ITEMS_BATCH_MAX {
                return result;
            }
        }
    }

    /// Opens all of them, as far as it goes, and fails if one failed.
    async fn open(&self, call: &Call, items: Vec<(Item, Epoch)>) -> Result<(), Failure> {
        let results: Vec<Result<(), Failure>> = stream::iter(items)
            .map(|(item, least)| async move { self.opener.open(call, &item, least).await.map(drop) })
            .buffer_unordered(REAPER_CONCURRENCY_MAX)
            .collect()
            .await;
        results.into_iter().collect()
    }
}

/// From which epoch on the item is as the ledger has it; `None` if it is already.
fn least_epoch(stored: Epoch, ledger: ItemStock) -> Option<Epoch> {
    match stored.cmp(&ledger.epoch) {
        Ordering::Less => Some(ledger.epoch),
        Ordering::Equal => None,
        // The ledger was restored to an older state. Its next lease has to go above what the store remembers.
        Ordering::Greater => Some(stored.next()),
    }
}
