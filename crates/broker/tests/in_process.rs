//! The in-process broker: the suite of its port, and what the suite leaves open.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use broker::{
    Broker, Consumer, Delivery, Message, PublishOutcome, QueueSpec,
    Settlement::{Acknowledge, DeadLetter, Requeue},
    conformance::Fixture,
    in_process::InProcessBroker,
};
use futures::FutureExt;
use service::environment::{Env, RealEnvironment};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

broker::broker_conformance!(InProcess::start().await);

/// Longest wait for anything that must happen.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// A broker in a folder of its own.
struct InProcess {
    folder: TempDir,
    life: Mutex<(u32, Arc<InProcessBroker>)>,
    env: Env,
}

impl InProcess {
    async fn start() -> Self {
        let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
        let folder = tempfile::tempdir().expect("a folder");
        let broker = InProcessBroker::open(&folder.path().join("0.db"), env.clone()).await.expect("opened");
        Self { folder, life: Mutex::new((0, broker)), env }
    }

    fn file(&self, life: u32, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{life}.db{suffix}"))
    }
}

#[async_trait]
impl Fixture for InProcess {
    fn env(&self) -> Env {
        self.env.clone()
    }

    async fn broker(&self) -> Arc<dyn Broker> {
        self.life.lock().expect("not poisoned").1.clone()
    }

    /// What a kill leaves is what the files hold at that moment: the next life starts on a copy of them, and whoever
    /// still has the old broker can tell it what they like.
    async fn restart(&self) {
        let life = self.life.lock().expect("not poisoned").0;
        for suffix in ["", "-wal"] {
            std::fs::copy(self.file(life, suffix), self.file(life + 1, suffix)).expect("copied");
        }
        let broker = InProcessBroker::open(&self.file(life + 1, ""), self.env.clone()).await.expect("opened");
        *self.life.lock().expect("not poisoned") = (life + 1, broker);
    }
}

fn queue(length_max: u32, redeliveries_max: u32) -> QueueSpec {
    QueueSpec { name: "q".into(), length_max, redeliveries_max }
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), routing_key: "q".into(), body: b"body".into(), headers: [].into() }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.message.id.as_str()).collect()
}

async fn start(queue: &QueueSpec) -> (InProcess, Arc<dyn Broker>) {
    let fixture = InProcess::start().await;
    let broker = fixture.broker().await;
    broker.declare(queue).await.expect("declared");
    (fixture, broker)
}

async fn publish(broker: &Arc<dyn Broker>, ids: &[&str]) {
    let messages: Vec<Message> = ids.iter().map(|id| message(id)).collect();
    let outcomes = broker.publish(&messages).await.expect("published");
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; ids.len()]);
}

async fn next(env: &Env, consumer: &mut Box<dyn Consumer>, max: usize) -> Vec<Delivery> {
    env.timeout(ARRIVAL_TIMEOUT, consumer.next(max)).await.expect("in time").expect("delivered")
}

#[tokio::test]
async fn a_full_queue_refuses_to_the_message_and_each_queue_for_itself() {
    let (_fixture, broker) = start(&queue(3, 5)).await;
    broker.declare(&QueueSpec { name: "other".into(), ..queue(3, 5) }).await.expect("declared");
    let other = |id| Message { routing_key: "other".into(), ..message(id) };
    let batch = [message("1"), message("2"), other("3"), message("4"), message("5"), other("6")];
    let outcomes = broker.publish(&batch).await.expect("published");
    let (confirmed, refused) = (PublishOutcome::Confirmed, PublishOutcome::Refused);
    assert_eq!(outcomes, [confirmed, confirmed, confirmed, confirmed, refused, confirmed]);
    assert_eq!(broker.depth("q").await.expect("depth"), 3);
    assert_eq!(broker.depth("other").await.expect("depth"), 2);
}

#[tokio::test]
async fn declaring_with_other_values_says_so() {
    let (_fixture, broker) = start(&queue(3, 5)).await;
    let error = broker.declare(&queue(4, 5)).await.expect_err("other values").to_string();
    assert!(error.contains("declared with other values: length_max 3"), "{error}");
}

#[tokio::test]
async fn a_requeued_message_is_back_at_its_old_place() {
    let (fixture, broker) = start(&queue(10, 5)).await;
    publish(&broker, &["1", "2", "3", "4"]).await;
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    let taken = next(&fixture.env, &mut consumer, 3).await;
    consumer.settle(&[(taken[1].tag, Requeue)]).await.expect("settled");
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 10).await), ["2", "4"]);
}

#[tokio::test]
async fn a_crash_counts_as_a_delivery_so_that_poison_ends() {
    let (fixture, broker) = start(&queue(10, 1)).await;
    publish(&broker, &["poison"]).await;
    for earlier_deliveries in [0, 1] {
        let mut consumer = fixture.broker().await.consume("q", 10).await.expect("consuming");
        let taken = next(&fixture.env, &mut consumer, 1).await;
        assert_eq!((ids(&taken), taken[0].earlier_deliveries), (vec!["poison"], earlier_deliveries));
        fixture.restart().await;
    }
    let broker = fixture.broker().await;
    publish(&broker, &["good"]).await;
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 10).await), ["good"]);
    let mut dead = broker.consume("q.dead", 10).await.expect("consuming");
    assert_eq!(ids(&next(&fixture.env, &mut dead, 10).await), ["poison"]);
}

#[tokio::test]
async fn a_dead_letter_without_room_waits_undelivered_also_over_a_restart() {
    let (fixture, broker) = start(&queue(2, 5)).await;
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    for pair in [["1", "2"], ["3", "4"]] {
        publish(&broker, &pair).await;
        let taken = next(&fixture.env, &mut consumer, 10).await;
        assert_eq!(ids(&taken), pair);
        let both = [(taken[0].tag, DeadLetter), (taken[1].tag, DeadLetter)];
        consumer.settle(&both).await.expect("settled");
    }
    fixture.restart().await;
    let broker = fixture.broker().await;
    let depths = async || (broker.depth("q").await.expect("depth"), broker.depth("q.dead").await.expect("depth"));
    assert_eq!(depths().await, (2, 2));
    let refused = broker.publish(&[message("5")]).await.expect("published");
    assert_eq!(refused, [PublishOutcome::Refused], "who waits counts in the queue's length");

    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    let mut dead = broker.consume("q.dead", 10).await.expect("consuming");
    let taken = next(&fixture.env, &mut dead, 10).await;
    assert_eq!(ids(&taken), ["1", "2"]);
    dead.settle(&[(taken[0].tag, Acknowledge)]).await.expect("settled");
    assert_eq!(depths().await, (1, 2), "the room is used at once");
    assert_eq!(ids(&next(&fixture.env, &mut dead, 10).await), ["3"]);
    publish(&broker, &["5"]).await;
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 10).await), ["5"], "4 is delivered to nobody");
}

#[tokio::test]
async fn what_was_begun_is_finished_when_the_caller_stops_waiting() {
    let (fixture, broker) = start(&queue(10, 5)).await;
    let messages = [message("1"), message("2")];
    assert!(broker.publish(&messages).now_or_never().is_none(), "under way");
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    let taken = next(&fixture.env, &mut consumer, 2).await;
    assert_eq!(ids(&taken), ["1", "2"]);
    let settlements = [(taken[0].tag, Acknowledge), (taken[1].tag, Requeue)];
    assert!(consumer.settle(&settlements).now_or_never().is_none(), "under way");
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 10).await), ["2"]);
    assert_eq!(broker.depth("q").await.expect("depth"), 1);
}

#[tokio::test]
async fn a_take_that_outlives_its_consumer_gives_back() {
    let (fixture, broker) = start(&queue(10, 5)).await;
    publish(&broker, &["1"]).await;
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    assert!(consumer.next(1).now_or_never().is_none(), "under way");
    drop(consumer);
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 1).await), ["1"]);
}

#[tokio::test]
async fn what_a_cancelled_next_left_over_comes_as_it_is_asked_for() {
    let (fixture, broker) = start(&queue(10, 5)).await;
    publish(&broker, &["1", "2", "3", "4"]).await;
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    assert!(consumer.next(3).now_or_never().is_none(), "under way");
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 1).await), ["1"]);
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 10).await), ["2", "3"]);
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 10).await), ["4"]);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn dead_letters_that_nobody_asked_for_or_without_room_are_logged_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let lines = |text: &str| {
        let log = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        log.lines().filter(|line| line.contains(text)).count()
    };
    let (fixture, broker) = start(&queue(2, 0)).await;
    let mut consumer = broker.consume("q", 10).await.expect("consuming");
    publish(&broker, &["1", "2"]).await;
    let taken = next(&fixture.env, &mut consumer, 10).await;
    consumer.settle(&[(taken[0].tag, DeadLetter), (taken[1].tag, Requeue)]).await.expect("settled");
    assert_eq!((lines("redeliveries are used up"), lines("message_id=\"2\"")), (1, 1));
    assert_eq!(lines("is full"), 0);

    publish(&broker, &["3", "4"]).await;
    let taken = next(&fixture.env, &mut consumer, 1).await;
    consumer.settle(&[(taken[0].tag, DeadLetter)]).await.expect("settled");
    assert_eq!(lines("the dead-letter queue is full"), 1);
    let taken = next(&fixture.env, &mut consumer, 1).await;
    consumer.settle(&[(taken[0].tag, Acknowledge)]).await.expect("settled");
    publish(&broker, &["5"]).await;
    assert_eq!(ids(&next(&fixture.env, &mut consumer, 1).await), ["5"]);
    assert_eq!((lines("is full"), lines("WARN")), (1, 2));
}
