//! The client side.

use std::{sync::Arc, time::Duration};

use contracts::Reason;
use service::rpc_client::{Peer, Repeat, RpcClientMetrics};
use tonic::Status;

use crate::{
    fixture::{env, listener, peer, soon, start, start_at, stock},
    ledger::GET_STOCK,
};

#[tokio::test]
async fn a_peer_that_never_answers_costs_the_deadline_and_no_more() {
    // Connects and stays silent: the kernel accepts, nobody reads.
    let silent = listener().await;
    let running = start().await;
    for peer in [peer(&[silent.addr()], &running.env), running.peer()] {
        let call = running.call(Duration::from_millis(100));
        let failure = soon("the deadline", stock(&peer, &call, "slow")).await.expect_err("no answer");
        assert_eq!(failure.reason, Reason::DeadlineExceeded);
    }
}

#[tokio::test]
async fn tonic_s_cancelled_and_silence_are_a_deadline_exceeded_too() {
    let running = start().await;
    let (peer, call) = (running.peer(), running.call(Duration::from_secs(5)));
    let cancelled = |_, _| async { Err::<tonic::Response<()>, _>(Status::cancelled("Timeout expired")) };
    let failure = peer.unary(&call, GET_STOCK, Repeat::Safe, (), cancelled).await.expect_err("failed");
    assert_eq!(failure.reason, Reason::DeadlineExceeded);

    let (call, silence) = (running.call(Duration::from_millis(50)), |_, _| std::future::pending());
    let answer: Result<(), _> = soon("the deadline", peer.unary(&call, GET_STOCK, Repeat::Safe, (), silence)).await;
    assert_eq!(answer.expect_err("no answer").reason, Reason::DeadlineExceeded);
}

#[tokio::test]
async fn a_deadline_that_is_passed_on_shrinks() {
    let running = start().await;
    let (peer, call) = (running.peer(), running.call(Duration::from_secs(3)));
    let left = async || stock(&peer, &call, "widget").await.expect("answered").stocks[0].epoch;
    let first = left().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = left().await;
    assert!(first <= 3_000 && second <= first - 200 && second > 0, "{first} then {second}");
}

#[tokio::test]
async fn a_call_past_its_deadline_is_not_sent() {
    let running = start().await;
    let failure = stock(&running.peer(), &running.call(Duration::ZERO), "widget").await.expect_err("too late");
    assert_eq!(failure.reason, Reason::DeadlineExceeded);
    assert!(running.ledger.ids.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unavailable() {
    let (env, gone) = (env(), listener().await);
    let addr = gone.addr();
    drop(gone);
    let running = start().await;
    let peer = peer(&[addr], &env);
    let failure = stock(&peer, &running.call(Duration::from_secs(5)), "widget").await.expect_err("not there");
    assert_eq!(failure.reason, Reason::Unavailable);
    let cause = failure.cause.expect("for the operator");
    assert!(cause.contains("ledger") && cause.contains("refused"), "{cause}");
}

#[tokio::test]
async fn several_addresses_share_the_calls() {
    let (one, two) = (start().await, start().await);
    let peer = peer(&[one.addr, two.addr], &one.env);
    for _ in 0..64 {
        stock(&peer, &one.call(Duration::from_secs(5)), "widget").await.expect("answered");
    }
    let seen = [&one, &two].map(|running| running.ledger.ids.lock().unwrap().len());
    assert!(seen[0] > 0 && seen[1] > 0 && seen[0] + seen[1] == 64, "{seen:?}");
}

#[tokio::test]
async fn an_address_that_is_not_there_is_passed_over_and_left_alone() {
    let (gone, running) = (listener().await, start().await);
    let addr = gone.addr();
    drop(gone);
    let peer = peer(&[addr, running.addr], &running.env);
    for _ in 0..16 {
        stock(&peer, &running.call(Duration::from_secs(5)), "widget").await.expect("the other answers");
    }
    // Back, it is asked again.
    let back = start_at(addr).await;
    soon("it is asked again", async {
        while back.ledger.ids.lock().unwrap().is_empty() {
            stock(&peer, &running.call(Duration::from_secs(5)), "widget").await.expect("answered");
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let running = start().await;
    let url = format!("http://localhost:{}", running.addr.port()).parse().expect("a URL");
    let peer = Peer::new("ledger", &[url], Arc::clone(&running.env), &RpcClientMetrics::default()).expect("a good URL");
    stock(&peer, &running.call(Duration::from_secs(5)), "widget").await.expect("answered");
}

#[tokio::test]
async fn a_name_that_is_not_found_is_unavailable() {
    let env = env();
    let url = "http://no-such-name.invalid:1".parse().expect("a URL");
    let peer = Peer::new("ledger", &[url], Arc::clone(&env), &RpcClientMetrics::default()).expect("a good URL");
    let call = service::call::Call::background(&*env);
    let failure = stock(&peer, &call, "widget").await.expect_err("nobody has that name");
    assert_eq!(failure.reason, Reason::Unavailable);
}

#[tokio::test]
async fn a_peer_needs_a_url() {
    assert!(Peer::new("ledger", &[], Arc::clone(&env()), &RpcClientMetrics::default()).is_err());
}
