//! Two of each service: calls go to both, and what both do in the background has its effect once.

use std::time::{Duration, Instant};

use servers::Redis;
use system_tests::{
    eventually,
    stack::{Process, Stack, Stores, audit::at_rest, load::Load},
};

use crate::{DEFAULT_STOCK, DEMAND, REST_LIMIT, SETTINGS, abandon_hold, ask, only, say};

/// Holds of orders that never were.
const HOLDS: u64 = 50;
/// The busier of two takes at most so many times the work of the other.
const IMBALANCE_MAX: f64 = 1.5;

#[tokio::test]
async fn calls_go_to_both_of_each_and_what_both_do_has_its_effect_once() {
    let stack = Stack::start(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    let load = Load::start(&stack, DEMAND);
    load.orders(500).await;
    let mut known = load.stop().await;
    only(&known.asked, &[201]);
    balanced("edges", &stack.edges, "http_server_request_duration_seconds_count").await;
    balanced("order services", &stack.orders, "orders_created_total").await;
    balanced("inventory services", &stack.inventories, "reservations_total").await;
    balanced("consumers", &stack.inventories, "order_events_total").await;

    // Holds of orders that never were, as an order service leaves them that dies before its commit.
    let begin = Instant::now();
    for n in 0..HOLDS {
        let service = &stack.inventory_clients[usize::try_from(n % 2).expect("small")];
        abandon_hold(service, "gadget", 5).await.expect("it is held");
    }
    let released = async || (stack.count("reaped_holds_total").await >= HOLDS).then_some(());
    eventually(REST_LIMIT, "the holds are given back", released).await;
    say(&format!("{HOLDS} holds given back {:.1?} after the first was made", begin.elapsed()));

    only(&ask(&stack, &mut known, 20).await, &[201]);
    let orders = at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await as u64;
    assert_eq!(orders, u64::try_from(known.created.len()).expect("small"), "orders that nobody was told of");
    assert_eq!(stack.count("reaped_holds_total").await, HOLDS, "each hold is given back once");
    assert_eq!(stack.count("orders_created_total").await, orders);
    assert_eq!(stack.count("outbox_published_total").await, orders, "one relay publishes what the other does not");
    assert_eq!(stack.count("orders_processed_total").await, orders, "each order is sold once");
}

/// A client that dies between hold and commit is an order service that was killed: how soon its units are back.
#[tokio::test]
async fn a_hold_of_an_order_service_that_was_killed_is_given_back_in_time() {
    let mut stack = Stack::start(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    // With the ledger's tables locked, orders stay between hold and commit.
    let load = Load::start(&stack, DEMAND);
    load.orders(20).await;
    let lock = "BEGIN; LOCK TABLE order_verdicts IN EXCLUSIVE MODE; SELECT pg_sleep(0.7); COMMIT";
    let (database, postgres) = (stack.database.clone(), &stack.stores.postgres);
    let held = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        for process in &mut stack.orders {
            process.kill().await;
        }
    };
    tokio::join!(postgres.sql(&database, lock), held);
    let killed = Instant::now();
    for process in &mut stack.orders {
        process.start();
    }
    for process in &mut stack.orders {
        process.until_ready().await;
    }
    let known = load.stop().await;
    only(&known.asked, &[201, 409, 503]);
    at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT.saturating_sub(killed.elapsed())).await;
    let reaped = stack.count("reaped_holds_total").await;
    say(&format!("{reaped} holds settled, all at rest {:.1?} after the kill", killed.elapsed()));
    assert!(reaped > 0, "no hold was left behind");
}

async fn balanced(what: &str, pair: &[Process; 2], metric: &str) {
    let (one, other) = (pair[0].metric(metric).await, pair[1].metric(metric).await);
    say(&format!("{what}: {metric} {one} and {other}"));
    assert!(one.min(other) > 0.0 && one.max(other) / one.min(other) <= IMBALANCE_MAX, "{what}: {one} and {other}");
}
