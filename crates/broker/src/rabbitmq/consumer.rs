//! One reader of a queue, on a channel of its own.

use std::{
    collections::{BTreeSet, HashSet},
    slice,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery as Delivered,
    options::{BasicAckOptions, BasicNackOptions, BasicQosOptions},
};
use service::environment::Env;
use tracing::warn;

use super::{
    OPERATION_TIMEOUT_MS,
    connection::Line,
    gave_up,
    message::{earlier_deliveries, in_order, message},
};
use crate::{BrokerError, Consumer, DEAD_LETTER_SUFFIX, Delivery, Settlement, check_batch};

/// Reads one queue. Dropped, its channel is closed, and the server has back what was not settled.
pub(super) struct RabbitMqConsumer {
    env: Env,
    deliveries: lapin::Consumer,
    channel: Channel,
    line: Arc<Line>,
    queue: String,
    prefetch: u16,
    unsettled: BTreeSet<u64>,
    /// Why there will be no more deliveries, once that is known.
    ended: Option<String>,
}

impl RabbitMqConsumer {
    pub(super) fn new(
        env: Env,
        line: Arc<Line>,
        channel: Channel,
        deliveries: lapin::Consumer,
        queue: &str,
        prefetch: u16,
    ) -> Self {
        let (queue, unsettled) = (queue.to_owned(), BTreeSet::new());
        Self { env, deliveries, channel, line, queue, prefetch, unsettled, ended: None }
    }

    /// What the next message is, or that there is none, for ever.
    fn received(&mut self, next: Option<lapin::Result<Delivered>>) -> Option<Delivered> {
        match next {
            Some(Ok(delivered)) => return Some(delivered),
            Some(Err(error)) => self.ended = Some(error.to_string()),
            None => self.ended = Some("the server ended the consumer, as it does when a queue is deleted".to_owned()),
        }
        None
    }

    /// What our publishers cannot have published becomes a dead letter, where it was not one before.
    fn accepted(&mut self, delivered: Delivered) -> Option<Delivery> {
        let Delivered { delivery_tag: tag, properties, data, redelivered, .. } = delivered;
        let message = message(&self.queue, &properties, data);
        if !self.is_dead_letter_queue() && check_batch(slice::from_ref(&message)).is_err() {
            warn!(
                queue = self.queue,
                message_id = message.id,
                "message dead-lettered: it is larger than a message may be"
            );
            let options = BasicNackOptions::default();
            // Sent when it is first polled. If it fails the message comes again.
            let _ = self.channel.basic_nack(tag, options).now_or_never();
            return None;
        }
        self.unsettled.insert(tag);
        // From RabbitMQ 4 on a dead letter brings the count of the queue that it comes from.
        let earlier_deliveries = if redelivered { earlier_deliveries(&properties) } else { 0 };
        Some(Delivery { tag, message, earlier_deliveries })
    }

    fn is_dead_letter_queue(&self) -> bool {
        self.queue.ends_with(DEAD_LETTER_SUFFIX)
    }

    async fn send(&self, tag: u64, settlement: Settlement) -> lapin::Result<()> {
        let requeue = match settlement {
            Settlement::Acknowledge => return self.channel.basic_ack(tag, BasicAckOptions::default()).await,
            Settlement::Requeue => true,
            Settlement::DeadLetter => self.is_dead_letter_queue(),
        };
        self.channel.basic_nack(tag, BasicNackOptions { requeue, ..BasicNackOptions::default() }).await
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let max = max.min(usize::from(self.prefetch) - self.unsettled.len());
        if max == 0 {
            return Err(BrokerError::text("asked for the next message without room for one"));
        }
        let mut batch = Vec::new();
        while batch.len() < max && self.ended.is_none() {
            let next = if batch.is_empty() {
                self.deliveries.next().await
            } else {
                // Nothing is waited for from here on, so that what is in the batch cannot be lost.
                let Some(next) = self.deliveries.next().now_or_never() else { break };
                next
            };
            if let Some(delivered) = self.received(next) {
                batch.extend(self.accepted(delivered));
            }
        }
        match &self.ended {
            Some(ended) if batch.is_empty() => Err(BrokerError::text(ended.as_str())),
            _ => Ok(batch),
        }
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        let mut named = HashSet::new();
        if let Some((tag, _)) = settlements.iter().find(|(tag, _)| !self.unsettled.contains(tag) || !named.insert(tag))
        {
            return Err(BrokerError::text(format!("delivery {tag} is not unsettled here, or is named twice")));
        }
        if settlements.is_empty() {
            return Ok(());
        }
        for (tag, _) in settlements {
            self.unsettled.remove(tag);
        }
        let work = async {
            in_order(settlements.iter().map(|(tag, settlement)| self.send(*tag, *settlement))).await?;
            // The server answers no acknowledgement. It does answer this, which changes nothing, and by then has them.
            self.channel.basic_qos(self.prefetch, BasicQosOptions::default()).await
        };
        match self.env.timeout(Duration::from_millis(OPERATION_TIMEOUT_MS), work).await {
            Ok(result) => result.map_err(BrokerError::of),
            Err(_) => Err(gave_up(Some(&self.line))),
        }
    }
}
