//! `/healthz` and `/readyz`.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use contracts::Reason;
use serde_json::json;

use crate::support::System;

#[tokio::test]
async fn ready_means_that_an_order_can_be_placed() {
    let system = System::start().await;
    let ready = system.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json(), json!({ "status": "ready", "parts": { "order": "ok", "inventory": "ok" } }));

    system.health.say("inventory.v1.InventoryService", false);
    let degraded = system.get("/readyz").await;
    assert_eq!(degraded.status, 200);
    assert_eq!(degraded.json(), json!({ "status": "degraded", "parts": { "order": "ok", "inventory": "failing" } }));

    system.health.say("orders.v1.OrderService", false);
    let problem = system.get("/readyz").await.problem(Reason::Unavailable);
    assert_eq!(problem["parts"], json!({ "order": "failing", "inventory": "failing" }));

    system.health.say("orders.v1.OrderService", true);
    assert_eq!(system.get("/readyz").await.status, 200, "nothing is remembered");
}

#[tokio::test]
async fn a_draining_edge_is_not_ready_but_lives() {
    let system = System::start().await;
    system.ready.store(false, Ordering::Relaxed);
    let problem = system.get("/readyz").await.problem(Reason::Unavailable);
    assert_eq!(problem["parts"]["order"], "ok");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("about to end")), "{problem}");
    let live = system.get("/healthz").await;
    assert_eq!((live.status, live.json()), (200, json!({ "status": "ok" })));
}

#[tokio::test]
async fn without_peers_the_edge_lives_and_says_soon_that_it_is_not_ready() {
    let system = System::start().await;
    system.stop_peers().await;
    let start = Instant::now();
    let problem = system.get("/readyz").await.problem(Reason::Unavailable);
    assert_eq!(problem["parts"], json!({ "order": "failing", "inventory": "failing" }));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(system.get("/healthz").await.status, 200);
}
