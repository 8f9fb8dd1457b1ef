//! Holds through NGINX, with two of each service on Postgres, Redis and RabbitMQ.

use std::time::Duration;

use servers::Redis;
use system_tests::{
    holds::{Fates, race},
    stack::{Stack, Stores, audit::at_rest, load::Known},
};

/// How often each race is run.
const ROUNDS: usize = 24;
/// The life of an order's hold and 5 s (I10).
const REST_LIMIT: Duration = Duration::from_secs(2 + 5);

async fn stack(default_stock: &'static str) -> Stack {
    let settings = [("DEFAULT_STOCK", default_stock), ("RESERVATION_TTL_SECONDS", "2"), ("RUST_LOG", "warn")];
    Stack::start(Stores::shared(Redis::start().await).await, &settings).await
}

#[tokio::test]
async fn whoever_wins_a_race_for_a_hold_all_are_told_the_same_and_the_books_balance() {
    let stack = stack("1000000").await;
    let ends = race(&stack.http, "widget", ROUNDS, 2).await;
    println!("{:#?}", ends.counts);
    ends.all_seen();
    let known = Known {
        created: ends.orders.into_iter().map(|order| (order.id, (order.item, order.quantity))).collect(),
        ..Known::default()
    };
    let orders = at_rest(&stack, &stack.stores.redis, &known, 1_000_000, REST_LIMIT).await;
    assert_eq!(orders, known.created.len(), "the orders are those that the clients were told of");
}

#[tokio::test]
async fn what_became_of_a_hold_is_known_after_redis_was_wiped() {
    let stack = stack("100").await;
    let fates = Fates::come(&stack.http, "widget").await;
    stack.stores.redis.cli(&["FLUSHALL"]).await;
    fates.are_known(&stack.http).await;
}
