//! Every refusal and failure as a problem.

use std::time::{Duration, Instant};

use contracts::{Failure, Reason};
use serde_json::json;
use tonic::Code;

use crate::support::{System, peers::Behaviour};

const ONE: &str = r#"{"item":"widget","quantity":1}"#;

#[tokio::test]
async fn every_reason_of_a_peer_becomes_its_problem() {
    let system = System::start().await;
    for reason in Reason::ALL {
        if *reason == Reason::MethodNotAllowed {
            continue; // Only the edge itself says it, with Allow.
        }
        system.peers.behave(Behaviour::Fail(Failure::of(*reason).because("sqlite at 10.0.0.7")));
        for path in ["/orders", "/reserve"] {
            let answer = system.post(path, ONE).await;
            let body = answer.problem(*reason);
            assert_eq!(body["detail"], reason.meaning());
            assert!(!body.to_string().contains("10.0.0.7"), "{body}");
        }
    }
}

#[tokio::test]
async fn too_little_stock_for_an_order_is_409_and_says_how_much_there_is() {
    let system = System::start().await;
    system.peers.behave(Behaviour::Fail(Failure::insufficient(7)));
    let body = system.post("/orders", ONE).await.problem(Reason::InsufficientStock);
    assert_eq!((&body["error"], &body["remaining"]), (&json!("insufficient_stock"), &json!(7)));
}

#[tokio::test]
async fn statuses_without_a_reason_are_judged_by_their_code_and_tell_nothing() {
    let system = System::start().await;
    for (code, reason) in [
        (Code::Cancelled, Reason::DeadlineExceeded),
        (Code::DeadlineExceeded, Reason::DeadlineExceeded),
        (Code::Unavailable, Reason::Unavailable),
        (Code::ResourceExhausted, Reason::Overloaded),
        (Code::Unknown, Reason::Internal),
        (Code::Unimplemented, Reason::Internal),
        (Code::PermissionDenied, Reason::Internal),
    ] {
        system.peers.behave(Behaviour::Status(code));
        let body = system.get("/inventory/widget").await.problem(reason);
        assert!(!body.to_string().contains("10.0.0.7"), "{body}");
    }
}

#[tokio::test]
async fn an_empty_answer_of_a_peer_is_an_internal_error() {
    let system = System::start().await;
    system.peers.behave(Behaviour::Empty);
    system.post("/orders", ONE).await.problem(Reason::Internal);
    system.post("/reserve", ONE).await.problem(Reason::Internal);
}

#[tokio::test]
async fn a_peer_that_hangs_is_504_at_the_deadline() {
    let system = System::start().await;
    system.peers.behave(Behaviour::Hang);
    let start = Instant::now();
    let (order, reserve, stock) =
        tokio::join!(system.post("/orders", ONE), system.post("/reserve", ONE), system.get("/inventory/widget"),);
    for answer in [order, reserve, stock] {
        answer.problem(Reason::DeadlineExceeded);
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn a_peer_that_is_gone_is_503_at_once() {
    let system = System::start().await;
    system.stop_peers().await;
    let start = Instant::now();
    let answer = system.post("/orders", ONE).await;
    let body = answer.problem(Reason::Unavailable);
    assert!(!body.to_string().contains("127.0.0.1"), "{body}");
    system.get("/inventory/widget").await.problem(Reason::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
