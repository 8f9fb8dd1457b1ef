//! One reader of a queue.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::Arc,
};

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::{
    Shared,
    delivery::{Taken, Verdict},
    queue::{Hold, Queue},
};
use crate::{BrokerError, Consumer, Delivery, Settlement};

/// Reads one queue.
pub(super) struct InProcessConsumer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    prefetch: usize,
    tags: u64,
    unsettled: HashMap<u64, Unsettled>,
    /// Taken and not handed out: left over when a `next` that asked for more was dropped.
    fetched: VecDeque<Taken>,
    /// A take under way. It is kept here so that dropping `next` does not lose what it brings.
    taking: Option<BoxFuture<'static, Result<Vec<Taken>, BrokerError>>>,
}

struct Unsettled {
    hold: Hold,
    earlier_deliveries: u32,
}

impl InProcessConsumer {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>, prefetch: usize) -> Self {
        let (unsettled, fetched) = (HashMap::new(), VecDeque::new());
        Self { shared, queue, prefetch, tags: 0, unsettled, fetched, taking: None }
    }

    fn hand_out(&mut self, max: usize) -> Vec<Delivery> {
        let taken: Vec<Taken> = self.fetched.drain(..max.min(self.fetched.len())).collect();
        let deliveries = taken.into_iter().map(|Taken { hold, message, earlier_deliveries }| {
            self.tags += 1;
            self.unsettled.insert(self.tags, Unsettled { hold, earlier_deliveries });
            Delivery { tag: self.tags, message, earlier_deliveries }
        });
        deliveries.collect()
    }
}

#[async_trait]
impl Consumer for InProcessConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let room = self.prefetch - self.unsettled.len();
        let max = max.min(room);
        if max == 0 {
            return Err(BrokerError::text("asked for the next message without room for one"));
        }
        let queue = Arc::clone(&self.queue);
        while self.fetched.is_empty() {
            // Listens before it looks: a message that comes in between rings.
            let mut rung = pin!(queue.bell.notified());
            rung.as_mut().enable();
            let looked_before = self.taking.is_some();
            let taking = self.taking.get_or_insert_with(|| {
                let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(&queue));
                Box::pin(async move {
                    let inner = Arc::clone(&shared);
                    shared.detached(async move { inner.take(&queue, max).await }).await
                })
            });
            let taken = taking.await;
            self.taking = None;
            self.fetched = taken?.into();
            if self.fetched.is_empty() && !looked_before {
                rung.await;
            }
        }
        Ok(self.hand_out(max))
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        let mut named = HashSet::new();
        if let Some((tag, _)) =
            settlements.iter().find(|(tag, _)| !self.unsettled.contains_key(tag) || !named.insert(tag))
        {
            return Err(BrokerError::text(format!("delivery {tag} is not unsettled here, or is named twice")));
        }
        let redeliveries_max = self.queue.row.redeliveries_max();
        let mut verdicts = Vec::with_capacity(settlements.len());
        for (tag, settlement) in settlements {
            let Some(unsettled) = self.unsettled.remove(tag) else { continue };
            let verdict = match (settlement, redeliveries_max) {
                (Settlement::Acknowledge, _) => Verdict::Forget,
                (Settlement::DeadLetter, Some(_)) => Verdict::Doom { spent: false },
                (Settlement::Requeue, Some(max)) if unsettled.earlier_deliveries >= max => {
                    Verdict::Doom { spent: true }
                }
                (Settlement::Requeue, _) | (Settlement::DeadLetter, None) => Verdict::Keep,
            };
            verdicts.push((unsettled.hold, verdict));
        }
        let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(&self.queue));
        self.shared.detached(async move { shared.settle(&queue, verdicts).await }).await
    }
}
