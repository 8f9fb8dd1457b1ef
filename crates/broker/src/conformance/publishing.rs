//! Confirms, returns, refusals, bounds.

use std::{collections::BTreeMap, time::Duration};

use super::{Bench, Fixture, LOOK_AGAIN_MS, all, ids};
use crate::{
    BODY_BYTES_MAX, HEADERS_BYTES_MAX, ID_BYTES_MAX, Message, PUBLISH_BATCH_MAX, PublishOutcome, QUEUE_NAME_BYTES_MAX,
    QueueSpec, Settlement,
};

/// How far past its bound a queue may be filled; some servers bound softly.
const LENGTH_SLACK_MAX: u64 = 50;

/// Over several batches.
pub async fn confirmed_messages_arrive_in_order_with_headers_and_body(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let with = |id: &str, body: Vec<u8>, headers| Message { body, headers, ..bench.message(id) };
    let sent = [
        with("z", (0..=255).collect(), pairs(&[("traceparent", "00-4bf9-01"), ("tracestate", "a=1,b=\"2\"")])),
        with("a", Vec::new(), pairs(&[])),
        with("ü\"'", "{\"item\":\"Käse\"}".into(), pairs(&[("name", "Ünïcode\n"), ("empty", "")])),
        with("m", vec![0; BODY_BYTES_MAX], pairs(&[("long", &"x".repeat(1_000))])),
    ];
    for batch in sent.chunks(2) {
        let outcomes = bench.broker.publish(batch).await.expect("published");
        assert_eq!(outcomes, [PublishOutcome::Confirmed; 2]);
    }
    let mut consumer = bench.consume(10).await;
    for (expected, delivery) in sent.iter().zip(bench.take(&mut consumer, sent.len()).await) {
        assert_eq!((expected, 0), (&delivery.message, delivery.earlier_deliveries));
    }
}

/// In one batch.
pub async fn unroutable_messages_are_returned_and_the_others_confirmed(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let lost = |id: &str| Message { routing_key: format!("nobody-{}", bench.queue.name), ..bench.message(id) };
    let batch = [lost("1"), bench.message("2"), lost("3"), bench.message("4"), lost("5")];
    let outcomes = bench.broker.publish(&batch).await.expect("published");
    let (returned, confirmed) = (PublishOutcome::Returned, PublishOutcome::Confirmed);
    assert_eq!(outcomes, [returned, confirmed, returned, confirmed, returned]);
    let mut consumer = bench.consume(10).await;
    assert_eq!(ids(&bench.take(&mut consumer, 2).await), ["2", "4"]);
    bench.expect_nothing_else(&mut consumer).await;
    assert_eq!(bench.broker.publish(&[]).await.expect("an empty batch is none"), []);
}

/// What was refused is not there.
pub async fn a_full_queue_refuses_and_takes_again_after_a_settle(fixture: &dyn Fixture) {
    let bench = Bench::with(fixture, 5, 100).await;
    let mut consumer = bench.consume(2).await;
    bench.publish(&["1", "2", "3", "4", "5"]).await;
    let first = bench.take(&mut consumer, 2).await;
    let mut confirmed = 5;
    while publish_one(&bench).await == PublishOutcome::Confirmed {
        confirmed += 1;
        assert!(confirmed <= 5 + LENGTH_SLACK_MAX, "the queue never fills");
    }
    let depth = bench.broker.depth(&bench.queue.name).await.expect("depth");
    assert!((confirmed - 2..=confirmed).contains(&depth), "{depth} of {confirmed}, two of them in hand");

    consumer.settle(&all(&first, Settlement::Acknowledge)).await.expect("settled");
    for _ in 2..confirmed {
        let next = bench.take(&mut consumer, 1).await;
        consumer.settle(&all(&next, Settlement::Acknowledge)).await.expect("settled");
    }
    let room = async {
        while publish_one(&bench).await == PublishOutcome::Refused {
            bench.env.sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
    };
    bench.within(room).await;
}

async fn publish_one(bench: &Bench<'_>) -> PublishOutcome {
    let outcomes = bench.broker.publish(&[bench.message("more")]).await.expect("published");
    assert_eq!(outcomes.len(), 1);
    assert_ne!(outcomes[0], PublishOutcome::Returned);
    outcomes[0]
}

/// A broker does not guess that two messages are one: whoever reads does.
pub async fn messages_with_the_same_id_are_both_delivered(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["same", "same"]).await;
    bench.publish(&["same"]).await;
    let mut consumer = bench.consume(10).await;
    assert_eq!(ids(&bench.take(&mut consumer, 3).await), ["same"; 3]);
    bench.expect_nothing_else(&mut consumer).await;
}

/// Neither the message that is too big nor the good ones beside it. At the bounds all is well.
pub async fn past_the_bounds_nothing_of_a_batch_is_published(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let good = || bench.message("good");
    let headers = |bytes: usize| BTreeMap::from([("h".to_owned(), "x".repeat(bytes - 1))]);
    let big = [
        Message { body: vec![b'x'; BODY_BYTES_MAX + 1], ..good() },
        Message { headers: headers(HEADERS_BYTES_MAX + 1), ..good() },
        Message { id: "x".repeat(ID_BYTES_MAX + 1), ..good() },
        Message { routing_key: "x".repeat(ID_BYTES_MAX + 1), ..good() },
        Message { headers: [("x".repeat(ID_BYTES_MAX + 1), String::new())].into(), ..good() },
    ];
    for big in big {
        assert!(bench.broker.publish(&[good(), big, good()]).await.is_err());
    }
    assert!(bench.broker.publish(&vec![good(); PUBLISH_BATCH_MAX + 1]).await.is_err());

    let mut batch = vec![good(); PUBLISH_BATCH_MAX - 1];
    batch.push(Message {
        id: "x".repeat(ID_BYTES_MAX),
        body: vec![b'x'; BODY_BYTES_MAX],
        headers: headers(HEADERS_BYTES_MAX),
        ..good()
    });
    batch[0].headers = [("x".repeat(ID_BYTES_MAX), String::new())].into();
    let outcomes = bench.broker.publish(&batch).await.expect("published");
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; PUBLISH_BATCH_MAX]);
    bench.expect_depth(&bench.queue.name, PUBLISH_BATCH_MAX as u64).await;
}

/// The queue keeps its messages and works on.
pub async fn declaring_again_changes_nothing_and_other_values_are_an_error(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["1"]).await;
    bench.broker.declare(&bench.queue).await.expect("the same again");
    for other in [
        QueueSpec { length_max: bench.queue.length_max - 1, ..bench.queue.clone() },
        QueueSpec { redeliveries_max: bench.queue.redeliveries_max + 1, ..bench.queue.clone() },
    ] {
        assert!(bench.broker.declare(&other).await.is_err(), "{other:?}");
    }
    bench.broker.declare(&bench.queue).await.expect("the first values stand");
    bench.publish(&["2"]).await;
    let mut consumer = bench.consume(10).await;
    assert_eq!(ids(&bench.take(&mut consumer, 2).await), ["1", "2"]);
}

/// So that no name means two kinds of queue.
pub async fn names_of_dead_letter_queues_are_reserved(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let named = |name: String| QueueSpec { name, ..bench.queue.clone() };
    let dead = bench.queue.dead_letter_queue();
    for bad in [dead.clone(), format!("new-{dead}"), String::new(), "x".repeat(QUEUE_NAME_BYTES_MAX + 1)] {
        assert!(bench.broker.declare(&named(bad.clone())).await.is_err(), "{bad}");
    }
    assert!(bench.broker.depth(&format!("{dead}.dead")).await.is_err());
    assert!(bench.broker.depth(&format!("new-{dead}")).await.is_err());
    let longest = format!("{:x<1$}", bench.queue.name, QUEUE_NAME_BYTES_MAX);
    bench.broker.declare(&named(longest.clone())).await.expect("declared");
    bench.expect_depth(&named(longest).dead_letter_queue(), 0).await;
}

/// To the message; those in hand may count, those settled for good do not.
pub async fn depth_counts_what_waits(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.expect_depth(&bench.queue.name, 0).await;
    bench.publish(&["1", "2", "3", "4"]).await;
    bench.expect_depth(&bench.queue.name, 4).await;
    let mut consumer = bench.consume(2).await;
    let taken = bench.take(&mut consumer, 2).await;
    let depth = bench.broker.depth(&bench.queue.name).await.expect("depth");
    assert!((2..=4).contains(&depth), "{depth}");
    let [first, second] = [taken[0].tag, taken[1].tag];
    consumer.settle(&[(first, Settlement::Acknowledge), (second, Settlement::Requeue)]).await.expect("settled");
    drop(consumer);
    bench.expect_depth(&bench.queue.name, 3).await;
}
