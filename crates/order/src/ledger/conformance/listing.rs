//! Orders are read.

use std::time::Duration;

use contracts::values::{Epoch, Item, ReservationId, Timestamp};
use uuid::Uuid;

use super::{Bench, FINGERPRINT, item, request_key};
use crate::ledger::{KeyedOrder, ListQuery, NewOrder, Order, Verdict};

async fn page(bench: &Bench, item: Option<&Item>, after: Option<&Order>, limit: u32) -> Vec<Order> {
    let after = after.map(|order| (order.created_at, order.id));
    let query = ListQuery { item: item.cloned(), after, limit };
    bench.ledger.orders(&query).await.expect("the ledger answers")
}

/// Sells `count` orders, some at one moment, and says which they are, newest first.
async fn sell_many(bench: &Bench, name: &str, count: usize) -> Vec<(Timestamp, ReservationId)> {
    let lease = bench.lease(&item(name), 1000).await;
    let mut sold = Vec::new();
    for n in 0..count {
        let order = bench.order(&lease);
        bench.sell(&order).await;
        sold.push((order.created_at, order.id));
        if n % 3 == 0 {
            bench.clock.advance(Duration::from_micros(1));
        }
    }
    sold.sort_unstable_by(|a, b| b.cmp(a));
    sold
}

fn places(orders: &[Order]) -> Vec<(Timestamp, ReservationId)> {
    orders.iter().map(|order| (order.created_at, order.id)).collect()
}

/// With all they were made of.
pub async fn orders_are_found_by_id_and_key(bench: &Bench) {
    let order = bench.keyed_order(&bench.lease(&item("widget"), 10).await, "k");
    bench.sell(&order).await;
    let made = Order { id: order.id, item: item("widget"), quantity: order.quantity, created_at: order.created_at };
    assert_eq!(bench.ledger.order(order.id).await.expect("answers"), Some(made.clone()));
    let keyed = bench.ledger.order_by_key(&request_key("k")).await.expect("answers");
    assert_eq!(keyed, Some(KeyedOrder { order: made, fingerprint: FINGERPRINT }));
    assert_eq!(bench.ledger.order(bench.id()).await.expect("answers"), None);
    assert_eq!(bench.ledger.order_by_key(&request_key("K")).await.expect("answers"), None);
}

/// I12: what was only asked for is new afterwards.
pub async fn reads_write_nothing(bench: &Bench) {
    let (id, unknown) = (bench.id(), item("unknown"));
    assert_eq!(bench.ledger.order(id).await.expect("answers"), None);
    assert_eq!(bench.ledger.order_by_key(&request_key("k")).await.expect("answers"), None);
    assert_eq!(page(bench, Some(&unknown), None, 10).await, []);
    assert_eq!(bench.stock(&unknown).await.epoch, Epoch::NONE);
    assert_eq!(bench.resolve(id, None).await, Verdict::Unknown);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 0);
    let lease = bench.lease(&unknown, 3).await;
    assert_eq!((lease.epoch, lease.received), (Epoch(1), 3));
    bench.sell(&NewOrder { id, ..bench.keyed_order(&lease, "k") }).await;
}

/// Nor does it have a key.
pub async fn a_tombstone_is_no_order(bench: &Bench) {
    let order = bench.keyed_order(&bench.lease(&item("widget"), 10).await, "k");
    bench.resolve(order.id, Some(&order.stamp)).await;
    bench.commit_one(&order).await;
    assert_eq!(bench.ledger.order(order.id).await.expect("answers"), None);
    assert_eq!(bench.ledger.order_by_key(&request_key("k")).await.expect("answers"), None);
    assert_eq!(page(bench, None, None, 10).await, []);
}

/// By time, then by id.
pub async fn orders_are_listed_newest_first(bench: &Bench) {
    let sold = sell_many(bench, "widget", 20).await;
    assert_eq!(places(&page(bench, None, None, 500).await), sold);
    assert_eq!(places(&page(bench, None, None, 7).await), sold[..7]);
    assert_eq!(page(bench, None, None, 0).await, []);
}

/// Each order on one page, also when newer ones come in between.
pub async fn pages_are_whole_and_stable(bench: &Bench) {
    let sold = sell_many(bench, "widget", 20).await;
    let mut seen = Vec::new();
    let mut last = None;
    loop {
        let orders = page(bench, None, last.as_ref(), 3).await;
        let Some(end) = orders.last() else { break };
        seen.extend(places(&orders));
        last = Some(end.clone());
        sell_many(bench, "newer", 2).await;
    }
    assert_eq!(seen, sold);
}

/// A page's place comes from the client, who may name any.
pub async fn a_page_may_begin_at_any_moment(bench: &Bench) {
    let sold = sell_many(bench, "widget", 3).await;
    let (least, most) = (ReservationId(Uuid::nil()), ReservationId(Uuid::max()));
    for (time, expected) in [(i64::MAX, &sold[..]), (i64::MAX - 1, &sold), (i64::MIN, &[]), (0, &[])] {
        for id in [least, most] {
            for item in [None, Some(item("widget"))] {
                let query = ListQuery { item, after: Some((Timestamp(time), id)), limit: 10 };
                let orders = bench.ledger.orders(&query).await.expect("answers");
                assert_eq!(places(&orders), expected, "after {time} {id:?}");
            }
        }
    }
}

/// Page by page too.
pub async fn an_item_s_orders_are_listed_apart(bench: &Bench) {
    let widgets = sell_many(bench, "widget", 9).await;
    let gadgets = sell_many(bench, "gadget", 9).await;
    // The first page ends between orders of one moment.
    let first = page(bench, Some(&item("widget")), None, 4).await;
    let second = page(bench, Some(&item("widget")), first.last(), 5).await;
    assert_eq!(places(&first), widgets[..4]);
    assert_eq!(places(&second), widgets[4..]);
    assert_eq!(places(&page(bench, Some(&item("gadget")), None, 50).await), gadgets);
    assert_eq!(page(bench, Some(&item("unknown")), None, 50).await, []);
    assert_eq!(page(bench, None, None, 50).await.len(), 18);
}

/// Before and after it has work.
pub async fn the_ledger_answers_a_ping(bench: &Bench) {
    bench.ledger.ping().await.expect("answers");
    sell_many(bench, "widget", 1).await;
    bench.ledger.ping().await.expect("answers");
}
