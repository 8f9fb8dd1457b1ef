//! The relay over the real ledger and the real queue, with answers of the broker that are lost or bad.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use broker::{
    Broker, BrokerError, Consumer, Message, PublishOutcome, QueueSpec, Settlement, in_process::InProcessBroker, queues,
};
use contracts::event::{ORDER_CREATED, OrderCreated};
use order::{
    ledger::{
        Ledger, NewOrder,
        conformance::{Bench, LedgerFixture, item},
        sqlite::SqliteLedger,
    },
    metrics::OrderMetrics,
    relay::{CONFIRM_TIMEOUT_MS, Relay, RelayError},
};
use prometheus_client::registry::Registry;
use service::{environment::Env, manual::ManualEnvironment};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

struct Fixture {
    ledger: Arc<SqliteLedger>,
    data: TempDir,
}

#[async_trait]
impl LedgerFixture for Fixture {
    async fn fresh(env: Env) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let ledger = SqliteLedger::open(&data.path().join("ledger.db"), env).await.expect("it opens");
        Self { ledger, data }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
    }

    async fn sql(&self, _: &'static str) -> Option<Result<(), String>> {
        None
    }
}

/// What goes wrong with one publish.
enum Fault {
    /// Stored, but the answer is lost.
    AnswerLost,
    /// Never answered.
    Hangs,
    /// Judged so; those that are confirmed are stored.
    Judged(Vec<PublishOutcome>),
}

/// The real queue, over a connection with faults.
struct FaultyBroker {
    queue: Arc<InProcessBroker>,
    faults: Mutex<VecDeque<Fault>>,
}

#[async_trait]
impl Broker for FaultyBroker {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        self.queue.declare(queue).await
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        let fault = self.faults.lock().expect("whole").pop_front();
        match fault {
            None => self.queue.publish(messages).await,
            Some(Fault::AnswerLost) => {
                self.queue.publish(messages).await?;
                Err(BrokerError("the test cut it".into()))
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Judged(outcomes)) => {
                assert_eq!(outcomes.len(), messages.len(), "the test judges every message");
                let taken = messages.iter().zip(&outcomes).filter(|(_, o)| **o == PublishOutcome::Confirmed);
                let taken: Vec<_> = taken.map(|(message, _)| message.clone()).collect();
                self.queue.publish(&taken).await?;
                Ok(outcomes)
            }
        }
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.queue.consume(queue, prefetch).await
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        self.queue.depth(queue).await
    }
}

struct World {
    bench: Bench,
    clock: Arc<ManualEnvironment>,
    broker: Arc<FaultyBroker>,
    relay: Relay,
    committed: Arc<Notify>,
    orders: Vec<NewOrder>,
}

impl World {
    /// With so many events in the outbox.
    async fn new(events: usize) -> Self {
        let clock = ManualEnvironment::new(1);
        let fixture = Fixture::fresh(clock.clone()).await;
        let queue = InProcessBroker::open(&fixture.data.path().join("broker.db"), clock.clone()).await;
        let broker = Arc::new(FaultyBroker { queue: queue.expect("it opens"), faults: Mutex::default() });
        let bench = Bench::over(fixture, clock.clone());
        let lease = bench.lease(&item("widget"), 1_000).await;
        let orders: Vec<_> = (0..events).map(|_| bench.order(&lease)).collect();
        for order in &orders {
            bench.sell(order).await;
        }
        let committed = Arc::new(Notify::new());
        let metrics = OrderMetrics::register(&mut Registry::default());
        let relay = Relay::new(bench.env(), bench.ledger.clone(), broker.clone(), metrics, committed.clone());
        Self { bench, clock, broker, relay, committed, orders }
    }

    fn fault(&self, fault: Fault) {
        self.broker.faults.lock().expect("whole").push_back(fault);
    }

    async fn waiting(&self) -> u64 {
        self.bench.ledger.outbox_backlog().await.expect("the ledger answers").events
    }

    /// Ids of the messages in the queue, in order; they are taken out.
    async fn delivered(&self) -> Vec<String> {
        let depth = self.broker.depth(ORDER_CREATED).await.expect("declared");
        let mut consumer = self.broker.consume(ORDER_CREATED, 500).await.expect("declared");
        let mut ids = Vec::new();
        while (ids.len() as u64) < depth {
            for delivery in consumer.next(500).await.expect("delivered") {
                let event = OrderCreated::from_json(&delivery.message.body).expect("an event");
                assert_eq!(event.id.to_string(), delivery.message.id);
                ids.push(delivery.message.id);
                consumer.settle(&[(delivery.tag, Settlement::Acknowledge)]).await.expect("settled");
            }
        }
        ids
    }

    fn ids(&self, which: &[usize]) -> Vec<String> {
        which.iter().map(|n| self.orders[*n].id.to_string()).collect()
    }
}

#[tokio::test]
async fn events_leave_the_outbox_for_the_queue_oldest_first() {
    let mut world = World::new(3).await;
    assert!(!world.relay.round().await.expect("published"), "no more wait");
    assert_eq!(world.waiting().await, 0);
    assert_eq!(world.delivered().await, world.ids(&[0, 1, 2]));
}

#[tokio::test]
async fn an_event_whose_confirm_is_lost_is_published_again() {
    let mut world = World::new(2).await;
    world.fault(Fault::AnswerLost);
    assert!(matches!(world.relay.round().await, Err(RelayError::Broker(_))));
    assert_eq!(world.waiting().await, 2, "nothing is deleted before the confirm");
    world.relay.round().await.expect("published");
    assert_eq!(world.waiting().await, 0);
    assert_eq!(world.delivered().await, world.ids(&[0, 1, 0, 1]), "at least once");
}

#[tokio::test]
async fn a_broker_that_never_confirms_is_given_up_in_time_and_tried_again() {
    let mut world = World::new(1).await;
    world.fault(Fault::Hangs);
    let (clock, broker) = (world.clock.clone(), world.broker.clone());
    let round = {
        let mut round = std::pin::pin!(world.relay.round());
        loop {
            tokio::select! {
                biased;
                done = &mut round => break done,
                // Time passes only while the broker hangs.
                () = tokio::task::yield_now() => if broker.faults.lock().expect("whole").is_empty() {
                    clock.advance(Duration::from_millis(CONFIRM_TIMEOUT_MS / 4));
                },
            }
        }
    };
    assert!(matches!(round, Err(RelayError::NotConfirmed)));
    assert_eq!(world.waiting().await, 1);
    world.relay.round().await.expect("published");
    assert_eq!(world.waiting().await, 0);
}

#[tokio::test]
async fn only_confirmed_events_leave_and_the_others_come_first_next_time() {
    use PublishOutcome::{Confirmed, Refused, Returned};

    let mut world = World::new(4).await;
    world.fault(Fault::Judged(vec![Confirmed, Returned, Refused, Confirmed]));
    let error = world.relay.round().await.expect_err("two were not taken");
    assert!(matches!(error, RelayError::NotTaken { returned: 1, refused: 1 }), "{error}");
    assert_eq!(world.waiting().await, 2);
    world.relay.round().await.expect("published");
    assert_eq!(world.delivered().await, world.ids(&[0, 3, 1, 2]), "older ones are not passed over");
}

#[tokio::test]
async fn what_is_published_is_settled_and_stays_sold() {
    let mut world = World::new(3).await;
    let sold = async |world: &World| world.bench.ledger.stock(&[item("widget")], 10).await.expect("answered")[0].sold;
    assert_eq!(sold(&world).await, 3);
    world.relay.round().await.expect("published");
    assert_eq!(sold(&world).await, 3, "sold = settled + outbox");
}

#[tokio::test]
async fn it_is_woken_by_a_commit_and_ends_when_told() {
    let World { bench, broker, relay, committed, .. } = World::new(0).await;
    let stop = CancellationToken::new();
    let running = bench.env();
    let (ended, end) = tokio::sync::oneshot::channel();
    let run = relay.run(stop.clone());
    running.start(Box::pin(async move {
        run.await;
        let _ = ended.send(());
    }));
    let lease = bench.lease(&item("gadget"), 10).await;
    let order = bench.order(&lease);
    bench.sell(&order).await;
    // The clock stands still: only the wake-up can make it publish.
    committed.notify_one();
    broker.declare(&queues::order_created()).await.expect("declared");
    let mut consumer = broker.consume(ORDER_CREATED, 1).await.expect("declared");
    let delivery = consumer.next(1).await.expect("delivered").remove(0);
    assert_eq!(delivery.message.id, order.id.to_string());
    stop.cancel();
    end.await.expect("it ended");
}
