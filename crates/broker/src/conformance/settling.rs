//! Acknowledgements, redelivery, restarts.

use super::{Bench, Fixture, all, ids};
use crate::Settlement::{Acknowledge, DeadLetter, Requeue};

/// Also after the consumer went, and after a restart. That is said of those acknowledged before the last confirmed
/// publish: no server says when it has an acknowledgement on disk, but it writes in order.
pub async fn acknowledged_messages_are_gone(fixture: &dyn Fixture) {
    let mut bench = Bench::new(fixture).await;
    bench.publish(&["1", "2", "3"]).await;
    let mut consumer = bench.consume(10).await;
    let taken = bench.take(&mut consumer, 3).await;
    consumer.settle(&all(&taken, Acknowledge)).await.expect("settled");
    consumer.settle(&[]).await.expect("nothing to settle is no error");
    bench.expect_nothing_else(&mut consumer).await;
    drop(consumer);
    let mut consumer = bench.consume(10).await;
    bench.expect_nothing_else(&mut consumer).await;
    drop(consumer);
    bench.publish(&["4"]).await;
    bench.restart().await;
    let mut consumer = bench.consume(10).await;
    assert_eq!(ids(&bench.take(&mut consumer, 1).await), ["4"]);
    bench.expect_nothing_else(&mut consumer).await;
}

/// To the consumer that waits already and to one that comes later, each counted as delivered once more.
pub async fn a_dropped_consumer_gives_back_what_it_did_not_settle(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["1", "2", "3"]).await;
    let mut first = bench.consume(10).await;
    let taken = bench.take(&mut first, 3).await;
    first.settle(&all(&taken[1..2], Acknowledge)).await.expect("settled");
    let mut waiting = bench.consume(10).await;
    let (delivery, ()) = bench.take_while(&mut waiting, async { drop(first) }).await;
    let mut taken = vec![delivery];
    taken.extend(bench.take(&mut waiting, 1).await);
    assert_eq!(ids(&taken), ["1", "3"]);
    assert!(taken.iter().all(|delivery| delivery.earlier_deliveries == 1), "{taken:?}");
    drop(waiting);
    let mut third = bench.consume(10).await;
    let taken = bench.take(&mut third, 2).await;
    assert_eq!(ids(&taken), ["1", "3"]);
    assert!(taken.iter().all(|delivery| delivery.earlier_deliveries == 2), "{taken:?}");
    third.settle(&all(&taken, Acknowledge)).await.expect("settled");
    bench.expect_nothing_else(&mut third).await;
}

/// Delivered or not. The consumer that had it is still there when the broker dies, so it is the restart that gives back.
pub async fn a_restart_brings_back_what_was_not_acknowledged(fixture: &dyn Fixture) {
    let mut bench = Bench::new(fixture).await;
    bench.publish(&["1", "2", "3", "4"]).await;
    let mut consumer = bench.consume(3).await;
    let taken = bench.take(&mut consumer, 3).await;
    consumer.settle(&all(&taken[..1], Acknowledge)).await.expect("settled");
    bench.publish(&["5"]).await;
    bench.restart().await;
    let mut after = bench.consume(10).await;
    let mut taken = bench.take(&mut after, 4).await;
    // What was never delivered may come first: the rest is given back once it is noticed that their consumer is gone.
    let place = |id: &str| taken.iter().position(|delivery| delivery.message.id == id);
    assert!(place("2") < place("3"), "what it had comes in its order: {:?}", ids(&taken));
    taken.sort_by(|one, other| one.message.id.cmp(&other.message.id));
    assert_eq!(ids(&taken), ["2", "3", "4", "5"]);
    assert_eq!(taken[0].message, bench.message("2"));
    after.settle(&all(&taken, Acknowledge)).await.expect("settled");
    bench.broker.declare(&bench.queue).await.expect("declared as before");
    bench.expect_nothing_else(&mut after).await;
    drop(consumer);
}

/// From none on, one by one.
pub async fn requeued_messages_count_their_deliveries(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let mut consumer = bench.consume(1).await;
    bench.publish(&["1"]).await;
    for earlier_deliveries in 0..4 {
        let taken = bench.take(&mut consumer, 1).await;
        assert_eq!((&taken[0].message, taken[0].earlier_deliveries), (&bench.message("1"), earlier_deliveries));
        consumer.settle(&all(&taken, Requeue)).await.expect("settled");
    }
}

/// Each delivery gets what was said of it.
pub async fn settlements_differ_within_one_step(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["acknowledged", "requeued", "rejected", "untouched"]).await;
    let mut consumer = bench.consume(4).await;
    let taken = bench.take(&mut consumer, 4).await;
    let said = [(taken[2].tag, DeadLetter), (taken[0].tag, Acknowledge), (taken[1].tag, Requeue)];
    consumer.settle(&said).await.expect("settled");
    let again = bench.take(&mut consumer, 1).await;
    assert_eq!((ids(&again), again[0].earlier_deliveries), (vec!["requeued"], 1));
    consumer.settle(&all(&again, Acknowledge)).await.expect("settled");
    consumer.settle(&[(taken[3].tag, Acknowledge)]).await.expect("its tag stood");
    bench.expect_nothing_else(&mut consumer).await;
    let mut dead = bench.consume_dead_letters().await;
    assert_eq!(ids(&bench.take(&mut dead, 1).await), ["rejected"]);
}

/// Never given out, settled before, of another consumer, or named twice.
pub async fn an_unknown_tag_is_an_error_and_settles_none(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["1", "2"]).await;
    let mut consumer = bench.consume(2).await;
    let mut other = bench.consume(2).await;
    let taken = bench.take(&mut consumer, 2).await;
    let [one, two] = [taken[0].tag, taken[1].tag];
    assert!(consumer.settle(&[(one, Acknowledge), (one.max(two) + 1_000, Acknowledge)]).await.is_err());
    assert!(consumer.settle(&[(one, Acknowledge), (one, Requeue)]).await.is_err());
    assert!(other.settle(&[(one, Acknowledge)]).await.is_err());
    consumer.settle(&[(one, Acknowledge)]).await.expect("none of it was settled yet");
    assert!(consumer.settle(&[(two, Acknowledge), (one, Acknowledge)]).await.is_err());
    drop(other);
    consumer.settle(&[(two, Requeue)]).await.expect("not settled either");
    let again = bench.take(&mut consumer, 1).await;
    assert_eq!(ids(&again), ["2"]);
    assert!(consumer.settle(&[(two, Acknowledge)]).await.is_err(), "a new delivery has a new tag");
}
