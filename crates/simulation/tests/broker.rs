//! The simulated broker: the suite of the port, all of it, and what can befall it. A restart of the suite is here the
//! server going down and up: it has no process and no disk that could lose anything, so what the suite says of those
//! shows only that nothing else is lost.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use broker::{
    Broker, Consumer, Delivery, Message, PublishOutcome, QueueSpec,
    Settlement::{Acknowledge, DeadLetter, Requeue},
    conformance::Fixture,
};
use futures::FutureExt;
use service::environment::{Env, RealEnvironment};
use simulation::broker::{Publishing, Server, SimBroker};
use tokio_util::task::TaskTracker;

broker::broker_conformance!(Simulated::new());

struct Simulated {
    server: Arc<Server>,
}

impl Simulated {
    fn new() -> Self {
        Self { server: Server::new() }
    }
}

fn connected(server: &Arc<Server>, fates: &'static [Publishing]) -> Arc<SimBroker> {
    let published = AtomicUsize::new(0);
    let hook =
        move |_: &Message| fates.get(published.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Publishing::Pass);
    // Gives the others a turn, as any real one does.
    SimBroker::new(Arc::clone(server), Arc::new(|_| tokio::task::yield_now().boxed()), Arc::new(hook))
}

#[async_trait]
impl Fixture for Simulated {
    fn env(&self) -> Env {
        Arc::new(RealEnvironment::new(TaskTracker::new()))
    }

    async fn broker(&self) -> Arc<dyn Broker> {
        connected(&self.server, &[])
    }

    async fn restart(&self) {
        self.server.down();
        self.server.up();
    }
}

fn queue() -> QueueSpec {
    QueueSpec { name: "q".into(), length_max: 10, redeliveries_max: 5 }
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), routing_key: "q".into(), body: b"body".into(), headers: [].into() }
}

fn ids(deliveries: &[Delivery]) -> Vec<(&str, u32)> {
    deliveries.iter().map(|delivery| (delivery.message.id.as_str(), delivery.earlier_deliveries)).collect()
}

fn stored(server: &Server) -> Vec<String> {
    server.messages("q").expect("it is there").into_iter().map(|message| message.id).collect()
}

/// A server with the queue, and a process whose next messages meet these fates.
async fn with(fates: &'static [Publishing]) -> (Arc<Server>, Arc<SimBroker>) {
    let server = Server::new();
    let broker = connected(&server, fates);
    broker.declare(&queue()).await.expect("declared");
    (server, broker)
}

async fn consume(broker: &SimBroker) -> Box<dyn Consumer> {
    broker.consume("q", 10).await.expect("consuming")
}

#[tokio::test]
async fn a_lost_connection_leaves_a_batch_half_stored_and_the_next_one_works() {
    let batch = [message("1"), message("2"), message("3")];
    for (fates, left) in [
        (&[Publishing::Pass, Publishing::LoseBefore], vec!["1"]),
        (&[Publishing::Pass, Publishing::LoseConfirm], vec!["1", "2"]),
    ] {
        let (server, broker) = with(fates).await;
        broker.publish(&batch).await.expect_err("lost");
        assert_eq!(stored(&server), left);
        assert_eq!(broker.publish(&batch).await.expect("connected anew"), [PublishOutcome::Confirmed; 3]);
    }
}

#[tokio::test]
async fn messages_are_refused_or_stored_twice_as_the_hook_says() {
    let (server, broker) = with(&[Publishing::Refuse, Publishing::Twice]).await;
    let outcomes = broker.publish(&[message("1"), message("2")]).await.expect("published");
    assert_eq!(outcomes, [PublishOutcome::Refused, PublishOutcome::Confirmed]);
    assert_eq!(stored(&server), ["2", "2"]);
}

#[tokio::test]
async fn without_its_queue_a_message_is_returned_and_its_consumer_ends() {
    let (server, broker) = with(&[]).await;
    let mut consumer = consume(&broker).await;
    let (next, ()) = futures::join!(consumer.next(1), async { server.delete_queue("q") });
    next.expect_err("there is no queue");
    assert_eq!(broker.publish(&[message("1")]).await.expect("published"), [PublishOutcome::Returned]);
    broker.declare(&queue()).await.expect("declared anew");
    consumer.next(1).await.expect_err("it was of the queue that was");
    assert_eq!(broker.publish(&[message("1")]).await.expect("published"), [PublishOutcome::Confirmed]);
}

#[tokio::test]
async fn while_it_is_down_everything_is_an_error_and_then_all_is_there_again() {
    let (server, broker) = with(&[]).await;
    broker.publish(&[message("1")]).await.expect("published");
    let mut consumer = consume(&broker).await;
    let taken = consumer.next(1).await.expect("delivered");
    server.down();
    broker.publish(&[message("2")]).await.expect_err("down");
    broker.declare(&queue()).await.expect_err("down");
    broker.depth("q").await.expect_err("down");
    assert!(broker.consume("q", 1).await.is_err());
    consumer.settle(&[(taken[0].tag, Acknowledge)]).await.expect_err("its connection is gone");
    server.up();
    consumer.next(1).await.expect_err("and stays so");
    let again = consume(&broker).await.next(10).await.expect("delivered");
    assert_eq!(ids(&again), [("1", 1)]);
}

#[tokio::test]
async fn a_cut_connection_gives_back_what_it_had_and_no_other_s() {
    let (server, one) = with(&[]).await;
    let two = connected(&server, &[]);
    one.publish(&[message("1"), message("2")]).await.expect("published");
    let (mut of_one, mut of_two) = (consume(&one).await, consume(&two).await);
    assert_eq!(ids(&of_one.next(1).await.expect("delivered")), [("1", 0)]);
    let taken = of_two.next(1).await.expect("delivered");
    one.cut();
    of_one.next(1).await.expect_err("cut");
    of_two.settle(&[(taken[0].tag, Acknowledge)]).await.expect("settled");
    let again = of_two.next(10).await.expect("delivered");
    assert_eq!(ids(&again), [("1", 1)]);
    drop(of_one);
    of_two.settle(&[(again[0].tag, Acknowledge)]).await.expect("the old consumer's end took nothing back");
    assert_eq!(stored(&server).len(), 0);
}

#[tokio::test]
async fn a_publish_whose_connection_is_cut_before_the_confirm_is_in_doubt() {
    let (server, broker) = with(&[]).await;
    let messages = [message("1")];
    let cut = async {
        while stored(&server).is_empty() {
            tokio::task::yield_now().await;
        }
        broker.cut();
    };
    let (published, ()) = futures::join!(broker.publish(&messages), cut);
    published.expect_err("in doubt");
    assert_eq!(stored(&server), ["1"]);
}

#[tokio::test]
async fn a_requeued_message_is_back_at_its_old_place_and_dead_letters_are_kept_over_a_lost_queue() {
    let (server, broker) = with(&[]).await;
    broker.publish(&[message("1"), message("2"), message("3")]).await.expect("published");
    let mut consumer = consume(&broker).await;
    let taken = consumer.next(2).await.expect("delivered");
    consumer.settle(&[(taken[0].tag, Requeue), (taken[1].tag, DeadLetter)]).await.expect("settled");
    assert_eq!(ids(&consumer.next(10).await.expect("delivered")), [("1", 1), ("3", 0)]);
    server.delete_queue("q");
    assert_eq!(server.messages("q.dead").expect("it is there").len(), 1);
    drop(consumer);
    let waited = tokio::time::timeout(Duration::from_secs(5), broker.declare(&queue())).await;
    waited.expect("at once").expect("declared");
}
