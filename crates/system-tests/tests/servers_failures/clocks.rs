//! Services whose clocks are an hour off: only what they write as time differs.

use std::{path::PathBuf, time::Duration};

use servers::Redis;
use system_tests::{
    eventually,
    stack::{Stack, Stores, audit::at_rest, load::Load},
};

use crate::{DEFAULT_STOCK, DEMAND, REST_LIMIT, SETTINGS, abandon_hold, only, tell};

#[tokio::test]
async fn with_clocks_an_hour_off_orders_are_placed_and_holds_are_given_back_in_time() {
    let mut stack = Stack::prepare(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    let library = libfaketime();
    for (name, offset) in [("order-service-1", "+3600s"), ("inventory-service-2", "+3600s"), ("edge-1", "-3600s")] {
        let process = stack.service(name);
        process.set("LD_PRELOAD", library.to_str().expect("text"));
        process.set("FAKETIME", offset);
        // A clock that is set does not change the time since the start.
        process.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    stack.start_services();
    stack.until_ready().await;
    let load = Load::start(&stack, DEMAND);
    load.orders(100).await;

    // Every item is opened again, by either service, on leases that the other may have asked for an hour later.
    let mark = load.mark();
    stack.stores.redis.cli(&["FLUSHALL"]).await;
    let recovery = load.next_order(std::time::Instant::now()).await;
    load.orders(100).await;
    tell("clocks an hour off, Redis wiped", &load.since(mark), &format!("order after {recovery:.0?}"));
    assert!(recovery <= Duration::from_secs(2), "an order after {recovery:?} only");

    for service in &stack.inventory_clients {
        abandon_hold(service, "gadget", 5).await.expect("it is held");
    }
    let known = load.stop().await;
    only(&known.asked, &[201]);
    let released = async || (stack.count("reaped_holds_total").await >= 2).then_some(());
    eventually(REST_LIMIT, "the holds are given back", released).await;
    at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
    let ahead = stack.sql("SELECT count(*) FROM orders WHERE created_at > now() + interval '30 minutes'").await;
    assert_ne!(ahead, ["0"], "no clock was off");
}

/// The library that lies about the time.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("this machine lacks libfaketime, of the package of that name: run `just servers`")
}
