//! Reads queue `order_created` and turns the holds of committed orders into sales. An event is settled after its effect.
//! One whose effect fails is kept in hand and tried again; with both hands full nothing is fetched. So nothing goes back
//! and forth while the store or the ledger is down, and one item in trouble does not keep the others waiting.

use std::{cmp::Ordering, mem, sync::Arc, time::Duration};

use broker::{Broker, BrokerError, Delivery, Settlement, queues};
use contracts::{
    Failure,
    event::{ORDER_CREATED, OrderCreated},
};
use futures::{StreamExt, stream};
use service::{call::Call, outage::Outage, telemetry};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::{
    backend::Backend,
    metrics::EventOutcome,
    opener::Opener,
    reservations::{STEP_ATTEMPTS_MAX, never_open},
    stock::ConfirmReply,
};

/// Most events in hand, new ones and failed ones together.
pub const CONSUMER_BATCH_MAX: u16 = 100;
/// Most events that are worked on at once.
pub const CONSUMER_CONCURRENCY_MAX: usize = 32;
/// How long the broker may take to declare, to connect or to settle, in milliseconds.
pub const BROKER_TIMEOUT_MS: u64 = 5_000;

/// Sells holds whose orders were committed.
#[derive(Clone)]
pub struct OrderConsumer {
    backend: Backend,
    opener: Opener,
    broker: Arc<dyn Broker>,
}

impl OrderConsumer {
    /// Of this broker's events.
    pub fn new(backend: Backend, opener: Opener, broker: Arc<dyn Broker>) -> Self {
        Self { backend, opener, broker }
    }

    /// Works until `stop`; events under way are finished and settled.
    pub async fn run(self, stop: CancellationToken) {
        let mut connection = Outage::new(self.backend.env.clone(), "the connection to the broker");
        let mut effects = Outage::new(self.backend.env.clone(), "the consumer");
        while !stop.is_cancelled() {
            let Err(error) = self.session(&stop, &mut connection, &mut effects).await else { return };
            let pause = connection.failed(&Failure::unavailable(error));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.backend.env.sleep(pause) => {}
            }
        }
    }

    /// Works over one connection. Ends well only by `stop`; unsettled events go back to the queue either way.
    async fn session(
        &self,
        stop: &CancellationToken,
        connection: &mut Outage,
        effects: &mut Outage,
    ) -> Result<(), SessionError> {
        self.in_time(self.broker.declare(&queues::order_created())).await?;
        let mut consumer = self.in_time(self.broker.consume(ORDER_CREATED, CONSUMER_BATCH_MAX)).await?;
        connection.works();
        let most = usize::from(CONSUMER_BATCH_MAX);
        let mut kept: Vec<Delivery> = Vec::new();
        let mut again_at = Duration::ZERO;
        loop {
            let (room, pause) = (most - kept.len(), again_at.saturating_sub(self.backend.env.uptime()));
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.backend.env.sleep(pause), if !kept.is_empty() => mem::take(&mut kept),
                batch = consumer.next(room), if room > 0 => batch?,
            };
            let handled = self.handle_all(batch).await;
            if !handled.settlements.is_empty() {
                self.in_time(consumer.settle(&handled.settlements)).await?;
            }
            kept.extend(handled.failed);
            match handled.failure {
                Some(failure) => again_at = self.backend.env.uptime() + effects.failed(&failure),
                None if kept.is_empty() => effects.works(),
                None => {}
            }
        }
    }

    async fn handle_all(&self, batch: Vec<Delivery>) -> Handled {
        let call = Call::background(&*self.backend.env);
        let results: Vec<_> = stream::iter(batch)
            .map(|delivery| async { (self.handle(&call, &delivery).await, delivery) })
            .buffered(CONSUMER_CONCURRENCY_MAX)
            .collect()
            .await;
        let mut handled = Handled::default();
        for (result, delivery) in results {
            match result {
                Ok(outcome) => handled.settlements.push((delivery.tag, settlement(outcome))),
                Err(failure) => {
                    handled.failed.push(delivery);
                    handled.failure = Some(failure);
                }
            }
        }
        handled
    }

    /// Has the event's effect, once. An error says that it may not have been had yet.
    async fn handle(&self, call: &Call, delivery: &Delivery) -> Result<EventOutcome, Failure> {
        let message = &delivery.message;
        let span = tracing::info_span!(
            "process",
            otel.name = "process order_created",
            otel.kind = "consumer",
            "messaging.operation.name" = "process",
            "messaging.operation.type" = "process",
            "messaging.destination.name" = ORDER_CREATED,
            "messaging.message.id" = message.id,
            outcome = field::Empty,
        );
        if let Some(traceparent) = message.headers.get("traceparent") {
            telemetry::continue_trace(&span, traceparent);
        }
        let work = async {
            let outcome = match OrderCreated::from_json(&message.body) {
                Ok(event) => self.sell(call, &event).await?,
                Err(invalid) => {
                    tracing::error!(message_id = message.id, reason = %invalid, "malformed event");
                    EventOutcome::Malformed
                }
            };
            tracing::Span::current().record("outcome", field::debug(outcome));
            self.backend.metrics.event(outcome);
            // Before the acknowledgement: what a log of this says was handled, was.
            tracing::debug!(message_id = message.id, ?outcome, "event handled");
            Ok(outcome)
        };
        work.instrument(span).await
    }

    async fn sell(&self, call: &Call, event: &OrderCreated) -> Result<EventOutcome, Failure> {
        let stamp = &event.stamp;
        let mut least = stamp.epoch;
        for _ in 0..STEP_ATTEMPTS_MAX {
            match self.backend.step(call, self.backend.store.confirm(event.id, stamp)).await? {
                ConfirmReply::Confirmed => return Ok(EventOutcome::Processed),
                ConfirmReply::AlreadyDone => return Ok(EventOutcome::Duplicate),
                ConfirmReply::Superseded => return Ok(EventOutcome::Superseded),
                ConfirmReply::NotOpen => {}
            }
            let newest = self.backend.lent_of(call, &stamp.item).await?.epoch;
            match newest.cmp(&stamp.epoch) {
                // That lease was granted after the order was committed, so it has counted it: nothing to open.
                Ordering::Greater => return Ok(EventOutcome::Superseded),
                // The hold is lost with the data of its lease. The next lease counts the order.
                Ordering::Equal => least = self.opener.open(call, &stamp.item, least).await?.next(),
                // Forged, or the ledger was restored to a state before the order.
                Ordering::Less => {
                    tracing::error!(order_id = %event.id, ?stamp, %newest, "event of a lease that was never granted");
                    return Ok(EventOutcome::UnknownLease);
                }
            }
        }
        Err(never_open(&stamp.item))
    }

    async fn in_time<T>(&self, step: impl Future<Output = Result<T, BrokerError>>) -> Result<T, SessionError> {
        match self.backend.env.timeout(Duration::from_millis(BROKER_TIMEOUT_MS), step).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(SessionError::TimedOut),
        }
    }
}

/// What became of a batch.
#[derive(Default)]
struct Handled {
    settlements: Vec<(u64, Settlement)>,
    failed: Vec<Delivery>,
    failure: Option<Failure>,
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("no answer from the broker within {BROKER_TIMEOUT_MS} ms")]
    TimedOut,
}

fn settlement(outcome: EventOutcome) -> Settlement {
    match outcome {
        EventOutcome::Processed | EventOutcome::Duplicate | EventOutcome::Superseded => Settlement::Acknowledge,
        EventOutcome::UnknownLease | EventOutcome::Malformed => Settlement::DeadLetter,
    }
}
