//! A stock store that loses its data, goes back in time or is edited by hand, under load: never is more sold than was
//! received, and in the end all of it is.

use std::time::{Duration, Instant};

use futures::future::join_all;
use servers::{Redis, Sentinel};
use system_tests::{
    eventually,
    stack::{
        Stack, Stores,
        audit::at_rest,
        load::{Demand, Load, restock},
    },
};

use crate::{REST_LIMIT, abandon_hold, only, say, tell};

/// Units of each item at first.
const STOCK: i64 = 100;
const SETTINGS: [(&str, &str); 3] = [("DEFAULT_STOCK", "100"), ("RESERVATION_TTL_SECONDS", "2"), ("RUST_LOG", "warn")];
/// More of it is received at the start than anybody buys, so that there is always something to sell.
const PLENTY: (&str, i64) = ("plenty", 1_000_000);
/// Clients want more of all the others than there is.
const DEMAND: Demand = Demand {
    items: &[
        ("plenty", 1),
        ("scarce-1", 1),
        ("scarce-2", 1),
        ("scarce-3", 1),
        ("scarce-4", 1),
        ("scarce-5", 1),
        ("scarce-6", 1),
    ],
    restocked: None,
    clients: 8,
    pause: Duration::from_millis(60),
};
/// Orders are placed again so soon after a fault is over (I11).
const RECOVERY_LIMIT: Duration = Duration::from_secs(2);
/// How long orders are kept from being committed before the wipe, and after it.
const HELD_UP: Duration = Duration::from_millis(400);
/// A Sentinel is done with a failover within this.
const FAILOVER_LIMIT: Duration = Duration::from_secs(20);
/// All is sold within this.
const SALE_LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_redis_wiped_restarted_and_edited_under_load_sells_all_there_is_and_nothing_twice() {
    let redis = Redis::start_with(&["--appendonly", "yes"]).await;
    let stack = Stack::start(Stores::shared(redis).await, &SETTINGS).await;
    restock(&stack.inventory_clients, PLENTY.0, PLENTY.1).await;
    let load = Load::start(&stack, DEMAND);
    let redis = &stack.stores.redis;
    load.orders(50).await;

    for _ in 0..2 {
        fault(&load, "wiped", async || drop(redis.cli(&["FLUSHALL"]).await)).await;
    }
    fault(&load, "restarted with its data", async || {
        redis.kill().await;
        redis.start_again().await;
    })
    .await;
    fault(&load, "restarted empty", async || {
        redis.kill().await;
        std::fs::remove_dir_all(redis.directory().join("appendonlydir")).expect("its data can be deleted");
        redis.start_again().await;
    })
    .await;
    fault(&load, "edited", async || edit(redis).await).await;
    fault(&load, "without its scripts", async || drop(redis.cli(&["SCRIPT", "FLUSH"]).await)).await;
    // The last: a lease that counted too little is found out only while nothing counts anew.
    for _ in 0..2 {
        fault(&load, "wiped between hold and commit", async || wipe_under_orders(&stack).await).await;
    }
    sold_out(&stack, load, redis).await;
}

/// Wipes it and lends every item anew while orders have a hold of the old lease and cannot be committed yet.
async fn wipe_under_orders(stack: &Stack) {
    let lock = format!(
        "BEGIN; LOCK TABLE order_verdicts IN EXCLUSIVE MODE; SELECT pg_sleep({}); COMMIT",
        2.0 * HELD_UP.as_secs_f64()
    );
    let wipe = async {
        tokio::time::sleep(HELD_UP).await;
        stack.stores.redis.cli(&["FLUSHALL"]).await;
        // Items of orders whose commit has begun are not lent before it has ended.
        let lend = DEMAND.items.iter().map(|(item, units)| abandon_hold(&stack.inventory_clients[0], item, *units));
        drop(tokio::time::timeout(HELD_UP / 2, join_all(lend)).await);
    };
    tokio::join!(stack.sql(&lock), wipe);
}

/// Does to six items what an operator might do.
async fn edit(redis: &Redis) {
    for command in [
        &["SET", "scarce-1", "5000"][..],
        &["DEL", "scarce-2"],
        &["SET", "scarce-3", "many"],
        &["HSET", "{scarce-4}:ledger", "sold", "0"],
        &["HINCRBY", "{scarce-5}:ledger", "received", "100"],
        &["DEL", "{scarce-6}:ledger", "{scarce-6}:holds"],
    ] {
        redis.cli(command).await;
    }
}

/// The fault, and the time until the next order.
async fn fault(load: &Load, name: &str, happens: impl AsyncFnOnce()) {
    let mark = load.mark();
    happens().await;
    let recovery = load.next_order(Instant::now()).await;
    load.orders(40).await;
    tell(&format!("Redis {name}"), &load.since(mark), &format!("order after {recovery:.0?}"));
    assert!(recovery <= RECOVERY_LIMIT, "{name}: an order after {recovery:?} only");
}

/// Waits until nothing scarce is left, and balances the books.
async fn sold_out(stack: &Stack, load: Load, redis: &Redis) {
    let most = "SELECT coalesce(max(sold), 0), count(*) FILTER (WHERE sold = 100) FROM \
        (SELECT sum(quantity) AS sold FROM orders WHERE item <> 'plenty' GROUP BY item) AS items";
    let scarce = DEMAND.items.len() - 1;
    let sold_out = async || {
        let row = stack.sql(most).await.concat();
        let (most, sold_out) = row.split_once('|').expect("two columns");
        assert!(most.parse::<i64>().expect("a number") <= STOCK, "{most} of {STOCK} units of an item are sold");
        (sold_out == scarce.to_string()).then_some(())
    };
    eventually(SALE_LIMIT, "all is sold", sold_out).await;
    // They still want it.
    load.orders(50).await;
    let mut known = load.stop().await;
    only(&known.asked, &[201, 409, 503]);
    known.restocked.insert(PLENTY.0.to_owned(), PLENTY.1);
    let orders = at_rest(stack, redis, &known, STOCK, REST_LIMIT).await;
    assert_eq!(stack.sql(most).await, [format!("{STOCK}|{scarce}")], "units sold at most, and items sold out");
    say(&format!("{} orders answered, {orders} in the ledger", known.created.len()));
}

/// What the Sentinel calls its group.
const GROUP: &str = "stock";

#[tokio::test]
async fn a_redis_failed_over_and_back_and_edited_under_load_sells_all_there_is_and_nothing_twice() {
    let first = Redis::start_with(&["--appendonly", "yes"]).await;
    let second = first.replica().await;
    let sentinel = Sentinel::start(&first, GROUP).await;
    let mut stores = Stores::shared(first).await;
    stores.redis_url = format!("{}/{GROUP}", sentinel.url().replace("redis://", "redis+sentinel://"));
    let stack = Stack::start(stores, &SETTINGS).await;
    restock(&stack.inventory_clients, PLENTY.0, PLENTY.1).await;
    let load = Load::start(&stack, DEMAND);
    let first = &stack.stores.redis;
    load.orders(50).await;

    fault(&load, "failed over", async || {
        first.kill().await;
        master(&sentinel, &second).await;
    })
    .await;
    fault(&load, "failed back", async || {
        // It comes back as the master that it was, with the data that it had, until the Sentinel sees it.
        first.start_again().await;
        let again = async || (sentinel.cli(&["SENTINEL", "FAILOVER", GROUP]).await == "OK").then_some(());
        eventually(FAILOVER_LIMIT, "the old master is a good replica", again).await;
        master(&sentinel, first).await;
    })
    .await;
    // Of two items alone, and as the last: what was not opened anew since shows what the failovers did.
    fault(&load, "edited after it", async || {
        for item in ["scarce-1", "scarce-2"] {
            first.cli(&["SET", item, "5000"]).await;
        }
    })
    .await;
    sold_out(&stack, load, first).await;
}

/// Waits until the Sentinel names this server as the master, and it is one.
async fn master(sentinel: &Sentinel, redis: &Redis) {
    let port = redis.port().to_string();
    let named = async || {
        let named = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", GROUP]).await;
        let role = redis.cli(&["ROLE"]).await;
        (named.ends_with(&port) && role.starts_with("master")).then_some(())
    };
    eventually(FAILOVER_LIMIT, "the Sentinel has a new master", named).await;
}
