//! Parts of the real stack are not there, die, hang, fill up, lose their data or have a wrong clock, under load: what the
//! clients are told meanwhile, how soon it works again, and that everything adds up afterwards.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

mod broker;
mod clocks;
mod frozen;
mod kills;
mod outages;
mod pairs;
mod starts;
mod stock_store;

use std::time::{Duration, Instant};

use contracts::inventory::v1::{ReserveRequest, inventory_service_client::InventoryServiceClient};
use serde_json::json;
use system_tests::{
    Answer,
    stack::{
        Stack,
        load::{Asked, Demand, Known, longest_gap, nine_of_ten, slowest, statuses},
    },
};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

/// Units of every item at first.
const DEFAULT_STOCK: i64 = 1_000_000;
const SETTINGS: [(&str, &str); 3] =
    [("DEFAULT_STOCK", "1000000"), ("RESERVATION_TTL_SECONDS", "2"), ("RUST_LOG", "warn")];
/// Everything adds up within the life of a hold and 5 s (I10).
const REST_LIMIT: Duration = Duration::from_secs(2 + 5);
/// What the usual clients buy.
const DEMAND: Demand = Demand {
    items: &[("widget", 1), ("gadget", 2), ("gizmo", 3)],
    restocked: Some("widget"),
    clients: 8,
    pause: Duration::from_millis(10),
};
/// Nine of ten who ask while something is down are told so within this,
const REFUSAL_LIMIT: Duration = Duration::from_millis(250);
/// and all of them within this, on two cores that everything shares.
const REFUSAL_LIMIT_OF_ALL: Duration = Duration::from_secs(1);

/// Asks for orders, one after the other, and notes what was answered.
async fn ask(stack: &Stack, known: &mut Known, times: usize) -> Vec<Asked> {
    let mark = known.asked.len();
    for _ in 0..times {
        let sent = Instant::now();
        let answer = stack.http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await;
        known.note(None, ("widget", 1), sent, &answer);
    }
    known.asked[mark..].to_vec()
}

/// Repeats every key: those that were answered answer the same, and the others are answered now.
async fn repeat_keys(stack: &Stack, known: &mut Known) {
    for (key, (item, units, _)) in known.keys.clone() {
        let sent = Instant::now();
        let answer: Answer =
            stack.http.post_with_key("/orders", &key, &json!({ "item": item, "quantity": units })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        known.note(Some(&key), (&item, units), sent, &answer);
    }
}

/// Makes a hold as an order service does that then dies before its commit. It is due after 2 s.
async fn abandon_hold(service: &InventoryServiceClient<Channel>, item: &str, quantity: i64) -> Result<(), Status> {
    let ttl = prost_types::Duration { seconds: 2, nanos: 0 };
    let id = Uuid::new_v8(*Uuid::new_v4().as_bytes()).to_string();
    let (reservation_id, item) = (Some(id), item.to_owned());
    let hold = ReserveRequest { reservation_id, item, quantity, ttl: Some(ttl), ..ReserveRequest::default() };
    service.clone().reserve(hold).await.map(drop)
}

/// Fails when an answer has another status than these.
#[track_caller]
fn only(asked: &[Asked], allowed: &[u16]) {
    assert!(!asked.is_empty(), "nothing was answered");
    let statuses = statuses(asked);
    assert!(statuses.keys().all(|status| allowed.contains(status)), "{statuses:?}");
}

/// Fails unless who asked was told soon.
#[track_caller]
fn told_soon(asked: &[Asked]) {
    let (most, all) = (nine_of_ten(asked), slowest(asked));
    assert!(most <= REFUSAL_LIMIT && all <= REFUSAL_LIMIT_OF_ALL, "nine of ten told after {most:?}, all after {all:?}");
}

/// Statuses and waits.
fn summary(asked: &[Asked]) -> String {
    format!("{:?}, nine of ten within {:.0?}, all within {:.0?}", statuses(asked), nine_of_ten(asked), slowest(asked))
}

/// For who reads what a test has measured.
#[expect(clippy::print_stdout, reason = "the test runner shows it")]
fn say(text: &str) {
    println!("{text}");
}

/// One line about a fault.
fn tell(fault: &str, asked: &[Asked], more: &str) {
    say(&format!("{fault}: {}, no order for {:.0?}; {more}", summary(asked), longest_gap(asked)));
}
