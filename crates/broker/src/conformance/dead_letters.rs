//! Limits and rejections.

use super::{Bench, Fixture, all, ids};
use crate::{
    Message,
    Settlement::{Acknowledge, DeadLetter, Requeue},
};

/// Exactly past it, not earlier; and the others go on.
pub async fn requeued_past_the_limit_a_message_is_a_dead_letter(fixture: &dyn Fixture) {
    let bench = Bench::with(fixture, 100, 2).await;
    bench.publish(&["poison"]).await;
    let mut consumer = bench.consume(1).await;
    for earlier_deliveries in 0..=2 {
        let taken = bench.take(&mut consumer, 1).await;
        assert_eq!((ids(&taken), taken[0].earlier_deliveries), (vec!["poison"], earlier_deliveries));
        consumer.settle(&all(&taken, Requeue)).await.expect("settled");
    }
    expect_dead_letter(&bench, "poison").await;
    bench.expect_depth(&bench.queue.name, 0).await;
    bench.expect_nothing_else(&mut consumer).await;
}

/// Nobody rejects it: those who read it die.
pub async fn a_message_that_outlives_its_consumers_is_a_dead_letter(fixture: &dyn Fixture) {
    let bench = Bench::with(fixture, 100, 2).await;
    bench.publish(&["poison"]).await;
    for earlier_deliveries in 0..=2 {
        let mut consumer = bench.consume(1).await;
        let taken = bench.take(&mut consumer, 1).await;
        assert_eq!((ids(&taken), taken[0].earlier_deliveries), (vec!["poison"], earlier_deliveries));
    }
    let mut consumer = bench.consume(1).await;
    bench.expect_nothing_else(&mut consumer).await;
    expect_dead_letter(&bench, "poison").await;
}

/// At its first delivery; who waits for dead letters is woken, and a restart keeps them.
pub async fn a_rejected_message_is_a_dead_letter_at_once(fixture: &dyn Fixture) {
    let mut bench = Bench::new(fixture).await;
    bench.publish(&["bad", "good"]).await;
    let mut consumer = bench.consume(1).await;
    let taken = bench.take(&mut consumer, 1).await;
    let mut dead = bench.consume_dead_letters().await;
    let rejected = all(&taken, DeadLetter);
    let (delivery, settled) = bench.take_while(&mut dead, consumer.settle(&rejected)).await;
    settled.expect("settled");
    assert_eq!(delivery.message.id, "bad");
    dead.settle(&[(delivery.tag, Requeue)]).await.expect("settled");
    drop(dead);
    assert_eq!(ids(&bench.take(&mut consumer, 1).await), ["good"]);
    bench.expect_depth(&bench.queue.dead_letter_queue(), 1).await;
    bench.restart().await;
    let taken = bench.take(&mut bench.consume_dead_letters().await, 1).await;
    assert_eq!(ids(&taken), ["bad"]);
}

/// So that replaying them by hand can fail as often as it likes.
pub async fn a_dead_letter_queue_has_no_limit_and_no_dead_letters(fixture: &dyn Fixture) {
    let bench = Bench::with(fixture, 100, 1).await;
    bench.publish(&["bad"]).await;
    let mut consumer = bench.consume(1).await;
    let taken = bench.take(&mut consumer, 1).await;
    consumer.settle(&all(&taken, DeadLetter)).await.expect("settled");
    let mut dead = bench.consume_dead_letters().await;
    for settlement in [Requeue, Requeue, Requeue, DeadLetter, DeadLetter, Acknowledge] {
        let taken = bench.take(&mut dead, 1).await;
        assert_eq!(ids(&taken), ["bad"]);
        dead.settle(&all(&taken, settlement)).await.expect("settled");
    }
    bench.expect_depth(&bench.queue.dead_letter_queue(), 0).await;
}

/// Those without room wait, and come when there is some.
pub async fn a_full_dead_letter_queue_loses_nothing(fixture: &dyn Fixture) {
    let bench = Bench::with(fixture, 2, 100).await;
    let mut consumer = bench.consume(2).await;
    for pair in [["1", "2"], ["3", "4"]] {
        bench.publish(&pair).await;
        let taken = bench.take(&mut consumer, 2).await;
        assert_eq!(ids(&taken), pair);
        consumer.settle(&all(&taken, DeadLetter)).await.expect("settled");
    }
    let mut dead = bench.consume_dead_letters().await;
    for expected in ["1", "2", "3", "4"] {
        let taken = bench.take(&mut dead, 1).await;
        assert_eq!(ids(&taken), [expected]);
        dead.settle(&all(&taken, Acknowledge)).await.expect("settled");
    }
    bench.expect_depth(&bench.queue.name, 0).await;
    bench.expect_depth(&bench.queue.dead_letter_queue(), 0).await;
    bench.expect_nothing_else(&mut consumer).await;
}

/// The message is the next dead letter, as it was; a server may have added headers.
async fn expect_dead_letter(bench: &Bench<'_>, id: &str) {
    let mut dead = bench.consume_dead_letters().await;
    let delivery = bench.take(&mut dead, 1).await.remove(0);
    let Message { id: sent_id, routing_key: _, body, headers } = bench.message(id);
    assert_eq!((delivery.message.id, delivery.message.body), (sent_id, body));
    assert_eq!(delivery.message.routing_key, bench.queue.dead_letter_queue());
    for (name, value) in headers {
        assert_eq!(delivery.message.headers.get(&name), Some(&value));
    }
    assert_eq!(delivery.earlier_deliveries, 0, "its new queue counts anew");
    dead.settle(&[(delivery.tag, Acknowledge)]).await.expect("settled");
}
