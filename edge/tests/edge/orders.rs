//! `/orders`.

use std::time::Duration;

use contracts::{Failure, Reason};
use serde_json::json;

use crate::support::{
    System,
    peers::{Behaviour, ORDER_ID, PAGE_TOKEN, RESERVATION_ID, TIME},
};

const ONE: &str = r#"{"item":"widget","quantity":1}"#;

#[tokio::test]
async fn an_order_is_placed() {
    let system = System::start().await;
    let answer = system.post("/orders", ONE).await;
    assert_eq!(answer.status, 201);
    answer.check_headers();
    assert_eq!(answer.header("location"), Some(&*format!("/orders/{ORDER_ID}")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("idempotent-replayed"), None);
    let order = json!({ "id": ORDER_ID, "item": "widget", "quantity": 1, "status": "confirmed", "created_at": TIME });
    assert_eq!(answer.json(), order);
    system.peers.seen(|seen| {
        let [create] = &seen.creates[..] else { panic!("{seen:?}") };
        assert_eq!((create.item.as_str(), create.quantity), ("widget", 1));
        assert_eq!((&create.idempotency_key, &create.reservation_id), (&None, &None));
    });

    let alias = system.post("/orders", r#"{"item_id":"cafe\u0301","quantity":1000000}"#).await;
    assert_eq!((alias.status, &alias.json()["item"]), (201, &json!("caf\u{e9}")));
}

#[tokio::test]
async fn a_replayed_order_says_so_and_is_the_same() {
    let system = System::start().await;
    let first = system.post_with("/orders", "Idempotency-Key: k\r\n", ONE).await;
    system.peers.behave(Behaviour::Replay);
    let second = system.post_with("/orders", "Idempotency-Key: k\r\n", ONE).await;
    assert_eq!(second.status, 201);
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!(second.body, first.body);
}

#[tokio::test]
async fn key_and_reservation_reach_the_order_service() {
    let system = System::start().await;
    let body = json!({ "item": "widget", "quantity": 1, "reservation_id": RESERVATION_ID.to_uppercase() }).to_string();
    for (value, key) in [("k-1", "k-1"), (r#""a \"b\" \\""#, r#"a "b" \"#)] {
        let answer = system.post_with("/orders", &format!("Idempotency-Key: {value}\r\n"), &body).await;
        assert_eq!(answer.status, 201);
        system.peers.seen(|seen| {
            let create = seen.creates.last().expect("a call");
            assert_eq!(create.idempotency_key.as_deref(), Some(key));
            assert_eq!(create.reservation_id.as_deref(), Some(RESERVATION_ID));
        });
    }
}

#[tokio::test]
async fn bad_keys_are_named_with_everything_else_that_is_bad() {
    let system = System::start().await;
    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(256));
    for lines in [
        "Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
        "Idempotency-Key: \r\n",
        "Idempotency-Key: \"a\r\n",
        "Idempotency-Key: k\u{e9}\r\n",
        &long,
    ] {
        let bad = system.post_with("/orders?x=1", lines, r#"{"item":"widget","quantity":0}"#).await.bad_fields();
        assert_eq!(bad, ["parameter:x", "header:Idempotency-Key", "pointer:/quantity"], "{lines}");
    }
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn an_attempt_has_one_id_taken_or_made() {
    let system = System::start().await;
    for lines in ["X-Attempt-Id: try-1\r\n", "", "X-Attempt-Id: a b\r\n", "X-Attempt-Id: a\r\nX-Attempt-Id: a\r\n"] {
        assert_eq!(system.post_with("/orders", lines, ONE).await.status, 201, "{lines}");
    }
    let ids = system.peers.seen(|seen| seen.creates.iter().map(|c| c.attempt_id.clone()).collect::<Vec<_>>());
    assert_eq!(ids[0].as_deref(), Some("try-1"));
    let mut made: Vec<_> = ids[1..].iter().map(|id| id.clone().expect("an id")).collect();
    assert!(made.iter().all(|id| id.len() == 36), "{made:?}");
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 3, "each is made anew");
}

#[tokio::test]
async fn the_deadline_is_made_here_and_passed_on() {
    let system = System::start().await;
    system.post_with("/orders", "X-Request-Id: abc\r\n", ONE).await;
    system.peers.seen(|seen| {
        assert_eq!(seen.request_ids, ["abc"]);
        let left = seen.timeouts[0];
        assert!(left > Duration::from_secs(4) && left <= Duration::from_secs(5), "{left:?}");
    });
}

#[tokio::test]
async fn an_order_is_read() {
    let system = System::start().await;
    let answer = system.get(&format!("/orders/{ORDER_ID}")).await;
    assert_eq!(answer.status, 200);
    let order = json!({ "id": ORDER_ID, "item": "widget", "quantity": 2, "status": "confirmed", "created_at": TIME });
    assert_eq!(answer.json(), order);
}

#[tokio::test]
async fn an_order_that_is_not_there_is_404_and_so_is_what_is_no_id() {
    let system = System::start().await;
    let unhyphenated = ORDER_ID.replace('-', "");
    for id in ["1", "x%20y", "a%2Fb", &unhyphenated, "%00", "{}"] {
        system.get(&format!("/orders/{id}")).await.problem(Reason::OrderNotFound);
    }
    assert_eq!(system.peers.calls(), 0);
    system.peers.behave(Behaviour::Fail(Failure::of(Reason::OrderNotFound)));
    system.get(&format!("/orders/{ORDER_ID}")).await.problem(Reason::OrderNotFound);
}

#[tokio::test]
async fn orders_are_listed_by_page() {
    let system = System::start().await;
    let answer = system.get("/orders?limit=2&page_token=a%2Bb%3D&item=wid%67et").await;
    assert_eq!(answer.status, 200);
    let page = answer.json();
    assert_eq!(page["next_page_token"], PAGE_TOKEN);
    let items: Vec<_> = page["orders"].as_array().expect("a list").iter().map(|order| order["item"].clone()).collect();
    assert_eq!(items, ["b", "a"]);
    for target in ["/orders", "/orders?", "/orders?item=&limit=&page_token="] {
        assert_eq!(system.get(target).await.status, 200, "{target}");
    }
    system.peers.seen(|seen| {
        let asked = |n: usize| (&*seen.lists[n].item, seen.lists[n].page_size, &*seen.lists[n].page_token);
        assert_eq!(asked(0), ("widget", 2, "a+b="));
        for n in 1..=3 {
            assert_eq!(asked(n), ("", 0, ""));
        }
    });
}

#[tokio::test]
async fn bad_parameters_are_named_at_once() {
    let system = System::start().await;
    let bad = system.get("/orders?limit=501&item=..&x=1&page_token=a&page_token=b").await.bad_fields();
    assert_eq!(bad, ["parameter:x", "parameter:page_token", "parameter:item", "parameter:limit"]);
    for limit in ["0", "-1", "1.5", "ten", "99999999999"] {
        assert_eq!(system.get(&format!("/orders?limit={limit}")).await.bad_fields(), ["parameter:limit"]);
    }
    assert_eq!(system.get("/orders?item=%zz").await.bad_fields(), ["parameter:item"]);
    assert_eq!(system.get("/orders?item=%ff").await.bad_fields(), ["parameter:item"]);
    assert_eq!(system.peers.calls(), 0);
    // Only the order service can judge this one.
    system.peers.behave(Behaviour::Fail(Failure::field("page_token", "is not of this list")));
    assert_eq!(system.get("/orders?page_token=x").await.bad_fields(), ["parameter:page_token"]);
}
