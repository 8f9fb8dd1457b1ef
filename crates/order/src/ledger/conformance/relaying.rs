//! Events wait, are taken and settled.

use std::time::Duration;

use contracts::{
    event::OrderCreated,
    values::{Lease, ReservationId},
};
use service::environment::Environment;

use super::{Bench, item, units};
use crate::ledger::{NewOrder, OutboxBatch};

async fn take(bench: &Bench, limit: u32) -> Box<dyn OutboxBatch> {
    bench.ledger.take_outbox(limit).await.expect("the ledger answers")
}

fn ids(batch: &dyn OutboxBatch) -> Vec<ReservationId> {
    batch.events().iter().map(|event| event.order_id).collect()
}

/// Sells orders in batches of three, and says which, oldest first.
async fn sell_many(bench: &Bench, lease: &Lease, count: usize) -> Vec<ReservationId> {
    let orders: Vec<NewOrder> = (0..count).map(|_| bench.order(lease)).collect();
    for batch in orders.chunks(3) {
        bench.commit(batch).await;
    }
    orders.iter().map(|order| order.id).collect()
}

/// The message as the consumer reads it, and the trace that it continues.
pub async fn an_order_s_event_is_read_back(bench: &Bench) {
    let lease = bench.lease(&item("日本 \"widget\"\\"), 100).await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let order = NewOrder { quantity: units(9), traceparent: traceparent.into(), ..bench.keyed_order(&lease, "k") };
    let untraced = bench.order(&lease);
    bench.commit(&[order.clone(), untraced]).await;
    let batch = take(bench, 10).await;
    let event = &batch.events()[0];
    assert_eq!((event.order_id, event.traceparent.as_str()), (order.id, traceparent));
    let expected =
        OrderCreated { id: order.id, stamp: order.stamp, quantity: order.quantity, created_at: order.created_at };
    assert_eq!(OrderCreated::from_json(&event.payload), Ok(expected));
    assert_eq!(batch.events()[1].traceparent, "");
}

/// In the order of their commits; what one has in hand no other gets.
pub async fn events_are_taken_oldest_first_and_by_one_relay(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 100).await;
    let sold = sell_many(bench, &lease, 7).await;
    let (first, second, third) = (take(bench, 3).await, take(bench, 3).await, take(bench, 3).await);
    assert_eq!([ids(&*first), ids(&*second), ids(&*third)].concat(), sold);
    assert!(take(bench, 3).await.events().is_empty());
    assert!(take(bench, 0).await.events().is_empty());
}

/// A relay that dies loses nothing.
pub async fn events_given_back_are_taken_again(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 100).await;
    let sold = sell_many(bench, &lease, 4).await;
    let held = take(bench, 2).await;
    drop(take(bench, 2).await);
    assert_eq!(ids(&*take(bench, 4).await), sold[2..]);
    drop(held);
    assert_eq!(ids(&*take(bench, 4).await), sold);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 4);
}

/// I8: the others wait on, and every order is in sold exactly once.
pub async fn only_published_events_are_settled(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 100).await;
    let sold = sell_many(bench, &lease, 4).await;
    let gadget = bench.order(&bench.lease(&item("gadget"), 10).await);
    bench.sell(&gadget).await;
    take(bench, 10).await.settle(&[true, false, true, false, true]).await.expect("answers");
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 2);
    let rest = take(bench, 10).await;
    assert_eq!(ids(&*rest), [sold[1], sold[3]]);
    rest.settle(&[false, false]).await.expect("answers");
    assert_eq!(ids(&*take(bench, 10).await), [sold[1], sold[3]]);
    assert_eq!(bench.stock(&item("widget")).await.sold, 4);
    assert_eq!(bench.stock(&item("gadget")).await.sold, 1);
    bench.settle_all().await;
    assert_eq!(bench.stock(&item("widget")).await.sold, 4);
    assert_eq!(bench.lease(&item("widget"), 10).await.sold, 4);
}

/// Never paged by "above the last one".
pub async fn an_event_given_back_late_is_not_skipped(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 100).await;
    let sold = sell_many(bench, &lease, 3).await;
    let slow = take(bench, 1).await;
    take(bench, 2).await.settle(&[true, true]).await.expect("answers");
    drop(slow);
    assert_eq!(ids(&*take(bench, 10).await), sold[..1]);
}

/// Whatever a second batch of the same event says.
pub async fn an_event_is_settled_once(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 100).await;
    let order = NewOrder { quantity: units(5), ..bench.order(&lease) };
    bench.sell(&order).await;
    for _ in 0..3 {
        let batch = take(bench, 10).await;
        let published = vec![true; batch.events().len()];
        batch.settle(&published).await.expect("answers");
    }
    assert_eq!(bench.stock(&item("widget")).await.sold, 5);
    // The order itself is there for ever, and its repeat makes no second event.
    bench.commit_one(&order).await;
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 0);
}

/// Those in hand count too: they are not published yet.
pub async fn the_backlog_is_counted_and_dated(bench: &Bench) {
    let empty = bench.ledger.outbox_backlog().await.expect("answers");
    assert_eq!((empty.events, empty.oldest), (0, None));
    let lease = bench.lease(&item("widget"), 100).await;
    let first = bench.clock.now();
    sell_many(bench, &lease, 1).await;
    bench.clock.advance(Duration::from_secs(1));
    let second = bench.clock.now();
    sell_many(bench, &lease, 2).await;
    let batch = take(bench, 1).await;
    let backlog = bench.ledger.outbox_backlog().await.expect("answers");
    assert_eq!((backlog.events, backlog.oldest), (3, Some(first)));
    batch.settle(&[true]).await.expect("answers");
    let backlog = bench.ledger.outbox_backlog().await.expect("answers");
    assert_eq!((backlog.events, backlog.oldest), (2, Some(second)));
}
