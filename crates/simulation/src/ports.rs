//! Stands in front of every port of a process: notes what a task waits in, and lets the broker fail.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};
use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp};
use inventory::stock::{
    ConfirmReply, Counts, Found, Hold, Incarnation, LoadReply, Probe, ReleaseReply, ReserveReply, ReserveRequest,
    RestockReply, StockError, StockReply, StockStore,
};
use order::ledger::{
    Books, BooksOf, CommitOutcome, ItemStock, KeyedOrder, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome, Order,
    OutboxBacklog, OutboxBatch, OutboxEvent, RequestKey, ResolveQuery, Restock, RestockOutcome, Verdict,
};
use uuid::Uuid;

use crate::{
    executor::{Executor, TaskId},
    faults::Faults,
    watch::Watch,
};

/// What all ports of a process share.
#[derive(Clone)]
pub struct Port {
    pub(crate) executor: Executor,
    pub(crate) faults: Arc<Faults>,
    pub(crate) watch: Arc<Watch>,
}

/// The task polled now waits in a port.
pub struct Wait<'a> {
    port: &'a Port,
    task: Option<TaskId>,
    leaf: &'static str,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.port.executor.leave(task, self.leaf);
        }
    }
}

impl Port {
    /// The task polled now waits here, as long as the answer is kept.
    pub fn enter(&self, leaf: &'static str) -> Wait<'_> {
        self.executor.note(leaf, String::new);
        Wait { port: self, task: self.executor.enter(leaf), leaf }
    }

    async fn noted<T: fmt::Debug>(&self, leaf: &'static str, work: impl Future<Output = T>) -> T {
        let _wait = self.enter(leaf);
        let done = work.await;
        self.executor.note("answer", || format!("{leaf} {done:?}"));
        done
    }

    async fn broker<T: fmt::Debug>(
        &self,
        leaf: &'static str,
        work: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        self.noted(leaf, async {
            if self.faults.strike("broker fails before") {
                self.faults.delay(std::time::Duration::from_millis(1)).await;
                return Err(BrokerError("it does not answer".into()));
            }
            let done = work.await?;
            if self.faults.strike("broker fails after") {
                return Err(BrokerError("the answer was lost".into()));
            }
            Ok(done)
        })
        .await
    }
}

/// A port behind which another one is.
pub struct Ported<T: ?Sized> {
    pub(crate) port: Port,
    pub(crate) inner: Arc<T>,
}

#[async_trait]
impl Ledger for Ported<dyn Ledger> {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        let outcomes = self.port.noted("ledger.commit", self.inner.commit(orders)).await?;
        self.port.watch.committed(orders, &outcomes);
        Ok(outcomes)
    }

    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        self.port.noted("ledger.order_by_key", self.inner.order_by_key(key)).await
    }

    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.port.noted("ledger.order_of_hold", self.inner.order_of_hold(hold)).await
    }

    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.port.noted("ledger.order", self.inner.order(id)).await
    }

    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        self.port.noted("ledger.orders", self.inner.orders(query)).await
    }

    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        self.port.noted("ledger.open_stock", self.inner.open_stock(item, initial, dead)).await
    }

    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        self.port.noted("ledger.stock", self.inner.stock(items, initial)).await
    }

    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        self.port.noted("ledger.resolve", self.inner.resolve(queries)).await
    }

    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        self.port.noted("ledger.record_restock", self.inner.record_restock(restock, initial)).await
    }

    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        let work = async { self.inner.take_outbox(limit).await.map(|batch| Taken(self.port.clone(), batch)) };
        let batch = self.port.noted("ledger.take_outbox", work).await?;
        Ok(Box::new(batch))
    }

    async fn books(&self, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        self.port.noted("ledger.books", self.inner.books(of)).await
    }

    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        self.port.noted("ledger.outbox_backlog", self.inner.outbox_backlog()).await
    }

    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError> {
        self.port.noted("ledger.prune_tombstones", self.inner.prune_tombstones(limit)).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.port.noted("ledger.ping", self.inner.ping()).await
    }
}

struct Taken(Port, Box<dyn OutboxBatch>);

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.1.events().iter().map(|event| event.order_id)).finish()
    }
}

#[async_trait]
impl OutboxBatch for Taken {
    fn events(&self) -> &[OutboxEvent] {
        self.1.events()
    }

    async fn settle(self: Box<Self>, published: &[bool]) -> Result<(), LedgerError> {
        let Self(port, batch) = *self;
        port.noted("ledger.settle", batch.settle(published)).await
    }
}

#[async_trait]
impl StockStore for Ported<dyn StockStore> {
    async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError> {
        self.port.noted("store.reserve", self.inner.reserve(request)).await
    }

    async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> Result<ConfirmReply, StockError> {
        self.port.noted("store.confirm", self.inner.confirm(id, stamp)).await
    }

    async fn release(&self, id: ReservationId, stamp: &Stamp, marker: bool) -> Result<ReleaseReply, StockError> {
        self.port.noted("store.release", self.inner.release(id, stamp, marker)).await
    }

    async fn restock(&self, id: Uuid, item: &Item, units: Quantity, epoch: Epoch) -> Result<RestockReply, StockError> {
        self.port.noted("store.restock", self.inner.restock(id, item, units, epoch)).await
    }

    async fn available(&self, item: &Item) -> Result<StockReply, StockError> {
        self.port.noted("store.available", self.inner.available(item)).await
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Found>, StockError> {
        self.port.noted("store.find", self.inner.find(id)).await
    }

    async fn hold(&self, item: &Item, id: ReservationId) -> Result<Option<Hold>, StockError> {
        self.port.noted("store.hold", self.inner.hold(item, id)).await
    }

    async fn probe(&self, item: &Item) -> Result<Probe, StockError> {
        self.port.noted("store.probe", self.inner.probe(item)).await
    }

    async fn load(&self, lease: &Lease, incarnation: &Incarnation) -> Result<LoadReply, StockError> {
        self.port.noted("store.load", self.inner.load(lease, incarnation)).await
    }

    async fn due(&self) -> Result<Vec<Hold>, StockError> {
        self.port.noted("store.due", self.inner.due()).await
    }

    async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError> {
        self.port.noted("store.open_items", self.inner.open_items(after)).await
    }

    async fn counts(&self, item: &Item) -> Result<Option<Counts>, StockError> {
        self.port.noted("store.counts", self.inner.counts(item)).await
    }

    async fn ping(&self) -> Result<(), StockError> {
        self.port.noted("store.ping", self.inner.ping()).await
    }
}

#[async_trait]
impl Broker for Ported<dyn Broker> {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        self.port.broker("broker.declare", self.inner.declare(queue)).await
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.port.broker("broker.publish", self.inner.publish(messages)).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let work =
            async { self.inner.consume(queue, prefetch).await.map(|inner| Reader { port: self.port.clone(), inner }) };
        Ok(Box::new(self.port.broker("broker.consume", work).await?))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        self.port.broker("broker.depth", self.inner.depth(queue)).await
    }
}

struct Reader {
    port: Port,
    inner: Box<dyn Consumer>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a consumer")
    }
}

#[async_trait]
impl Consumer for Reader {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.port.noted("consumer.next", self.inner.next(max)).await
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        let port = self.port.clone();
        port.broker("consumer.settle", self.inner.settle(settlements)).await
    }
}
