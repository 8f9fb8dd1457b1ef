//! Holds over HTTP, against the running all-in-one: clients race each other for them, and what is known of a hold outlives
//! the process.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]
#![expect(clippy::print_stdout, reason = "how the races ended")]

use std::time::{Duration, Instant};

use contracts::values::Timestamp;
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
/// A hold is back within its life and this (I10).
const BACK_LIMIT: Duration = Duration::from_secs(5);
/// The life of an order's hold, and [`BACK_LIMIT`].
const REST_LIMIT: Duration = Duration::from_secs(2 + 5);

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

    let (early, late) = (new_id(), new_id());
    let start = Instant::now();
    let dues = [
        expires_at(&reserve(http, "widget", &early, 5, 1).await),
        expires_at(&reserve(http, "widget", &late, 7, 1).await),
    ];
    assert_eq!(order(http, "widget", &early, 5, None).await.status, 201);
    while now() <= dues[1] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Whether the reaper has come or not.
    for _ in 0..3 {
        order(http, "widget", &late, 7, None).await.problem(409, "RESERVATION_RELEASED");
        assert_eq!(release(http, &late).await.status, 204);
    }
    let back = async || (http.stock("widget").await == 100 - 5 - 2 - 1).then_some(());
    let limit = (Duration::from_secs(1) + BACK_LIMIT).saturating_sub(start.elapsed());
    eventually(limit, "what was held for a second is back", back).await;
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
