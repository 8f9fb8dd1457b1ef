//! The in-process broker over a connection that breaks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};

pub struct FlakyBroker {
    inner: Arc<dyn Broker>,
    /// So many of the next connects fail.
    pub fail_consumes: AtomicUsize,
    /// So many of the next settlements are lost with their connection.
    pub fail_settles: Arc<AtomicUsize>,
}

impl FlakyBroker {
    pub fn new(inner: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self { inner, fail_consumes: AtomicUsize::new(0), fail_settles: Arc::default() })
    }
}

fn fails(count: &AtomicUsize) -> Result<(), BrokerError> {
    let less = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
    if less.is_ok() { Err(BrokerError("the test cut it".into())) } else { Ok(()) }
}

#[async_trait]
impl Broker for FlakyBroker {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        self.inner.declare(queue).await
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.inner.publish(messages).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        fails(&self.fail_consumes)?;
        let inner = self.inner.consume(queue, prefetch).await?;
        Ok(Box::new(FlakyConsumer { inner, fail_settles: self.fail_settles.clone() }))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        self.inner.depth(queue).await
    }
}

struct FlakyConsumer {
    inner: Box<dyn Consumer>,
    fail_settles: Arc<AtomicUsize>,
}

#[async_trait]
impl Consumer for FlakyConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.inner.next(max).await
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        fails(&self.fail_settles)?;
        self.inner.settle(settlements).await
    }
}
