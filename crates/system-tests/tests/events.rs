//! Events that come twice, that speak of orders that never were, and that are no events: none of them moves stock, and
//! none of them keeps the next one from being handled.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{collections::BTreeMap, time::Duration};

use broker::{Broker, Message, PublishOutcome, in_process::InProcessBroker};
use contracts::{
    event::{ORDER_CREATED, OrderCreated},
    values::{Epoch, ReservationId, Stamp, Timestamp},
};
use inventory::metrics::EventOutcome::{Duplicate, Malformed, Processed, Superseded, UnknownLease};
use order::ledger::{Ledger, ResolveQuery, Verdict};
use serde_json::json;
use system_tests::{
    System,
    books::{Files, all_orders, at_rest},
    eventually,
    wired::{Wired, item, key, units},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// More than it takes to handle a few events on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);
const DEAD: &str = "order_created.dead";

/// What is no event.
fn malformed() -> Vec<Vec<u8>> {
    let good = event(ReservationId(Uuid::from_u128(9)), stamp("widget", 1, 1)).to_json();
    let with = |name: &str, value: serde_json::Value| {
        let mut event: serde_json::Value = serde_json::from_slice(&good).expect("JSON");
        event[name] = value;
        event.to_string().into_bytes()
    };
    let text = String::from_utf8(good.clone()).expect("JSON");
    vec![
        Vec::new(),
        b"no JSON".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        b"\0\xff\xfe".to_vec(),
        "[".repeat(10_000).into_bytes(),
        good[..good.len() - 1].to_vec(),
        text.replace("widget", "wid\u{1}get").into_bytes(),
        with("id", json!("x")),
        with("id", json!(null)),
        with("item", json!("")),
        with("item", json!("{widget}")),
        with("item", json!("wid\u{202e}teg")),
        with("quantity", json!(-1)),
        with("quantity", json!(0)),
        with("quantity", json!(1.5)),
        with("quantity", json!("1")),
        with("quantity", json!(1_000_001)),
        with("epoch", json!(0)),
        with("epoch", json!(-1)),
        with("number", json!(0)),
        with("number", json!(1e300)),
        with("created_at", json!("yesterday")),
    ]
}

fn stamp(name: &str, epoch: i64, number: i64) -> Stamp {
    Stamp { item: item(name), epoch: Epoch(epoch), number }
}

fn event(id: ReservationId, stamp: Stamp) -> OrderCreated {
    OrderCreated { id, stamp, quantity: units(3), created_at: Timestamp(1_795_000_000_000_000) }
}

/// An order that never was.
fn unknown(number: u128) -> ReservationId {
    ReservationId(Uuid::from_u128(0xdead_0000 + number))
}

async fn publish(broker: &InProcessBroker, bodies: Vec<Vec<u8>>) {
    let message = |body| Message {
        id: "forged".to_owned(),
        routing_key: ORDER_CREATED.to_owned(),
        body,
        headers: BTreeMap::new(),
    };
    let messages: Vec<_> = bodies.into_iter().map(message).collect();
    let outcomes = broker.publish(&messages).await.expect("published");
    assert!(outcomes.iter().all(|outcome| *outcome == PublishOutcome::Confirmed), "{outcomes:?}");
}

/// Reads a queue without taking anything from it.
async fn peek(broker: &InProcessBroker, queue: &str) -> Vec<Vec<u8>> {
    if broker.depth(queue).await.expect("declared") == 0 {
        return Vec::new();
    }
    let mut consumer = broker.consume(queue, 500).await.expect("declared");
    consumer.next(500).await.expect("delivered").into_iter().map(|delivery| delivery.message.body).collect()
}

/// The services in this process, with an order of three widgets whose event waits in the queue.
async fn with_a_waiting_event() -> (Wired, Vec<u8>) {
    let wired = Wired::new(100).await;
    wired.place(3, key("k")).await.expect("placed");
    let published = async || (wired.broker.depth(ORDER_CREATED).await.ok()? == 1).then_some(());
    eventually(LIMIT, "the relay has published", published).await;
    let mut waiting = peek(&wired.broker, ORDER_CREATED).await;
    (wired, waiting.remove(0))
}

/// Consumes until the queue is empty.
async fn consume(wired: &Wired) {
    let stop = CancellationToken::new();
    let consumer = tokio::spawn(wired.inventory.consumer().run(stop.clone()));
    let empty = async || (wired.broker.depth(ORDER_CREATED).await.expect("declared") == 0).then_some(());
    eventually(LIMIT, "every event is settled", empty).await;
    stop.cancel();
    consumer.await.expect("no panic");
}

#[tokio::test]
async fn an_event_that_comes_again_and_again_sells_once() {
    let (wired, body) = with_a_waiting_event().await;
    publish(&wired.broker, vec![body.clone(); 3]).await;
    consume(&wired).await;
    // And once more, when all of them have been handled.
    publish(&wired.broker, vec![body]).await;
    consume(&wired).await;
    let metrics = &wired.inventory_metrics;
    assert_eq!((metrics.events_total(Processed), metrics.events_total(Duplicate)), (1, 4));
    assert_eq!(metrics.processed_total(), 1);
    assert_eq!(wired.free().await, 97);
    assert_eq!(wired.broker.depth(DEAD).await.expect("declared"), 0);
}

#[tokio::test]
async fn an_event_of_an_order_that_never_was_moves_no_stock() {
    let (wired, _) = with_a_waiting_event().await;
    let hold = wired.hold(7).await;
    let forged = [
        // No hold of this number.
        event(unknown(1), stamp("widget", 1, 77)),
        // Somebody else's hold, and a hold under another number.
        event(unknown(2), stamp("widget", 1, 2)),
        event(hold, stamp("widget", 1, 1)),
        // Leases that were never granted, of an item that was lent and of one that was not.
        event(unknown(3), stamp("widget", 99, 1)),
        event(unknown(4), stamp("gadget", 1, 1)),
    ];
    publish(&wired.broker, forged.iter().map(OrderCreated::to_json).collect()).await;
    consume(&wired).await;
    let metrics = &wired.inventory_metrics;
    let outcomes =
        [Processed, Duplicate, Superseded, UnknownLease, Malformed].map(|outcome| metrics.events_total(outcome));
    assert_eq!(outcomes, [1, 3, 0, 2, 0]);
    assert_eq!(wired.free().await, 90);
    wired.reservations.release(&wired.call(), hold, None).await.expect("it is held as before");
    assert_eq!(wired.free().await, 97);
    let stocks = wired.ledger.stock(&[item("widget"), item("gadget")], 100).await.expect("answered");
    assert_eq!((stocks[0].epoch, stocks[1].epoch), (Epoch(1), Epoch::NONE), "nothing was opened for them");
    let dead = peek(&wired.broker, DEAD).await;
    assert_eq!(dead, forged[3..].iter().map(OrderCreated::to_json).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_no_event_is_put_aside_and_what_follows_is_handled() {
    let (wired, body) = with_a_waiting_event().await;
    publish(&wired.broker, malformed()).await;
    publish(&wired.broker, vec![body]).await;
    consume(&wired).await;
    let metrics = &wired.inventory_metrics;
    let count = u64::try_from(malformed().len()).expect("a few");
    let outcomes = [Processed, Duplicate, Malformed].map(|outcome| metrics.events_total(outcome));
    assert_eq!(outcomes, [1, 1, count]);
    assert_eq!(peek(&wired.broker, DEAD).await, malformed(), "as they came, for somebody to look at");
    assert_eq!(wired.free().await, 97);
}

#[tokio::test]
async fn a_process_that_finds_strange_events_in_its_queue_sells_on() {
    let mut system = System::start(&[("RUST_LOG", "off")]).await;
    let order = json!({ "item": "widget", "quantity": 3 });
    let created = system.http.post("/orders", &order).await;
    assert_eq!(created.status, 201);
    at_rest(&system, &[("widget", 100)], LIMIT).await;
    let orders = all_orders(&system.http, "").await;
    system.terminate();
    assert!(system.wait().await.success());

    let id = ReservationId::parse(&created.id()).expect("an id");
    let (duplicate, strange) = (event(id, stamp("widget", 1, 1)), event(unknown(1), stamp("widget", 1, 77)));
    let (future, never) = (event(unknown(2), stamp("widget", 99, 1)), event(unknown(3), stamp("gadget", 1, 1)));
    {
        let files = Files::open(system.data_dir()).await;
        files.audit(&orders, &[("widget", 100)], 0).await;
        let query = ResolveQuery { id, stamp: Some(duplicate.stamp.clone()) };
        assert_eq!(files.ledger.resolve(&[query]).await.expect("answered"), [Verdict::Confirmed], "the event's stamp");
        let mut bodies = malformed();
        bodies.extend([&duplicate, &strange, &future, &never, &duplicate].map(OrderCreated::to_json));
        publish(&files.broker, bodies).await;
    }
    system.start_again().await;
    let count = u64::try_from(malformed().len()).expect("a few");
    eventually(LIMIT, "every event is handled", async || {
        (system.count("order_events_total").await == count + 5).then_some(())
    })
    .await;
    let outcome = async |name: &str| system.count(&format!(r#"order_events_total{{outcome="{name}"}}"#)).await;
    assert_eq!((outcome("malformed").await, outcome("unknown_lease").await), (count, 2));
    assert_eq!(outcome("processed").await, 0);
    assert_eq!((system.http.stock("widget").await, system.http.stock("gadget").await), (97, 100));
    assert_eq!(all_orders(&system.http, "").await, orders);

    assert_eq!(system.http.post("/orders", &order).await.status, 201);
    at_rest(&system, &[("widget", 100), ("gadget", 100)], LIMIT).await;
    assert_eq!(outcome("processed").await, 1);
    let orders = all_orders(&system.http, "").await;
    system.terminate();
    assert!(system.wait().await.success());
    let files = Files::open(system.data_dir()).await;
    files.audit(&orders, &[("widget", 100)], count + 2).await;
    let mut dead = malformed();
    dead.extend([&future, &never].map(OrderCreated::to_json));
    assert_eq!(peek(&files.broker, DEAD).await, dead);
}
