//! While the server works.

use std::collections::BTreeSet;

use broker::{
    BODY_BYTES_MAX, Broker, Delivery, Message, PUBLISH_BATCH_MAX, PublishOutcome, QueueSpec,
    rabbitmq::RabbitMqBroker,
    replay::{Replayed, replay},
};
use futures::FutureExt;
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use servers::RabbitMq;

use super::bench::{Bench, message};

/// lapin gives a return to whichever confirm comes next: of 4,000 messages some would count as confirmed and be nowhere.
#[tokio::test]
async fn every_return_of_a_large_batch_is_its_own_messages() {
    let bench = Bench::of(RabbitMq::shared().await).await;
    let is_lost = |n: usize| n.is_multiple_of(7) || n % 50 < 3;
    let mut kept = 0;
    for round in 0..8 {
        let batch: Vec<Message> = (0..PUBLISH_BATCH_MAX)
            .map(|n| {
                // Each id twice: where one of the two is lost, the other is not.
                let mut message = message(&format!("{round}-{}", n / 2));
                if is_lost(n) {
                    message.routing_key = format!("nobody-{n}");
                }
                message
            })
            .collect();
        let outcomes = bench.broker.publish(&batch).await.expect("published");
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let expected = if is_lost(n) { PublishOutcome::Returned } else { PublishOutcome::Confirmed };
            assert_eq!(outcome, expected, "message {n} of batch {round}");
            kept += u64::from(outcome == PublishOutcome::Confirmed);
        }
    }
    bench.expect_depth("q", kept).await;
}

#[tokio::test]
async fn a_deleted_queue_returns_messages_and_ends_its_consumers_until_it_is_declared_again() {
    let bench = Bench::of(RabbitMq::shared().await).await;
    bench.publish(&["1"]).await;
    let mut consumer = bench.consume(500).await;
    bench.take(&mut consumer, 1).await;
    let (_connection, stranger) = bench.stranger().await;
    stranger.queue_delete("q".into(), QueueDeleteOptions::default()).await.expect("deleted");
    assert!(bench.within(consumer.next(1)).await.is_err());
    assert!(bench.within(consumer.next(1)).await.is_err(), "and that stays so");
    let lost = bench.broker.publish(&[message("2")]).await.expect("published");
    assert_eq!(lost, [PublishOutcome::Returned]);
    assert!(bench.broker.consume("q", 1).await.is_err());
    bench.broker.declare(&bench.queue).await.expect("declared");
    bench.publish(&["3"]).await;
    let mut consumer = bench.consume(500).await;
    assert_eq!(bench.take(&mut consumer, 1).await[0].message, message("3"));
}

#[tokio::test]
async fn what_strangers_publish_breaks_no_consumer() {
    let bench = Bench::of(RabbitMq::shared().await).await;
    let (_connection, stranger) = bench.stranger().await;
    let mut headers = FieldTable::default();
    headers.insert("number".into(), AMQPValue::LongInt(5));
    headers.insert("binary".into(), AMQPValue::LongString(vec![0xff].into()));
    headers.insert("text".into(), AMQPValue::LongString("ok".into()));
    let odd = BasicProperties::default().with_headers(headers);
    let published = [
        (BasicProperties::default().with_message_id("huge".into()), vec![0; 300_000]),
        (odd, vec![0xff, 0x00]),
        (BasicProperties::default().with_message_id("huge too".into()), vec![0; BODY_BYTES_MAX + 1]),
    ];
    for (properties, body) in published {
        let options = BasicPublishOptions::default();
        stranger.basic_publish("".into(), "q".into(), options, &body, properties).await.expect("sent");
    }
    bench.expect_depth("q", 3).await;
    bench.publish(&["good"]).await;
    let mut consumer = bench.consume(500).await;
    let taken = bench.take(&mut consumer, 2).await;
    let headers = [("text".to_owned(), "ok".to_owned())].into();
    let odd = Message { id: String::new(), routing_key: "q".into(), body: vec![0xff, 0x00], headers };
    assert_eq!((&taken[0].message, &taken[1].message), (&odd, &message("good")));

    bench.expect_depth("q.dead", 2).await;
    let replayed = replay(&bench.env, &*bench.broker, &bench.queue, 10).await.expect("replayed");
    assert_eq!(replayed, Replayed { moved: 0, left: 2 });
    let mut dead = bench.broker.consume("q.dead", 10).await.expect("consuming");
    let dead = bench.take(&mut dead, 2).await;
    assert_eq!((dead[0].message.id.as_str(), dead[0].message.body.len()), ("huge", 300_000));
    assert!(consumer.next(1).now_or_never().is_none(), "it waits");
}

#[tokio::test]
async fn two_instances_share_a_queue() {
    let bench = Bench::of(RabbitMq::shared().await).await;
    let other = RabbitMqBroker::new(&bench.url.parse().expect("a URL"), bench.env.clone());
    other.declare(&bench.queue).await.expect("as the other did");
    let mut consumers = [bench.consume(50).await, other.consume("q", 50).await.expect("consuming")];
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    bench.publish(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let [one, two] = &mut consumers;
    let (one, two) = futures::join!(bench.take(one, 20), bench.take(two, 20));
    let of = |deliveries: &[Delivery]| deliveries.iter().map(|d| d.message.id.clone()).collect::<BTreeSet<_>>();
    assert!(of(&one).is_disjoint(&of(&two)));
    drop(other);
    let [mut left, gone] = consumers;
    drop(gone);
    let rest = bench.take(&mut left, 60).await;
    let seen: BTreeSet<String> = of(&one).into_iter().chain(of(&two)).chain(of(&rest)).collect();
    assert_eq!(seen, names.into_iter().collect());
}

/// Whichever of the two it is that somebody else has made in another way.
#[tokio::test]
async fn a_refused_declaration_makes_neither_queue() {
    let bench = Bench::of(RabbitMq::shared().await).await;
    let (_connection, stranger) = bench.stranger().await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    stranger.queue_declare("r.dead".into(), options, FieldTable::default()).await.expect("declared");
    let spec = QueueSpec { name: "r".into(), ..bench.queue.clone() };
    let error = bench.broker.declare(&spec).await.expect_err("other values").to_string();
    assert!(error.contains("PRECONDITION_FAILED"), "{error}");
    assert!(bench.broker.depth("r").await.is_err());
    stranger.queue_delete("r.dead".into(), QueueDeleteOptions::default()).await.expect("deleted");

    let (_connection, stranger) = bench.stranger().await;
    stranger.queue_declare("r".into(), options, FieldTable::default()).await.expect("declared");
    bench.broker.declare(&spec).await.expect_err("other values");
    assert!(bench.broker.depth("r.dead").await.is_err());
    stranger.queue_delete("r".into(), QueueDeleteOptions::default()).await.expect("deleted");
    bench.broker.declare(&spec).await.expect("declared");
}
