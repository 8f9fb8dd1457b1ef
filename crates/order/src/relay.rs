//! Publishes the outbox. An event is deleted only when the broker has confirmed it, so each is published at least once;
//! the consumer takes duplicates. ARCHITECTURE.md, "Events".

use std::{collections::BTreeMap, iter, sync::Arc, time::Duration};

use broker::{Broker, BrokerError, Message, PublishOutcome, queues};
use contracts::event::ORDER_CREATED;
use service::{
    environment::Env,
    planted::{self, Bug},
    telemetry,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    ledger::{Ledger, LedgerError, OutboxEvent},
    metrics::OrderMetrics,
};

/// Most events in one batch.
pub const RELAY_BATCH_MAX: u32 = 200;
/// How long the broker may take to judge a batch, in milliseconds; then it is published again.
pub const CONFIRM_TIMEOUT_MS: u64 = 5_000;
/// How long the relay sleeps when nothing wakes it, in milliseconds: events that another instance left behind.
pub const RELAY_IDLE_MS: u64 = 1_000;
/// First wait after a failure, in milliseconds; it doubles.
pub const RELAY_BACKOFF_MIN_MS: u64 = 50;
/// Longest wait after failures, in milliseconds.
pub const RELAY_BACKOFF_MAX_MS: u64 = 5_000;

/// Why a round of the relay published less than it took.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker did not judge the batch in time.
    #[error("no confirms within {CONFIRM_TIMEOUT_MS} ms")]
    NotConfirmed,
    /// The broker has no queue for events, or it is full.
    #[error("{returned} events returned, {refused} refused")]
    NotTaken {
        /// No queue takes them.
        returned: usize,
        /// The queue is full.
        refused: usize,
    },
}

/// Publishes the outbox.
pub struct Relay {
    env: Env,
    ledger: Arc<dyn Ledger>,
    broker: Arc<dyn Broker>,
    metrics: OrderMetrics,
    /// Notified after commits.
    committed: Arc<Notify>,
    /// Whether the queue was declared since the last failure.
    declared: bool,
    /// When the backlog is counted again, as uptime.
    next_measure: Duration,
    /// The highest number of an event that was taken. Only a planted bug goes by it.
    highest: i64,
}

impl Relay {
    /// Over these; `committed` wakes it.
    pub fn new(
        env: Env,
        ledger: Arc<dyn Ledger>,
        broker: Arc<dyn Broker>,
        metrics: OrderMetrics,
        committed: Arc<Notify>,
    ) -> Self {
        Self { env, ledger, broker, metrics, committed, declared: false, next_measure: Duration::ZERO, highest: 0 }
    }

    /// Publishes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        let mut trouble = String::new();
        while !stop.is_cancelled() {
            let pause = match self.round().await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    Duration::from_millis(RELAY_IDLE_MS)
                }
                Err(error) => {
                    // Once for each cause in turn.
                    if failures == 0 || trouble != error.to_string() {
                        tracing::warn!(%error, "events wait in the outbox");
                    }
                    trouble = error.to_string();
                    failures += 1;
                    self.declared = false;
                    self.backoff(failures)
                }
            };
            let wake = async {
                // After a failure only time helps: new orders do not make the broker well.
                if failures == 0 { self.committed.notified().await } else { std::future::pending().await }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = wake => {}
                () = self.env.sleep(pause) => {}
            }
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doubled = RELAY_BACKOFF_MIN_MS.saturating_mul(1 << failures.min(16));
        self.env.jittered(Duration::from_millis(doubled.min(RELAY_BACKOFF_MAX_MS)))
    }

    /// Publishes one batch and deletes what the broker has. True when more may wait.
    pub async fn round(&mut self) -> Result<bool, RelayError> {
        let measured = self.measure().await;
        let batch = self.ledger.take_outbox(RELAY_BATCH_MAX).await?;
        // What cannot be counted can be published.
        if let Err(error) = measured {
            tracing::warn!(%error, "what waits in the outbox is not counted");
        }
        if batch.events().is_empty() {
            return Ok(false);
        }
        let full = batch.events().len() == RELAY_BATCH_MAX as usize;
        if planted::is(Bug::OutboxDeletedFirst) {
            let events = batch.events().to_vec();
            batch.settle(&vec![true; events.len()]).await?;
            self.publish(&events).await?;
            return Ok(full);
        }
        let seen = self.seen(batch.events());
        let outcomes = self.publish(&batch.events()[seen..]).await?;
        let is_published = |outcome: &PublishOutcome| match outcome {
            PublishOutcome::Confirmed => true,
            PublishOutcome::Returned => planted::is(Bug::ReturnsIgnored),
            PublishOutcome::Refused => false,
        };
        let published: Vec<bool> = iter::repeat_n(false, seen).chain(outcomes.iter().map(is_published)).collect();
        let count = |wanted| outcomes.iter().filter(|o| **o == wanted).count();
        let (returned, refused) = (count(PublishOutcome::Returned), count(PublishOutcome::Refused));
        self.metrics.relayed(outcomes.len() - returned - refused, returned + refused);
        batch.settle(&published).await?;
        if returned + refused > 0 {
            return Err(RelayError::NotTaken { returned, refused });
        }
        Ok(full)
    }

    /// How many of these events need not be published again: none. One below the highest number may be new, because numbers
    /// are given before commits.
    fn seen(&mut self, events: &[OutboxEvent]) -> usize {
        if !planted::is(Bug::OutboxPagedById) {
            return 0;
        }
        let seen = events.partition_point(|event| event.seq <= self.highest);
        self.highest = self.highest.max(events.last().map_or(0, |last| last.seq));
        seen
    }

    /// Not at every round: counting takes as long as the backlog is.
    async fn measure(&mut self) -> Result<(), LedgerError> {
        if self.env.uptime() < self.next_measure {
            return Ok(());
        }
        self.next_measure = self.env.uptime() + Duration::from_millis(RELAY_IDLE_MS);
        let backlog = self.ledger.outbox_backlog().await?;
        let age = backlog.oldest.map_or(0, |oldest| self.env.now().0.saturating_sub(oldest.0).max(0));
        self.metrics.backlog(&backlog, Duration::from_micros(age.unsigned_abs()).as_secs_f64());
        Ok(())
    }

    async fn publish(&mut self, events: &[OutboxEvent]) -> Result<Vec<PublishOutcome>, RelayError> {
        // Each lasts until the batch is judged.
        let spans: Vec<Span> = events.iter().map(span).collect();
        let messages: Vec<Message> = events.iter().zip(&spans).map(|(event, span)| message(event, span)).collect();
        let work = async {
            if !self.declared {
                self.broker.declare(&queues::order_created()).await?;
                self.declared = true;
            }
            self.broker.publish(&messages).await
        };
        let judged = match self.env.timeout(Duration::from_millis(CONFIRM_TIMEOUT_MS), work).await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(RelayError::NotConfirmed),
        };
        if judged.is_err() {
            self.metrics.relayed(0, events.len());
        }
        let outcomes = judged?;
        assert_eq!(outcomes.len(), events.len(), "one outcome for each message");
        Ok(outcomes)
    }
}

/// Goes on with the trace of the request that placed the order.
fn span(event: &OutboxEvent) -> Span {
    let span = tracing::info_span!(
        "publish",
        otel.name = "publish order_created",
        otel.kind = "producer",
        "messaging.operation.name" = "publish",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = ORDER_CREATED,
        "messaging.message.id" = %event.order_id,
    );
    telemetry::continue_trace(&span, &event.traceparent);
    span
}

fn message(event: &OutboxEvent, span: &Span) -> Message {
    let traceparent = span.in_scope(telemetry::traceparent);
    let headers = if traceparent.is_empty() {
        BTreeMap::new()
    } else {
        BTreeMap::from([(telemetry::TRACEPARENT.to_owned(), traceparent)])
    };
    Message {
        id: event.order_id.to_string(),
        routing_key: ORDER_CREATED.to_owned(),
        body: event.payload.clone(),
        headers,
    }
}
