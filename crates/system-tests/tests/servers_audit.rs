//! The audit finds what a hand has changed in Redis and Postgres, and nothing else, on real servers.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    collections::BTreeMap,
    process::Output,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::Value;
use servers::Redis;
use system_tests::{
    Client, eventually,
    stack::{
        Process, Stack, Stores,
        load::{Demand, Load},
    },
};
use tokio::process::Command;

/// Hot items, and one that more is received of.
const DEMAND: Demand = Demand {
    items: &[("hot", 1), ("hotter", 2), ("fed", 3)],
    restocked: Some("fed"),
    clients: 8,
    pause: Duration::from_millis(5),
};
/// How long the load is audited.
const LOAD_TIME: Duration = Duration::from_secs(8);
/// Everything is at rest within this, on a machine that is busy with other tests.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Units of an order.
const UNITS: i64 = 2;

/// What does not fit in each item, page by page.
async fn audit(http: &Client) -> BTreeMap<String, Vec<String>> {
    let answer = http.get("/audit").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["next"], Value::Null, "few items: {body}");
    let kinds = |one: &Value| one["drift"].as_array().expect("a list").iter().map(kind).collect();
    let items = body["items"].as_array().expect("a list");
    items.iter().map(|one| (one["item"].as_str().expect("a name").to_owned(), kinds(one))).collect()
}

fn kind(drift: &Value) -> String {
    drift["kind"].as_str().expect("a name").to_owned()
}

async fn load_is_no_drift(stack: &Stack) {
    let load = Load::start(stack, DEMAND);
    let end = Instant::now() + LOAD_TIME;
    let audits = stack.inventories.each_ref().map(|process| async {
        let admin = Client::new(process.admin());
        let mut audited = 0;
        while Instant::now() < end {
            for (item, drift) in audit(&admin).await {
                assert!(drift.is_empty(), "{item}: {drift:?}");
                audited += 1;
            }
        }
        audited
    });
    let audited: i32 = join_all(audits).await.into_iter().sum();
    let known = load.stop().await;
    assert!(known.created.len() >= 50 && audited >= 4, "{} orders and {audited} looks", known.created.len());
}

async fn sell(stack: &Stack, item: &str) {
    let body = serde_json::json!({ "item": item, "quantity": UNITS }).to_string();
    let headers = [("content-type", "application/json")];
    let answer = stack.http.send(http::Method::POST, "/orders", &headers, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn redis(stack: &Stack, command: &str) -> String {
    stack.stores.redis.cli(&command.split(' ').collect::<Vec<_>>()).await
}

/// Numbers that still add up, and books that no longer do; one kind for each item.
async fn change_by_hand(stack: &Stack) {
    for item in ["fine", "received-more", "sold-less", "sold-more", "settled-more"] {
        sell(stack, item).await;
    }
    let sold = async || {
        for item in ["fine", "received-more", "sold-less", "sold-more", "settled-more"] {
            if redis(stack, &format!("HGET {{{item}}}:ledger sold")).await != UNITS.to_string() {
                return None;
            }
        }
        (stack.sql("SELECT count(*) FROM outbox").await == ["0"]).then_some(())
    };
    eventually(REST_LIMIT, "every event is handled", sold).await;
    // While the broker hangs, events wait in the outbox and holds in the stock store.
    stack.stores.rabbitmq.pause();
    sell(stack, "event-deleted").await;
    sell(stack, "hold-deleted").await;
    let hold = redis(stack, "HKEYS {hold-deleted}:holds").await;
    for command in [
        "INCRBY received-more 5",
        "HINCRBY {received-more}:ledger received 5",
        "INCRBY sold-less 2",
        "HINCRBY {sold-less}:ledger sold -2",
        "DECRBY sold-more 1",
        "HINCRBY {sold-more}:ledger sold 1",
        "INCRBY hold-deleted 2",
        "HINCRBY {hold-deleted}:ledger held -2",
        "HINCRBY {hold-deleted}:ledger holds -1",
        &format!("HDEL {{hold-deleted}}:holds {hold}"),
        &format!("ZREM {{hold-deleted}}:due {hold}"),
        "ZREM {registry}:heads hold-deleted",
    ] {
        redis(stack, command).await;
    }
    stack.sql("UPDATE stock_leases SET settled = settled + 1 WHERE item = 'settled-more'").await;
    stack.sql("DELETE FROM outbox WHERE item = 'event-deleted'").await;
}

async fn just_audit(arguments: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/audit");
    Command::new(script).args(arguments).output().await.expect("it runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_in_redis_or_postgres_is_found_and_load_is_not() {
    let settings = [("DEFAULT_STOCK", "100000")];
    let stack = Stack::start(Stores::own(Redis::start().await).await, &settings).await;
    load_is_no_drift(&stack).await;
    change_by_hand(&stack).await;

    let admin = stack.inventories[0].admin().to_string();
    let shown = just_audit(&[&admin]).await;
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    // The audit of the background may have come round at this moment; then it has logged what it found, and healed it.
    let logs: Vec<String> = stack.inventories.iter().map(Process::log_end).collect();
    for (item, kind) in [
        ("received-more", "received"),
        ("sold-less", "sold"),
        ("sold-more", "sold"),
        ("hold-deleted", "sold"),
        ("settled-more", "orders (no lease heals it)"),
        ("event-deleted", "orders (no lease heals it)"),
    ] {
        let is_shown = text.lines().any(|line| line.starts_with(item) && line.ends_with(kind));
        let told = |line: &str| line.contains("drift") && line.contains(item);
        assert!(is_shown || logs.iter().any(|log| log.lines().any(told)), "{item}: {kind}\n{text}");
    }
    for item in ["fine", "hot", "hotter", "fed"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{item} ")) && line.ends_with("none")), "{text}");
    }
    assert_eq!(shown.status.code(), Some(1), "{text}");

    let fine = just_audit(&[&admin, "fine"]).await;
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
    stack.stores.rabbitmq.resume();
    drop(stack);
    assert_eq!(just_audit(&[&admin]).await.status.code(), Some(2), "nobody is there");
}
