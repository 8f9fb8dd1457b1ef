//! The all-in-one on any mix of embedded stores and real servers. What it keeps outlives it, wherever that is.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use servers::{Postgres, RabbitMq, Redis};
use system_tests::{System, books::at_rest, eventually};

/// More than it takes to prepare a schema, or to handle an event, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn any_mix_of_embedded_stores_and_real_servers_places_orders_and_keeps_them() {
    let (postgres, redis, rabbitmq) = (Postgres::shared().await, Redis::start().await, RabbitMq::shared().await);
    for mix in 1..8_u8 {
        let database = postgres.database().await;
        redis.cli(&["FLUSHALL"]).await;
        let vhost = rabbitmq.vhost().await;
        let all = [("DB_URL", database), ("REDIS_URL", redis.url()), ("BROKER_URL", vhost)];
        let chosen = all.iter().enumerate().filter(|(at, _)| mix & (1 << at) != 0);
        let settings: Vec<(&str, &str)> = chosen.map(|(_, (name, value))| (*name, value.as_str())).collect();
        works(&settings, &redis).await;
    }
}

async fn works(settings: &[(&str, &str)], redis: &Redis) {
    let mut system = System::start(settings).await;
    let is_set = |name: &str| settings.iter().any(|(set, _)| *set == name);
    ready(&system).await;
    let order = json!({ "item": "widget", "quantity": 30 });
    let first = system.http.post_with_key("/orders", "first", &order).await;
    assert_eq!(first.status, 201, "{settings:?}: {:?}", first.json());
    at_rest(&system, &[("widget", 100)], LIMIT).await;
    let files: BTreeSet<String> = std::fs::read_dir(system.data_dir())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(files.contains("ledger.db"), !is_set("DB_URL"), "{files:?}");
    assert_eq!(files.contains("broker.db"), !is_set("BROKER_URL"), "{files:?}");
    let seen = redis.cli(&["GET", "widget"]).await;
    assert_eq!(seen.trim() == "70", is_set("REDIS_URL"), "{seen}");

    system.kill().await;
    system.start_again().await;
    ready(&system).await;
    let again = system.http.post_with_key("/orders", "first", &order).await;
    assert_eq!((again.status.as_u16(), again.id()), (201, first.id()), "{settings:?}");
    system.http.post("/orders", &json!({ "item": "widget", "quantity": 71 })).await.problem(409, "INSUFFICIENT_STOCK");
    at_rest(&system, &[("widget", 100)], LIMIT).await;
}

async fn ready(system: &System) {
    eventually(LIMIT, "it is ready", async || (system.http.get("/readyz").await.status == 200).then_some(())).await;
}
