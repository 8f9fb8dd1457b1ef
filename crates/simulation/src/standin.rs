//! Stand-ins until the simulated ledger and broker are there.
#![expect(clippy::all, clippy::pedantic, missing_docs, clippy::unwrap_used, reason = "they go")]
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};
use contracts::{
    event::OrderCreated,
    values::{Epoch, Item, Lease, ReservationId, Timestamp},
};
use order::ledger::{
    CommitOutcome, ItemStock, KeyedOrder, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome, Order, OutboxBacklog,
    OutboxBatch, OutboxEvent, RequestKey, ResolveQuery, Restock, RestockOutcome, Verdict,
};
use tokio::sync::Notify;

pub type Pause = Arc<dyn Fn(&'static str) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;
pub struct Fake {
    pub s: Arc<Mutex<S>>,
    pub pause: Pause,
}
impl Default for Fake {
    fn default() -> Self {
        Self { s: Arc::default(), pause: Arc::new(|_| Box::pin(async {})) }
    }
}
#[derive(Default)]
pub struct S {
    orders: BTreeMap<ReservationId, (NewOrder, bool)>,
    tomb: BTreeMap<ReservationId, Epoch>,
    leases: BTreeMap<Item, (i64, Epoch)>,
    restocks: BTreeMap<uuid::Uuid, (Item, i64, Epoch)>,
    outbox: Vec<(OutboxEvent, bool)>,
}
impl S {
    fn sold(&self, item: &Item) -> i64 {
        self.orders.values().filter(|o| o.0.stamp.item == *item).map(|o| o.0.quantity.get()).sum()
    }
    fn received(&self, item: &Item, initial: i64) -> i64 {
        self.leases.get(item).map_or(initial, |l| l.0)
            + self.restocks.values().filter(|r| r.0 == *item).map(|r| r.1).sum::<i64>()
    }
    fn key(&self, k: &RequestKey) -> Option<KeyedOrder> {
        self.orders.values().find_map(|o| {
            let (key, f) = o.0.key.as_ref()?;
            (key == k).then(|| KeyedOrder { order: order(&o.0), fingerprint: *f })
        })
    }
}
fn order(o: &NewOrder) -> Order {
    Order { id: o.id, item: o.stamp.item.clone(), quantity: o.quantity, created_at: o.created_at }
}
#[async_trait]
impl Ledger for Fake {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        (self.pause)("commit").await;
        let out: Vec<_> = { let mut s = self.s.lock().unwrap();
        orders
            .iter()
            .map(|o| {
                Ok(if let Some(old) = s.orders.get(&o.id) {
                    if old.0.stamp.item == o.stamp.item && old.0.quantity == o.quantity {
                        CommitOutcome::Existing(order(&old.0))
                    } else {
                        CommitOutcome::OtherContent
                    }
                } else if s.tomb.contains_key(&o.id) {
                    CommitOutcome::Aborted
                } else if let Some(k) = o.key.as_ref().and_then(|k| s.key(&k.0)) {
                    CommitOutcome::KeyTaken(k)
                } else {
                    let newest = s.leases.get(&o.stamp.item).map_or(Epoch(0), |l| l.1);
                    if newest != o.stamp.epoch {
                        CommitOutcome::Fenced(newest)
                    } else {
                        s.orders.insert(o.id, (o.clone(), true));
                        let payload = OrderCreated {
                            id: o.id,
                            quantity: o.quantity,
                            stamp: o.stamp.clone(),
                            created_at: o.created_at,
                        }
                        .to_json();
                        s.outbox.push((OutboxEvent { order_id: o.id, payload, traceparent: String::new() }, false));
                        CommitOutcome::Created(order(o))
                    }
                })
            })
            .collect() };
        (self.pause)("commit").await;
        Ok(out)
    }
    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        (self.pause)("k").await;
        Ok(self.s.lock().unwrap().key(key))
    }
    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.order(hold).await
    }
    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        (self.pause)("k").await;
        Ok(self.s.lock().unwrap().orders.get(&id).map(|o| order(&o.0)))
    }
    async fn orders(&self, _q: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        Ok(self.s.lock().unwrap().orders.values().map(|o| order(&o.0)).collect())
    }
    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        (self.pause)("o").await;
        let mut s = self.s.lock().unwrap();
        let l = s.leases.entry(item.clone()).or_insert((initial, Epoch(0)));
        l.1 = l.1.max(dead).next();
        let epoch = l.1;
        Ok(OpenOutcome::Lease(Lease {
            item: item.clone(),
            epoch,
            received: s.received(item, initial),
            sold: s.sold(item),
        }))
    }
    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        (self.pause)("s").await;
        let s = self.s.lock().unwrap();
        Ok(items
            .iter()
            .map(|i| ItemStock {
                epoch: s.leases.get(i).map_or(Epoch(0), |l| l.1),
                received: s.received(i, initial),
                sold: s.sold(i),
            })
            .collect())
    }
    async fn resolve(&self, q: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        (self.pause)("r").await;
        let mut s = self.s.lock().unwrap();
        Ok(q.iter()
            .map(|q| match (s.orders.get(&q.id), &q.stamp) {
                (Some(o), Some(st)) if o.0.stamp == *st => Verdict::Confirmed,
                (Some(_), _) => Verdict::ConfirmedElsewhere,
                (None, None) => {
                    if s.tomb.contains_key(&q.id) {
                        Verdict::Aborted
                    } else {
                        Verdict::Unknown
                    }
                }
                (None, Some(st)) => {
                    let e = s.leases.get(&st.item).map_or(Epoch(0), |l| l.1);
                    s.tomb.insert(q.id, e);
                    Verdict::Aborted
                }
            })
            .collect())
    }
    async fn record_restock(&self, r: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        (self.pause)("r").await;
        let mut s = self.s.lock().unwrap();
        let e = s.leases.entry(r.item.clone()).or_insert((initial, Epoch(0))).1;
        Ok(RestockOutcome::Journalled(s.restocks.entry(r.id).or_insert((r.item.clone(), r.quantity.get(), e)).2))
    }
    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        (self.pause)("t").await;
        let mut s = self.s.lock().unwrap();
        let mut events = Vec::new();
        for e in s.outbox.iter_mut().filter(|e| !e.1).take(limit as usize) {
            e.1 = true;
            events.push(e.0.clone());
        }
        drop(s);
        Ok(Box::new(Batch { s: self.s.clone(), events, pause: self.pause.clone() }))
    }
    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        (self.pause)("b").await;
        Ok(OutboxBacklog { events: self.s.lock().unwrap().outbox.len() as u64, oldest: None::<Timestamp> })
    }
    async fn prune_tombstones(&self, _limit: u32) -> Result<u64, LedgerError> {
        (self.pause)("p").await;
        Ok(0)
    }
    async fn ping(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}
struct Batch {
    pub s: Arc<Mutex<S>>,
    events: Vec<OutboxEvent>,
    pause: Pause,
}
impl Drop for Batch {
    fn drop(&mut self) {
        let mut s = self.s.lock().unwrap();
        for e in &mut s.outbox {
            if self.events.iter().any(|x| x.order_id == e.0.order_id) {
                e.1 = false;
            }
        }
    }
}
#[async_trait]
impl OutboxBatch for Batch {
    fn events(&self) -> &[OutboxEvent] {
        &self.events
    }
    async fn settle(self: Box<Self>, published: &[bool]) -> Result<(), LedgerError> {
        (self.pause)("st").await;
        let mut s = self.s.lock().unwrap();
        let done: Vec<_> = self.events.iter().zip(published).filter(|p| *p.1).map(|p| p.0.order_id).collect();
        s.outbox.retain(|e| !done.contains(&e.0.order_id));
        drop(s);
        Ok(())
    }
}
#[derive(Default)]
pub struct FakeBroker {
    q: Arc<Mutex<Vec<Message>>>,
    n: Arc<Notify>,
}
#[async_trait]
impl Broker for FakeBroker {
    async fn declare(&self, _q: &QueueSpec) -> Result<(), BrokerError> {
        Ok(())
    }
    async fn publish(&self, m: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.q.lock().unwrap().extend(m.iter().cloned());
        self.n.notify_waiters();
        Ok(m.iter().map(|_| PublishOutcome::Confirmed).collect())
    }
    async fn consume(&self, _q: &str, _p: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(FakeConsumer { q: self.q.clone(), n: self.n.clone(), hand: BTreeMap::new(), tag: 0 }))
    }
    async fn depth(&self, _q: &str) -> Result<u64, BrokerError> {
        Ok(0)
    }
}
struct FakeConsumer {
    q: Arc<Mutex<Vec<Message>>>,
    n: Arc<Notify>,
    hand: BTreeMap<u64, Message>,
    tag: u64,
}
impl Drop for FakeConsumer {
    fn drop(&mut self) {
        self.q.lock().unwrap().extend(std::mem::take(&mut self.hand).into_values());
        self.n.notify_waiters();
    }
}
#[async_trait]
impl Consumer for FakeConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let n = self.n.clone();
            let wait = n.notified();
            let got: Vec<Message> = {
                let mut q = self.q.lock().unwrap();
                let k = q.len().min(max);
                q.drain(..k).collect()
            };
            if got.is_empty() {
                wait.await;
                continue;
            }
            return Ok(got
                .into_iter()
                .map(|message| {
                    self.tag += 1;
                    self.hand.insert(self.tag, message.clone());
                    Delivery { tag: self.tag, message, earlier_deliveries: 0 }
                })
                .collect());
        }
    }
    async fn settle(&mut self, s: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        for (t, x) in s {
            let m = self.hand.remove(t);
            if *x == Settlement::Requeue {
                self.q.lock().unwrap().extend(m);
            }
        }
        Ok(())
    }
}
