//! `/reserve`, `/reservations` and `/inventory`.

use std::collections::HashSet;

use contracts::{Failure, Reason, values::ReservationId};
use serde_json::json;

use crate::support::{
    System,
    peers::{Behaviour, ORDER_ID, RESERVATION_ID, STOCK, TIME},
};

#[tokio::test]
async fn units_are_reserved() {
    let system = System::start().await;
    let answer = system.post("/reserve", r#"{"item":"widget","quantity":3}"#).await;
    assert_eq!(answer.status, 200);
    answer.check_headers();
    let held = json!({ "success": true, "remaining": STOCK, "reservation_id": RESERVATION_ID, "expires_at": TIME });
    assert_eq!(answer.json(), held);
    let body = json!({ "item_id": "widget", "quantity": 3, "ttl_seconds": 86400, "reservation_id": RESERVATION_ID });
    assert_eq!(system.post("/reserve", &body.to_string()).await.status, 200);
    system.peers.seen(|seen| {
        let [plain, full] = &seen.reserves[..] else { panic!("{seen:?}") };
        assert_eq!((&plain.ttl, plain.least_epoch), (&None, 0));
        assert_eq!((full.item.as_str(), full.quantity), ("widget", 3));
        assert_eq!(full.reservation_id.as_deref(), Some(RESERVATION_ID));
        assert_eq!(full.ttl.as_ref().map(|ttl| (ttl.seconds, ttl.nanos)), Some((86_400, 0)));
    });
}

#[tokio::test]
async fn a_reserve_that_is_repeated_for_the_client_asks_for_the_same_hold() {
    let system = System::start().await;
    for (attempt, quantity) in [("a", 3), ("a", 3), ("b", 3), ("a", 4)] {
        let body = json!({ "item": "widget", "quantity": quantity }).to_string();
        let line = format!("X-Attempt-Id: {attempt}\r\n");
        assert_eq!(system.post_with("/reserve", &line, &body).await.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(system.post("/reserve", r#"{"item":"widget","quantity":3}"#).await.status, 200);
    }
    system.peers.seen(|seen| {
        let ids: Vec<&str> = seen.reserves.iter().filter_map(|one| one.reservation_id.as_deref()).collect();
        let different: HashSet<&&str> = ids.iter().collect();
        assert_eq!((ids.len(), different.len()), (6, 5), "{ids:?}");
        assert_eq!(ids[0], ids[1], "the gateway's repeat");
        assert!(ids.iter().all(|id| ReservationId::parse_client(id).is_ok()), "{ids:?}");
    });
}

/// The gateway's first try may have made a short hold that has ended before its second.
#[tokio::test]
async fn a_hold_that_the_client_has_not_heard_of_cannot_have_ended_for_it() {
    let system = System::start().await;
    system.peers.behave(Behaviour::Fail(Failure::of(Reason::ReservationReleased)));
    system.post("/reserve", r#"{"item":"widget","quantity":3}"#).await.problem(Reason::ReservationReleased);
    let own = json!({ "item": "widget", "quantity": 3, "reservation_id": RESERVATION_ID }).to_string();
    system.post("/reserve", &own).await.problem(Reason::ReservationReleased);
    system.peers.seen(|seen| {
        let asked: Vec<_> = seen.reserves.iter().map(|one| (one.reservation_id.as_deref(), one.skip_verdict)).collect();
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked[0].1 && asked[1].1 && asked[0].0 != asked[1].0, "{asked:?}");
        assert_eq!(asked[2], (Some(RESERVATION_ID), false), "it is the client's to choose another");
    });
}

#[tokio::test]
async fn too_little_stock_is_an_outcome_of_a_reserve() {
    let system = System::start().await;
    system.peers.behave(Behaviour::Insufficient(2));
    let answer = system.post("/reserve", r#"{"item":"widget","quantity":3}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "success": false, "remaining": 2 })));
}

#[tokio::test]
async fn bad_reserves_are_refused_before_anybody_is_asked() {
    let system = System::start().await;
    for (member, value) in [
        ("ttl_seconds", json!(0)),
        ("ttl_seconds", json!(86_401)),
        ("ttl_seconds", json!(1.0)),
        ("ttl_seconds", json!("900")),
        ("ttl_seconds", json!(null)),
        ("reservation_id", json!("x")),
        ("reservation_id", json!(7)),
        // Derived ids are of version 8: a client must not bring one.
        ("reservation_id", json!(ORDER_ID)),
        ("least_epoch", json!(1)),
    ] {
        let mut body = json!({ "item": "widget", "quantity": 1 });
        body[member] = value.clone();
        for path in ["/reserve", "/orders"] {
            let bad = system.post(path, &body.to_string()).await.bad_fields();
            assert_eq!(bad, [format!("pointer:/{member}")], "{path} {value}");
        }
    }
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn a_reservation_is_released() {
    let system = System::start().await;
    let answer = system.delete(&format!("/reservations/{}", RESERVATION_ID.to_uppercase())).await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (204, 0, None));
    answer.check_headers();
    system.peers.seen(|seen| {
        let [release] = &seen.releases[..] else { panic!("{seen:?}") };
        assert_eq!((release.reservation_id.as_str(), release.item.as_str()), (RESERVATION_ID, ""));
    });
    system.delete("/reservations/7").await.problem(Reason::ReservationNotFound);
    assert_eq!(system.peers.calls(), 1);
    for reason in [Reason::ReservationNotFound, Reason::ReservationConfirmed] {
        system.peers.behave(Behaviour::Fail(Failure::of(reason)));
        system.delete(&format!("/reservations/{RESERVATION_ID}")).await.problem(reason);
    }
}

#[tokio::test]
async fn stock_is_read_by_decoded_item() {
    let system = System::start().await;
    for (target, item) in [
        ("widget", "widget"),
        ("a%2Fb", "a/b"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("100%25", "100%"),
        ("%E2%82%AC", "\u{20ac}"),
        ("cafe%CC%81", "caf\u{e9}"),
        ("...", "..."),
    ] {
        let answer = system.get(&format!("/inventory/{target}")).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "item": item, "stock": STOCK })), "{target}");
    }
}

#[tokio::test]
async fn bad_items_in_a_path_are_400() {
    let system = System::start().await;
    for target in [".", "..", "%2e%2E", "a%7Bb", "%20a", "a%00", "%E2%80%AE", &"a".repeat(129)] {
        assert_eq!(system.get(&format!("/inventory/{target}")).await.bad_fields(), ["parameter:item"], "{target}");
    }
    let body = json!({ "id": "x", "quantity": 0 }).to_string();
    let bad = system.post("/inventory/../restocks", &body).await.bad_fields();
    assert_eq!(bad, ["parameter:item", "pointer:/id", "pointer:/quantity"]);
    let bad = system.post("/inventory//restocks", &body).await.bad_fields();
    assert_eq!(bad, ["parameter:item", "pointer:/id", "pointer:/quantity"]);
    for target in ["/inventory", "/inventory/", "/inventory/a/b"] {
        system.get(target).await.problem(Reason::RouteNotFound);
    }
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn stock_comes_in_under_an_id_of_any_version() {
    let system = System::start().await;
    for id in [ORDER_ID, RESERVATION_ID, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "00000000-0000-0000-0000-000000000000"]
    {
        let body = json!({ "id": id, "quantity": 5 }).to_string();
        let answer = system.post("/inventory/a%2Fb/restocks", &body).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "item": "a/b", "stock": STOCK })));
        system.peers.seen(|seen| {
            let restock = seen.restocks.last().expect("a call");
            assert_eq!((&*restock.id, &*restock.item, restock.quantity), (id, "a/b", 5));
        });
    }
    let bad = system.post("/inventory/widget/restocks", "{}").await.bad_fields();
    assert_eq!(bad, ["pointer:/id", "pointer:/quantity"]);
}
