//! A stand-in until the simulated broker is there.
#![expect(clippy::all, clippy::pedantic, missing_docs, clippy::unwrap_used, reason = "it goes")]
use std::{collections::BTreeMap, sync::{Arc, Mutex}};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};
use tokio::sync::Notify;

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
