//! Connections to the edges, and edges that come and go.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Value, json};
use service::server::HEADER_READ_TIMEOUT_MS;
use system_tests::{Client, books::at_rest, eventually, gateway::Gateway};

use crate::{
    Target, place_order,
    stand_in::{Act, StandIn},
};

/// While each of the two edges is drained and killed in turn, nobody is answered anything but that an order was placed
/// or that the stock is too small, and every order that was placed was answered.
#[tokio::test]
async fn edges_that_are_restarted_in_turn_fail_nobody() {
    const CLIENTS: usize = 8;
    const STOCK: i64 = 300;
    const ITEMS: [&str; 4] = ["a", "b", "c", "d"];
    let mut target = Target::start(&[("DEFAULT_STOCK", "300")]).await;
    let (done, placed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered: [AtomicUsize; CLIENTS] = Default::default();
    let (gateway, edges) = (&target.gateway, &mut target.edges);
    let order = async |client: usize| {
        let http = Client::new(gateway.addr());
        for n in client.. {
            if done.load(Ordering::Relaxed) {
                return;
            }
            let answer = http.post("/orders", &json!({ "item": ITEMS[n % ITEMS.len()], "quantity": 1 })).await;
            match answer.status.as_u16() {
                201 => drop(placed.fetch_add(1, Ordering::Relaxed)),
                409 => drop(answer.problem(409, "INSUFFICIENT_STOCK")),
                _ => panic!("{answer:?}"),
            }
            answered[client].fetch_add(1, Ordering::Relaxed);
        }
    };
    // Each client has an answer to a request that began after this did.
    let go_on = async || {
        let count = || answered.each_ref().map(|count| count.load(Ordering::Relaxed));
        let before = count();
        let all = async || count().iter().zip(before).all(|(now, before)| *now >= before + 2).then_some(());
        eventually(Duration::from_secs(20), "every client gets answers", all).await;
    };
    let restart = async {
        for round in 0..8 {
            let edge = &mut edges[round % 2];
            if round < 4 {
                edge.stop().await;
            } else {
                edge.kill().await;
            }
            go_on().await;
            edge.start_again().await;
            // A request that met this edge while it was down has no other one than the next to be restarted.
            go_on().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    futures::join!(join_all((0..CLIENTS).map(order)), restart);

    let received = ITEMS.map(|item| (item, STOCK));
    at_rest(&target.system, &received, Duration::from_secs(20)).await;
    let orders = target.orders().await;
    assert_eq!(orders.len(), placed.load(Ordering::Relaxed));
    let total = answered.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let log = target.gateway.access_log(total).await;
    let twice = |line: &&Value| line["upstream_status"].as_str().is_some_and(|statuses| statuses.starts_with("502, "));
    assert!(log.iter().filter(twice).count() > 0, "no request was repeated");
}

/// One is gone: the other does its work. Both are: the client is told to come back. Then they are back, and nothing
/// holds that against them.
#[tokio::test]
async fn edges_that_come_back_are_used_at_once() {
    let mut target = Target::start(&[]).await;
    let mut logged = 0;
    for gone in 1..=2 {
        for edge in &mut target.edges[..gone] {
            edge.kill().await;
        }
        for _ in 0..10 {
            let answer = place_order(&target.gateway.http).await;
            if gone == 1 {
                assert_eq!(answer.status, 201, "{answer:?}");
            } else {
                answer.problem(503, "UNAVAILABLE");
                assert_eq!(answer.header("retry-after"), "1");
            }
        }
        for edge in &mut target.edges[..gone] {
            edge.start_again().await;
        }
        for _ in 0..10 {
            assert_eq!(place_order(&target.gateway.http).await.status, 201);
        }
        logged += 20;
        let log = target.gateway.access_log(logged).await;
        for addr in target.edges.each_ref().map(|edge| edge.addr().to_string()) {
            assert!(log[logged - 10..].iter().any(|line| line["upstream"] == addr), "{addr} is not used: {log:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_to_an_edge_is_kept_and_closed_before_the_edge_would() {
    const REQUESTS: usize = 100;
    let edge = StandIn::start(Act::Answers).await;
    let gateway = Gateway::start(&[edge.addr]).await;
    for _ in 0..REQUESTS {
        assert_eq!(gateway.http.get("/orders").await.status, 200);
    }
    assert_eq!((edge.requests().len(), edge.with(|seen| seen.connections)), (REQUESTS, 1));
    let (patience, margin) = (Duration::from_millis(HEADER_READ_TIMEOUT_MS), Duration::from_secs(2));
    let closed = async || edge.with(|seen| seen.idle.first().copied());
    let idle = eventually(2 * patience, "the connection is closed", closed).await;
    assert!(idle > margin && idle + margin < patience, "{idle:?}");
}
