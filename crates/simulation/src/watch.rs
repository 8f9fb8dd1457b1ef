//! What the services hear from the stock store and the ledger, and what they tell the broker, noted where it passes. The
//! oracle judges it right after the step in which it passed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};
use contracts::{
    Failure,
    event::OrderCreated,
    values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp},
};
use inventory::{
    ledger::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict},
    stock::{
        ConfirmReply, Counts, Found, Hold, Incarnation, LoadReply, Probe, ReleaseReply, ReserveReply, ReserveRequest,
        RestockReply, StockError, StockReply, StockStore,
    },
};
use order::ledger::{CommitOutcome, LedgerError, NewOrder};
use service::call::Call;
use uuid::Uuid;

/// Something that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The stock store answered that this is held.
    Held(ReservationId, Stamp, Quantity),
    /// The stock store answered that the hold is sold, by this very call or an earlier one.
    Sold(ReservationId, Stamp),
    /// The stock store answered that the hold is of a lease that has passed.
    Superseded(ReservationId, Stamp),
    /// The stock store answered that it gave the hold back.
    Released(ReservationId, Stamp),
    /// The ledger lent stock.
    Lent(Lease),
    /// The ledger fenced an order.
    Fenced(ReservationId, Stamp),
    /// The ledger told an item's newest epoch.
    Newest(Item, Epoch),
    /// The consumer told the broker that it has handled this event.
    Handled(ReservationId, Stamp),
}

/// Stands in front of all stores of all processes.
#[derive(Default)]
pub struct Watch(Mutex<Vec<Seen>>);

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, seen: Seen) {
        self.seen().push(seen);
    }

    /// What passed since the last time.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen())
    }

    /// A process' stock store.
    pub fn store(self: &Arc<Self>, store: Arc<dyn StockStore>) -> Arc<dyn StockStore> {
        Arc::new(Watched { inner: store, watch: self.clone() })
    }

    /// What an order process was told of its commits.
    pub fn committed(&self, orders: &[NewOrder], outcomes: &[Result<CommitOutcome, LedgerError>]) {
        for (order, outcome) in orders.iter().zip(outcomes) {
            if matches!(outcome, Ok(CommitOutcome::Fenced(_))) {
                self.note(Seen::Fenced(order.id, order.stamp.clone()));
            }
        }
    }

    /// An inventory process' ledger.
    pub fn ledger(self: &Arc<Self>, ledger: Arc<dyn StockLedger>) -> Arc<dyn StockLedger> {
        Arc::new(Watched { inner: ledger, watch: self.clone() })
    }

    /// An inventory process' broker.
    pub fn broker(self: &Arc<Self>, broker: Arc<dyn Broker>) -> Arc<dyn Broker> {
        Arc::new(Watched { inner: broker, watch: self.clone() })
    }
}

struct Watched<T: ?Sized> {
    inner: Arc<T>,
    watch: Arc<Watch>,
}

#[async_trait]
impl StockStore for Watched<dyn StockStore> {
    async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError> {
        let reply = self.inner.reserve(request).await?;
        if let ReserveReply::Held { stamp, .. } = &reply {
            self.watch.note(Seen::Held(request.id, stamp.clone(), request.quantity));
        }
        Ok(reply)
    }

    async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> Result<ConfirmReply, StockError> {
        let reply = self.inner.confirm(id, stamp).await?;
        match reply {
            ConfirmReply::Confirmed | ConfirmReply::AlreadyDone => self.watch.note(Seen::Sold(id, stamp.clone())),
            ConfirmReply::Superseded => self.watch.note(Seen::Superseded(id, stamp.clone())),
            ConfirmReply::NotOpen => {}
        }
        Ok(reply)
    }

    async fn release(&self, id: ReservationId, stamp: &Stamp, marker: bool) -> Result<ReleaseReply, StockError> {
        let reply = self.inner.release(id, stamp, marker).await?;
        if reply == ReleaseReply::Released {
            self.watch.note(Seen::Released(id, stamp.clone()));
        }
        Ok(reply)
    }

    async fn restock(&self, id: Uuid, item: &Item, units: Quantity, epoch: Epoch) -> Result<RestockReply, StockError> {
        self.inner.restock(id, item, units, epoch).await
    }

    async fn available(&self, item: &Item) -> Result<StockReply, StockError> {
        self.inner.available(item).await
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Found>, StockError> {
        self.inner.find(id).await
    }

    async fn hold(&self, item: &Item, id: ReservationId) -> Result<Option<Hold>, StockError> {
        self.inner.hold(item, id).await
    }

    async fn probe(&self, item: &Item) -> Result<Probe, StockError> {
        self.inner.probe(item).await
    }

    async fn load(&self, lease: &Lease, incarnation: &Incarnation) -> Result<LoadReply, StockError> {
        self.inner.load(lease, incarnation).await
    }

    async fn due(&self) -> Result<Vec<Hold>, StockError> {
        self.inner.due().await
    }

    async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError> {
        self.inner.open_items(after).await
    }

    async fn counts(&self, item: &Item) -> Result<Option<Counts>, StockError> {
        self.inner.counts(item).await
    }

    async fn ping(&self) -> Result<(), StockError> {
        self.inner.ping().await
    }
}

#[async_trait]
impl StockLedger for Watched<dyn StockLedger> {
    async fn open_stock(&self, call: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        let outcome = self.inner.open_stock(call, item, initial, dead).await?;
        if let OpenOutcome::Lease(lease) = &outcome {
            self.watch.note(Seen::Lent(lease.clone()));
        }
        Ok(outcome)
    }

    async fn stock(&self, call: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        let stocks = self.inner.stock(call, items, initial).await?;
        for (item, stock) in items.iter().zip(&stocks) {
            self.watch.note(Seen::Newest(item.clone(), stock.epoch));
        }
        Ok(stocks)
    }

    async fn resolve(&self, call: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        self.inner.resolve(call, queries).await
    }

    async fn record_restock(&self, call: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure> {
        self.inner.record_restock(call, restock, initial).await
    }
}

#[async_trait]
impl Broker for Watched<dyn Broker> {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        self.inner.declare(queue).await
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.inner.publish(messages).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let inner = self.inner.consume(queue, prefetch).await?;
        Ok(Box::new(WatchedConsumer { inner, watch: self.watch.clone(), in_hand: Vec::new() }))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        self.inner.depth(queue).await
    }
}

struct WatchedConsumer {
    inner: Box<dyn Consumer>,
    watch: Arc<Watch>,
    in_hand: Vec<Delivery>,
}

#[async_trait]
impl Consumer for WatchedConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let batch = self.inner.next(max).await?;
        self.in_hand.extend(batch.iter().cloned());
        Ok(batch)
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        for (tag, settlement) in settlements {
            let Some(at) = self.in_hand.iter().position(|delivery| delivery.tag == *tag) else { continue };
            let delivery = self.in_hand.swap_remove(at);
            // Told, whether the broker hears it or not.
            if *settlement == Settlement::Acknowledge
                && let Ok(event) = OrderCreated::from_json(&delivery.message.body)
            {
                self.watch.note(Seen::Handled(event.id, event.stamp));
            }
        }
        self.inner.settle(settlements).await
    }
}
