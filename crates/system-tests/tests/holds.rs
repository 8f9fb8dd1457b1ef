//! Holds over HTTP, against the running all-in-one: what clients are told who use them as the README says, who race each
//! other for them, and who come back after the process was killed.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::time::{Duration, Instant};

use contracts::{
    inventory::v1::{ReleaseRequest, inventory_service_client::InventoryServiceClient},
    values::Timestamp,
};
use futures::{StreamExt, stream};
use serde_json::json;
use system_tests::{
    System,
    books::{Files, all_orders, at_rest},
    eventually,
    holds::{Fates, expires_at, now, order, race, release, reserve},
};
use uuid::Uuid;

/// Enough for every race's hold.
const STOCK: i64 = 1_000_000;
/// How often each race is run.
const ROUNDS: usize = 24;
/// More than it takes to handle every event, or to give an order's hold back, on a busy machine.
const REST_LIMIT: Duration = Duration::from_secs(10);
const HOLD: &str = "7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e";
const OTHER_HOLD: &str = "2b8f6f0a-93c5-4b38-8a51-1de4c2c5a0f7";
const UNKNOWN: &str = "11111111-1111-4111-8111-111111111111";

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

#[tokio::test]
async fn whoever_wins_a_race_for_a_hold_all_are_told_the_same_and_the_books_balance() {
    let settings = [("DEFAULT_STOCK", "1000000"), ("RESERVATION_TTL_SECONDS", "2"), ("RUST_LOG", "warn")];
    let mut system = System::start(&settings).await;
    let ends = race(&system.http, "widget", ROUNDS, 1).await;
    println!("{:#?}", ends.counts);
    ends.all_seen();
    at_rest(&system, &[("widget", STOCK)], REST_LIMIT).await;
    let mut listed = all_orders(&system.http, "&limit=500").await;
    system.terminate();
    system.wait().await;
    let received = [("widget", STOCK)];
    Files::open(system.data_dir()).await.audit(&listed, &received, 0).await;
    let mut told = ends.orders;
    for orders in [&mut listed, &mut told] {
        orders.sort_by(|a, b| a.id.cmp(&b.id));
    }
    assert_eq!(listed, told, "the orders are those that the clients were told of");
}

#[tokio::test]
async fn what_became_of_a_hold_is_known_after_the_process_was_killed() {
    let mut system = System::start(&[("DEFAULT_STOCK", "100")]).await;
    let fates = Fates::come(&system.http, "widget").await;
    system.kill().await;
    system.start_again().await;
    fates.are_known(&system.http).await;
    at_rest(&system, &[("widget", 100)], REST_LIMIT).await;
}

#[tokio::test]
async fn a_hold_lasts_as_long_as_its_answer_says_and_no_longer() {
    let system = System::start(&[]).await;
    let http = &system.http;
    for (seconds, id) in [(1, new_id()), (86_400, new_id())] {
        let sent = now();
        let due = expires_at(&reserve(http, "widget", &id, 2, seconds).await);
        let ttl = Duration::from_secs(seconds.unsigned_abs());
        assert!((sent.plus(ttl)..=now().plus(ttl)).contains(&due), "{due}");
    }
    let lengthened = new_id();
    let dues = [60, 1, 60, 900].map(|ttl| reserve(http, "widget", &lengthened, 1, ttl));
    let mut last = Timestamp(0);
    for (n, due) in dues.into_iter().enumerate() {
        let due = expires_at(&due.await);
        assert!(if n == 1 { due == last } else { due > last }, "a repeat lengthens at most: {due} after {last}");
        last = due;
    }

    let short = new_id();
    let due = expires_at(&reserve(http, "widget", &short, 7, 1).await);
    while now() <= due {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Whether the reaper has come or not.
    for _ in 0..3 {
        order(http, "widget", &short, 7, None).await.problem(409, "RESERVATION_RELEASED");
        assert_eq!(release(http, &short).await.status, 204);
    }
}

#[tokio::test]
async fn an_order_on_a_hold_that_nobody_made_is_placed_from_what_is_free_under_its_id() {
    let system = System::start(&[]).await;
    let http = &system.http;
    let (id, other) = (new_id(), new_id());
    order(http, "widget", &id, 101, None).await.problem(409, "INSUFFICIENT_STOCK");
    release(http, &id).await.problem(404, "RESERVATION_NOT_FOUND");
    assert_eq!(order(http, "widget", &id, 3, Some("k")).await.id(), id);
    order(http, "widget", &id, 3, Some("other")).await.problem(409, "RESERVATION_CONFIRMED");
    order(http, "widget", &id, 4, Some("k")).await.problem(422, "IDEMPOTENCY_KEY_REUSED");
    order(http, "widget", &id, 4, None).await.problem(409, "RESERVATION_MISMATCH");
    order(http, "gadget", &id, 3, None).await.problem(409, "RESERVATION_MISMATCH");
    let again = order(http, "widget", &id, 3, None).await;
    assert_eq!((again.id(), again.header("idempotent-replayed")), (id.clone(), "true"));
    release(http, &id).await.problem(409, "RESERVATION_CONFIRMED");
    // All that is left is held: that is no reason to hold the order again, or to say that nothing is left.
    assert_eq!(reserve(http, "widget", &other, 97, 60).await.status, 200);
    reserve(http, "widget", &id, 3, 60).await.problem(409, "RESERVATION_CONFIRMED");
    order(http, "widget", &id, 3, Some("other")).await.problem(409, "RESERVATION_CONFIRMED");
    assert_eq!(order(http, "widget", &id, 3, Some("k")).await.id(), id);
    for spent in [&id, &other] {
        // Another item's.
        assert_eq!(reserve(http, "gadget", spent, 1, 60).await.status, 409);
    }
    assert_eq!(release(http, &other.to_uppercase()).await.status, 204);
    at_rest(&system, &[("widget", 100), ("gadget", 100)], REST_LIMIT).await;
}

#[tokio::test]
async fn a_hold_becomes_an_order_or_goes_back() {
    let system = System::start(&[]).await;
    let http = &system.http;
    let held = reserve(http, "widget", HOLD, 5, 60).await;
    assert_eq!((held.status.as_u16(), held.header("content-type")), (200, "application/json"));
    assert_eq!(held.members(), ["expires_at", "remaining", "reservation_id", "success"]);
    let body = held.json();
    assert_eq!(
        (&body["success"], &body["remaining"], &body["reservation_id"]),
        (&json!(true), &json!(95), &json!(HOLD))
    );
    assert_eq!(http.stock("widget").await, 95);
    assert_eq!(reserve(http, "widget", HOLD, 5, 60).await.json()["remaining"], 95, "one id is one hold");
    reserve(http, "widget", HOLD, 6, 60).await.problem(409, "RESERVATION_MISMATCH");
    order(http, "widget", HOLD, 4, None).await.problem(409, "RESERVATION_MISMATCH");
    let short = http.post("/reserve", &json!({ "item": "widget", "quantity": 96 })).await;
    assert_eq!((short.status.as_u16(), short.json()), (200, json!({ "success": false, "remaining": 95 })));

    let created = order(http, "widget", HOLD, 5, None).await;
    assert_eq!((created.status.as_u16(), created.id().as_str()), (201, HOLD));
    let again = order(http, "widget", HOLD, 5, None).await;
    assert_eq!((again.status.as_u16(), again.json()), (201, created.json()));
    assert_eq!(http.stock("widget").await, 95);
    release(http, HOLD).await.problem(409, "RESERVATION_CONFIRMED");

    // Without an id one is made.
    let made = http.post("/reserve", &json!({ "item": "widget", "quantity": 10 })).await.json();
    let made = made["reservation_id"].as_str().expect("text").to_owned();
    assert_eq!(reserve(http, "widget", OTHER_HOLD, 20, 60).await.status, 200);
    assert_eq!(http.stock("widget").await, 65);
    for id in [OTHER_HOLD, OTHER_HOLD, &made] {
        let released = release(http, id).await;
        assert_eq!((released.status.as_u16(), &released.body[..]), (204, &b""[..]));
    }
    assert_eq!(http.stock("widget").await, 95);
    order(http, "widget", OTHER_HOLD, 20, None).await.problem(409, "RESERVATION_RELEASED");
    reserve(http, "widget", OTHER_HOLD, 20, 60).await.problem(409, "RESERVATION_RELEASED");
    for unknown in [UNKNOWN, "nonsense"] {
        release(http, unknown).await.problem(404, "RESERVATION_NOT_FOUND");
    }
    at_rest(&system, &[("widget", 100)], REST_LIMIT).await;
}

#[tokio::test]
async fn a_hold_that_nobody_orders_is_back_within_its_time_and_five_seconds() {
    let system = System::start(&[]).await;
    let http = &system.http;
    let start = Instant::now();
    assert_eq!(reserve(http, "widget", HOLD, 5, 1).await.status, 200);
    assert_eq!(reserve(http, "widget", OTHER_HOLD, 10, 60).await.status, 200);
    assert_eq!(order(http, "widget", OTHER_HOLD, 10, None).await.status, 201);
    let back = async || (http.stock("widget").await == 90).then_some(());
    assert!(back().await.is_none() || start.elapsed() >= Duration::from_secs(1), "it is held for its time");
    eventually(Duration::from_secs(6).saturating_sub(start.elapsed()), "the stock is back", back).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "it was held for its time");
    assert_eq!(system.count(r#"reaped_holds_total{outcome="released"}"#).await, 1);
    order(http, "widget", HOLD, 5, None).await.problem(409, "RESERVATION_RELEASED");
    assert_eq!(release(http, HOLD).await.status, 204);
    assert_eq!(http.stock("widget").await, 90);
    at_rest(&system, &[("widget", 100)], REST_LIMIT).await;
}

#[tokio::test]
async fn parallel_holds_orders_and_releases_add_up() {
    let system = System::start(&[("DEFAULT_STOCK", "300"), ("RUST_LOG", "warn")]).await;
    let http = &system.http;
    let one = async |n: u128| {
        let id = uuid::Builder::from_random_bytes(n.to_be_bytes()).into_uuid().to_string();
        let held = reserve(http, "widget", &id, 1, 60).await.json()["success"] == true;
        if n.is_multiple_of(2) || !held {
            return usize::from(held && order(http, "widget", &id, 1, None).await.status == 201);
        }
        // Both at once: either the order stands or the stock is back.
        let (ordered, released) = tokio::join!(order(http, "widget", &id, 1, None), release(http, &id));
        match (ordered.status.as_u16(), released.status.as_u16()) {
            (201, 409) => 1,
            (409, 204) => 0,
            other => panic!("{other:?}: {ordered:?} {released:?}"),
        }
    };
    let orders: usize = stream::iter(1..=500).map(one).buffer_unordered(100).fold(0, async |sum, n| sum + n).await;
    assert_eq!(all_orders(http, "").await.len(), orders);
    at_rest(&system, &[("widget", 300)], REST_LIMIT).await;
}

#[tokio::test]
async fn a_release_that_overtakes_its_reserve_ends_it() {
    let system = System::start(&[]).await;
    let http = &system.http;
    let mut inventory = InventoryServiceClient::connect(system.url("inventory gRPC")).await.expect("it listens");
    for id in [HOLD, OTHER_HOLD] {
        // The first time the item is not open and nothing of it can be marked: the ledger alone refuses the order.
        let early = ReleaseRequest { reservation_id: id.to_owned(), item: "widget".to_owned() };
        for _ in 0..2 {
            inventory.release(early.clone()).await.expect("released before it was held");
        }
        if id == OTHER_HOLD {
            reserve(http, "widget", id, 5, 60).await.problem(409, "RESERVATION_RELEASED");
        }
        order(http, "widget", id, 5, None).await.problem(409, "RESERVATION_RELEASED");
        assert_eq!(http.stock("widget").await, 100, "nothing is held for it");
    }
    at_rest(&system, &[("widget", 100)], REST_LIMIT).await;
}
