//! A durable broker in one SQLite file, for the all-in-one process. One process at a time may open the file.
//!
//! - this module: [`InProcessBroker`]
//! - `queue`: a queue in memory: which messages are in a consumer's hands, and the bell that wakes consumers
//! - `consumer`: one reader
//! - `store`: the file, and the SQL of declaring and publishing
//! - `delivery`: the SQL of handing out and settling
//!
//! A publish is confirmed once its transaction is synced, because the publisher deletes its own copy then. Every step
//! that writes is one transaction in a task of its own: a caller that stops waiting does not stop it half way.
//!
//! A dead letter whose dead-letter queue is full is *doomed*: it stays in its queue, counts in its length, is delivered
//! to nobody, and moves in the transaction that acknowledges a dead letter. So nothing is lost and nothing spins.

mod consumer;
mod delivery;
mod queue;
mod store;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use service::environment::Env;

use self::{consumer::InProcessConsumer, queue::Queue, store::Store};
use crate::{Broker, BrokerError, Consumer, Message, PublishOutcome, QueueSpec, check_batch, check_queue};

/// A durable broker in a SQLite file. See the module.
pub struct InProcessBroker {
    shared: Arc<Shared>,
}

/// What the broker, its consumers and their running steps share.
struct Shared {
    store: Store,
    env: Env,
    queues: Mutex<HashMap<String, Arc<Queue>>>,
}

impl InProcessBroker {
    /// Opens the file, or makes it; its folder must be there. Whatever was unsettled is ready again.
    pub async fn open(path: &Path, env: Env) -> Result<Arc<Self>, BrokerError> {
        let store = Store::open(path).await?;
        let shared = Shared { store, env, queues: Mutex::default() };
        shared.refresh().await?;
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }
}

impl Shared {
    /// Adds to memory every queue that is only in the file.
    async fn refresh(&self) -> Result<(), BrokerError> {
        let rows = self.store.queues().await?;
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            queues.entry(row.name.clone()).or_insert_with(|| Arc::new(Queue::new(row)));
        }
        Ok(())
    }

    fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn find(&self, wanted: impl Fn(&Queue) -> bool) -> Option<Arc<Queue>> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.values().find(|queue| wanted(queue)).cloned()
    }

    /// Runs `work` to its end, also if the caller stops waiting.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.env.detached(work).await.unwrap_or_else(|| Err(BrokerError::text("a step died")))
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        let outcomes = self.store.publish(messages, self.env.now()).await?;
        let confirmed = messages.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == PublishOutcome::Confirmed);
        let changed: BTreeSet<&str> = confirmed.map(|(message, _)| message.routing_key.as_str()).collect();
        for queue in changed.into_iter().filter_map(|name| self.queue(name)) {
            queue.ring();
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl Broker for InProcessBroker {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        check_queue(queue)?;
        let (shared, spec) = (Arc::clone(&self.shared), queue.clone());
        let step = async move {
            shared.store.declare(&spec).await?;
            shared.refresh().await
        };
        self.shared.detached(step).await
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        check_batch(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let (shared, messages) = (Arc::clone(&self.shared), messages.to_vec());
        self.shared.detached(async move { shared.publish(&messages).await }).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        if prefetch == 0 {
            return Err(BrokerError::text("a consumer with prefetch 0 would never get a message"));
        }
        let queue = self.shared.queue(queue).ok_or_else(|| BrokerError::text(format!("no queue {queue:?}")))?;
        Ok(Box::new(InProcessConsumer::new(Arc::clone(&self.shared), queue, prefetch.into())))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        self.shared.store.depth(queue).await
    }
}
