//! Reads queue `order_created` and turns the holds of committed orders into sales. An event is settled after its effect;
//! while the store or the ledger is down nothing is fetched, and what was fetched is tried again in place.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use broker::{Broker, BrokerError, Consumer, Delivery, QueueSpec, Settlement};
use contracts::{
    Failure,
    event::{ORDER_CREATED, OrderCreated, QUEUE_LENGTH_MAX, QUEUE_REDELIVERIES_MAX},
};
use futures::{StreamExt, stream};
use service::{call::Call, telemetry};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::{
    backend::Backend,
    metrics::EventOutcome,
    opener::Opener,
    outage::Outage,
    reservations::{STEP_ATTEMPTS_MAX, never_open},
    stock::ConfirmReply,
};

/// Most events in hand.
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
        let queue = QueueSpec {
            name: ORDER_CREATED.to_owned(),
            length_max: QUEUE_LENGTH_MAX,
            redeliveries_max: QUEUE_REDELIVERIES_MAX,
        };
        self.in_time(self.broker.declare(&queue)).await?;
        let mut consumer = self.in_time(self.broker.consume(ORDER_CREATED, CONSUMER_BATCH_MAX)).await?;
        connection.works();
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = consumer.next(usize::from(CONSUMER_BATCH_MAX)) => batch?,
            };
            self.finish(&mut *consumer, batch, stop, effects).await?;
        }
    }

    /// Handles events until all are settled, or until `stop`.
    async fn finish(
        &self,
        consumer: &mut dyn Consumer,
        mut pending: Vec<Delivery>,
        stop: &CancellationToken,
        effects: &mut Outage,
    ) -> Result<(), SessionError> {
        loop {
            let call = Call::background(&*self.backend.env);
            let results: Vec<_> = stream::iter(pending)
                .map(|delivery| async { (self.handle(&call, &delivery).await, delivery) })
                .buffered(CONSUMER_CONCURRENCY_MAX)
                .collect()
                .await;
            let (mut settlements, mut failed, mut failure) = (Vec::new(), Vec::new(), None);
            for (result, delivery) in results {
                match result {
                    Ok(outcome) => settlements.push((delivery.tag, settlement(outcome))),
                    Err(f) => {
                        failed.push(delivery);
                        failure = Some(f);
                    }
                }
            }
            if !settlements.is_empty() {
                self.in_time(consumer.settle(&settlements)).await?;
            }
            pending = failed;
            let Some(failure) = failure else {
                effects.works();
                return Ok(());
            };
            let pause = effects.failed(&failure);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.backend.env.sleep(pause) => {}
            }
        }
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
            Ok(outcome)
        };
        work.instrument(span).await
    }

    async fn sell(&self, call: &Call, event: &OrderCreated) -> Result<EventOutcome, Failure> {
        let stamp = &event.stamp;
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
                Ordering::Equal => self.opener.open(call, &stamp.item, stamp.epoch).await?,
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
