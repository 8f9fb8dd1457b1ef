//! A request whose edge fails is sent to the other one, once, and is one order all the same.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use contracts::Reason;
use system_tests::{System, gateway::Gateway};

use crate::{
    ORDER, own_problem, place_order,
    stand_in::{Act, StandIn},
};

/// Longer than an edge takes to say that its deadline of 5 s has passed.
const READ_TIMEOUT: &str = "proxy_read_timeout 6s;";
/// What it is in tests that need not show that.
const READ_TIMEOUT_SHORT: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(900);

/// A gateway that waits for an edge for [`READ_TIMEOUT_SHORT`].
async fn impatient(edges: &[SocketAddr]) -> Gateway {
    let change = |text: String| {
        assert_eq!(text.matches(READ_TIMEOUT).count(), 1);
        text.replace(READ_TIMEOUT, "proxy_read_timeout 1s;")
    };
    Gateway::start_changed(edges, change).await
}

async fn system() -> System {
    System::start(&[("RUST_LOG", "error")]).await
}

async fn orders(system: &System) -> usize {
    system_tests::books::all_orders(&system.http, "").await.len()
}

/// The edge has placed the order, or has not, when its connection ends.
#[tokio::test]
async fn an_order_whose_edge_dies_is_repeated_and_is_one_order() {
    const ORDERS: usize = 20;
    for dies_after in [false, true] {
        let system = system().await;
        let real = system.addr("HTTP");
        let dying = StandIn::start(if dies_after { Act::DiesAfter(real) } else { Act::Dies }).await;
        let gateway = Gateway::start(&[dying.addr, real]).await;
        for _ in 0..ORDERS {
            let answer = place_order(&gateway.http).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        let seen = dying.requests();
        assert!(seen.len() >= ORDERS / 2, "{}", seen.len());
        assert!(seen.iter().all(|request| request.ends_with(ORDER)));
        assert_eq!(orders(&system).await, ORDERS, "dies after: {dies_after}");
        let repeated = gateway.access_log(ORDERS).await;
        let repeated = repeated.iter().filter(|line| line["upstream_status"] == "502, 201").count();
        assert_eq!(repeated, seen.len());
    }
}

#[tokio::test]
async fn an_order_whose_edge_hangs_is_repeated_and_is_one_order() {
    let system = system().await;
    let hanging = StandIn::start(Act::Hangs).await;
    let gateway = impatient(&[hanging.addr, system.addr("HTTP")]).await;
    let since = Instant::now();
    let answers = [place_order(&gateway.http).await, place_order(&gateway.http).await];
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    assert_eq!(hanging.requests().len(), 1);
    let took = since.elapsed();
    assert!((READ_TIMEOUT_SHORT..READ_TIMEOUT_SHORT + SLACK).contains(&took), "{took:?}");
    assert_eq!(orders(&system).await, 2);
}

#[tokio::test]
async fn a_request_is_tried_twice_at_most() {
    for act in [Act::Dies, Act::Hangs] {
        let edges = [StandIn::start(act).await, StandIn::start(act).await, StandIn::start(act).await];
        let gateway = impatient(&[edges[0].addr, edges[1].addr, edges[2].addr]).await;
        let since = Instant::now();
        let answer = place_order(&gateway.http).await;
        if matches!(act, Act::Hangs) {
            own_problem(&answer, 504, Reason::DeadlineExceeded);
            let took = since.elapsed();
            assert!((2 * READ_TIMEOUT_SHORT..2 * READ_TIMEOUT_SHORT + SLACK).contains(&took), "{took:?}");
        } else {
            own_problem(&answer, 503, Reason::Unavailable);
        }
        let requests: Vec<_> = edges.iter().flat_map(StandIn::requests).collect();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!(requests[0], requests[1], "the attempt id too is the same");
    }
}

/// It says then what it knows, and nobody else is bothered with the request.
#[tokio::test]
async fn an_edge_is_waited_for_until_after_its_own_deadline() {
    let slow = StandIn::start(Act::AnswersAfter(Duration::from_millis(5_500))).await;
    let other = StandIn::start(Act::Answers).await;
    let gateway = Gateway::start(&[slow.addr, other.addr]).await;
    assert_eq!(place_order(&gateway.http).await.status, 200);
    assert_eq!((slow.requests().len(), other.requests().len()), (1, 0));
}
