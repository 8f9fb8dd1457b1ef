//! Order, prefetch, sharing, waiting.

use std::{
    collections::{BTreeSet, HashSet},
    future::poll_fn,
    pin::pin,
    sync::Mutex,
    task::Poll,
    time::Duration,
};

use super::{Bench, Fixture, IDLE_MS, all, ids};
use crate::{Delivery, Settlement};

/// A `next` is cut off after one to this many polls, over and over.
const POLLS_MAX: usize = 6;

/// For reading and for counting; and a consumer that may hold nothing is one, too.
pub async fn unknown_queues_are_an_error(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let unknown = format!("unknown-{}", bench.queue.name);
    assert!(bench.broker.consume(&unknown, 1).await.is_err());
    assert!(bench.broker.depth(&unknown).await.is_err());
    assert!(bench.broker.consume(&bench.queue.name, 0).await.is_err());
    bench.publish(&["1"]).await;
    let mut consumer = bench.consume(1).await;
    assert_eq!(ids(&bench.take(&mut consumer, 1).await), ["1"], "the broker works on");
}

/// It is asked before there is one.
pub async fn next_waits_for_a_message(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let mut consumer = bench.consume(1).await;
    for id in ["1", "2", "3"] {
        let (delivery, ()) = bench.take_while(&mut consumer, bench.publish(&[id])).await;
        assert_eq!(delivery.message.id, id);
        consumer.settle(&[(delivery.tag, Settlement::Acknowledge)]).await.expect("settled");
    }
}

/// The rest stays for later, in order.
pub async fn next_returns_at_most_what_was_asked_for(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["1", "2", "3", "4", "5"]).await;
    let mut consumer = bench.consume(10).await;
    let mut seen = Vec::new();
    for max in [1, 3, 2].into_iter().cycle() {
        if seen.len() == 5 {
            break;
        }
        let next = bench.within(consumer.next(max)).await.expect("delivered");
        assert!((1..=max).contains(&next.len()), "{} for {max}", next.len());
        seen.extend(next);
    }
    assert_eq!(ids(&seen), ["1", "2", "3", "4", "5"]);
}

/// However much is asked for. Settling makes room; without room, asking is an error.
pub async fn prefetch_bounds_what_is_unsettled(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    bench.publish(&["1", "2", "3", "4", "5"]).await;
    let mut consumer = bench.consume(3).await;
    let mut unsettled = Vec::new();
    while unsettled.len() < 3 {
        unsettled.extend(bench.within(consumer.next(5)).await.expect("delivered"));
    }
    assert_eq!(ids(&unsettled), ["1", "2", "3"]);
    assert!(bench.within(consumer.next(5)).await.is_err(), "a fourth one is unsettled");
    consumer.settle(&[(unsettled[1].tag, Settlement::Acknowledge)]).await.expect("settled");
    assert_eq!(ids(&bench.within(consumer.next(5)).await.expect("delivered")), ["4"]);
    assert!(bench.within(consumer.next(5)).await.is_err());
    consumer.settle(&all(&unsettled[..1], Settlement::Acknowledge)).await.expect("settled");
    assert!(bench.within(consumer.next(0)).await.is_err(), "none was asked for");
    assert_eq!(ids(&bench.within(consumer.next(1)).await.expect("delivered")), ["5"]);
}

/// The second comes when the first holds what its prefetch allows, and gets the rest.
pub async fn two_consumers_share_without_duplicates(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let sent: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    bench.publish(&sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut one = bench.consume(4).await;
    let of_one = bench.take(&mut one, 4).await;
    let mut two = bench.consume(4).await;
    let of_two = bench.take(&mut two, 4).await;
    let seen: BTreeSet<&str> = ids(&of_one).into_iter().chain(ids(&of_two)).collect();
    assert_eq!(seen, sent.iter().map(String::as_str).collect());
    assert!(of_one.iter().chain(&of_two).all(|delivery| delivery.earlier_deliveries == 0));
}

/// Cut off at every moment, while it waits and while a message is on its way; and then nothing is delivered twice either.
pub async fn a_cancelled_next_loses_nothing(fixture: &dyn Fixture) {
    const MESSAGES: usize = 60;
    let bench = Bench::new(fixture).await;
    let mut consumer = bench.consume(100).await;
    let mut seen = Vec::new();
    let mut cuts = 0;
    for round in 0..MESSAGES {
        let id = round.to_string();
        let next = cut_off(consumer.next(3), round % POLLS_MAX + 1);
        let message = [id.as_str()];
        let (next, ()) = bench.within(futures::future::join(next, bench.publish(&message))).await;
        match next {
            Some(next) => seen.extend(next.expect("delivered")),
            None => cuts += 1,
        }
    }
    assert!(cuts > 0, "no call was cut off: this check shows nothing");
    let left = MESSAGES - seen.len();
    seen.extend(bench.take(&mut consumer, left).await);
    let expected: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
    assert_eq!(ids(&seen), expected);
    assert!(seen.iter().all(|delivery| delivery.earlier_deliveries == 0));
    let tags: HashSet<u64> = seen.iter().map(|delivery| delivery.tag).collect();
    assert_eq!(tags.len(), MESSAGES);
    consumer.settle(&all(&seen, Settlement::Acknowledge)).await.expect("settled");

    // Cut off when there is nothing: the next one still wakes.
    assert!(cut_off(consumer.next(1), 1).await.is_none());
    bench.expect_nothing_else(&mut consumer).await;
}

/// Consumers that take, settle this way and that, stop waiting, and go, while messages are published.
pub async fn many_at_once_have_no_message_twice_and_lose_none(fixture: &dyn Fixture) {
    const MESSAGES: usize = 300;
    let bench = Bench::new(fixture).await;
    let (in_hand, handled) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    let reader = async || {
        let mut consumer = bench.consume(20).await;
        let mut round = 0;
        while handled.lock().expect("not poisoned").len() < MESSAGES {
            let Ok(next) = bench.env.timeout(Duration::from_millis(IDLE_MS), consumer.next(7)).await else { continue };
            let next = next.expect("delivered");
            for delivery in &next {
                let fresh = in_hand.lock().expect("not poisoned").insert(delivery.message.id.clone());
                assert!(fresh, "{} is in two hands", delivery.message.id);
            }
            bench.env.sleep(Duration::from_millis(1)).await;
            for delivery in &next {
                in_hand.lock().expect("not poisoned").remove(&delivery.message.id);
            }
            round += 1;
            if round % 10 == 0 {
                consumer = bench.consume(20).await;
                continue;
            }
            let judge = |delivery: &Delivery| {
                let again = delivery.tag.is_multiple_of(5);
                (delivery.tag, if again { Settlement::Requeue } else { Settlement::Acknowledge })
            };
            let settlements: Vec<_> = next.iter().map(judge).collect();
            consumer.settle(&settlements).await.expect("settled");
            for (delivery, (_, settlement)) in next.iter().zip(settlements) {
                if settlement == Settlement::Acknowledge {
                    let fresh = handled.lock().expect("not poisoned").insert(delivery.message.id.clone());
                    assert!(fresh, "{} came back after it was acknowledged", delivery.message.id);
                }
            }
        }
    };
    let writer = async {
        for n in 0..MESSAGES {
            bench.publish(&[&n.to_string()]).await;
        }
    };
    bench.within(async { futures::join!(writer, reader(), reader(), reader()) }).await;
    bench.expect_depth(&bench.queue.name, 0).await;
    bench.expect_depth(&bench.queue.dead_letter_queue(), 0).await;
}

/// What comes of `work`, unless it is still not done when it was polled this often; then it is dropped.
async fn cut_off<T>(work: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if polled >= polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
