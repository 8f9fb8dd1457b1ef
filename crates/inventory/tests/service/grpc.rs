use std::time::Duration;

use contracts::{
    DESCRIPTORS, Failure, Reason,
    inventory::v1::{
        GetStockRequest, ReleaseRequest, ReserveRequest, RestockRequest,
        inventory_service_client::InventoryServiceClient, reserve_response::Outcome,
    },
    values::ReservationId,
};
use inventory::grpc::LEAST_EPOCH_MAX;
use prometheus_client::registry::Registry;
use service::{
    rpc::{RpcMetrics, RpcServer},
    server::{Limits, Listener, serve},
};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::world::{Running, World, item};

const CLIENT_ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

impl World {
    /// The service on a port of its own.
    async fn serve(&self) -> (InventoryServiceClient<Channel>, Running) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
        let url = format!("http://{}", listener.addr());
        let metrics = RpcMetrics::register(&mut Registry::default());
        let router = RpcServer::new(self.env.clone(), metrics, DESCRIPTORS).add(self.inventory.service()).router();
        let env = self.env.clone();
        let running = self.run(|stop| serve(listener, router, Limits::default(), env, stop));
        (InventoryServiceClient::connect(url).await.expect("connects"), running)
    }
}

fn good() -> ReserveRequest {
    ReserveRequest {
        reservation_id: Some(CLIENT_ID.into()),
        item: "widget".into(),
        quantity: 2,
        ttl: None,
        least_epoch: 0,
        skip_verdict: false,
    }
}

fn span(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

/// Names of the bad fields.
fn fields(status: &Status) -> Vec<String> {
    let failure = Failure::from_status(status);
    assert_eq!(failure.reason, Reason::InvalidRequest, "{status:?}");
    failure.fields.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn a_bad_reserve_names_every_bad_field_and_changes_nothing() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    let derived = Uuid::new_v8([5; 16]).to_string();
    let other_variant = "6ba7b810-9dad-41d1-c0b4-00c04fd430c8";
    let v1 = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let cases: [(ReserveRequest, &[&str]); 15] = [
        (ReserveRequest { reservation_id: Some(String::new()), ..good() }, &["reservation_id"]),
        (ReserveRequest { reservation_id: Some(v1.into()), ..good() }, &["reservation_id"]),
        (ReserveRequest { reservation_id: Some(other_variant.into()), ..good() }, &["reservation_id"]),
        (ReserveRequest { reservation_id: Some(Uuid::nil().to_string()), ..good() }, &["reservation_id"]),
        (ReserveRequest { reservation_id: Some(derived.replace('-', "")), ..good() }, &["reservation_id"]),
        (ReserveRequest { item: String::new(), ..good() }, &["item"]),
        (ReserveRequest { item: "a{b}".into(), ..good() }, &["item"]),
        (ReserveRequest { quantity: 0, ..good() }, &["quantity"]),
        (ReserveRequest { quantity: -1, ..good() }, &["quantity"]),
        (ReserveRequest { quantity: i64::MAX, ..good() }, &["quantity"]),
        (ReserveRequest { ttl: Some(span(0, 0)), ..good() }, &["ttl"]),
        (ReserveRequest { ttl: Some(span(86_401, 0)), ..good() }, &["ttl"]),
        (ReserveRequest { ttl: Some(span(1, 1)), ..good() }, &["ttl"]),
        (ReserveRequest { least_epoch: LEAST_EPOCH_MAX + 1, ..good() }, &["least_epoch"]),
        (
            ReserveRequest {
                reservation_id: Some("x".into()),
                item: " ".into(),
                quantity: 0,
                ttl: Some(span(-1, 0)),
                least_epoch: -1,
                skip_verdict: true,
            },
            &["reservation_id", "item", "quantity", "ttl", "least_epoch"],
        ),
    ];
    for (request, expected) in cases {
        let status = client.reserve(request.clone()).await.expect_err("refused");
        assert_eq!(fields(&status), expected, "{request:?}");
    }
    assert_eq!((world.ledger.asked(), world.ledger.rows()), (0, (0, 0, 0)));
    assert_eq!(world.counts(&item("widget")).await, None);
}

#[tokio::test]
async fn bad_releases_reads_and_restocks_name_the_field() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    let release = ReleaseRequest { reservation_id: "1".into(), item: "..".into() };
    assert_eq!(fields(&client.release(release).await.expect_err("refused")), ["reservation_id", "item"]);
    let read = GetStockRequest { item: "a\nb".into() };
    assert_eq!(fields(&client.get_stock(read).await.expect_err("refused")), ["item"]);
    let restock = RestockRequest { id: String::new(), item: String::new(), quantity: 1_000_001 };
    assert_eq!(fields(&client.restock(restock).await.expect_err("refused")), ["id", "item", "quantity"]);
    assert_eq!(world.ledger.asked(), 0);
}

#[tokio::test]
async fn a_reserve_without_an_id_gets_one_that_releases_it() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    let request = ReserveRequest { reservation_id: None, ..good() };
    let answer = client.reserve(request).await.expect("answered").into_inner();
    let Some(Outcome::Held(held)) = answer.outcome else { panic!("{answer:?}") };
    assert!(ReservationId::parse_client(&held.reservation_id).is_ok());
    assert_eq!((held.epoch, held.number, held.remaining), (1, 1, 98));
    let release = ReleaseRequest { reservation_id: held.reservation_id, item: String::new() };
    client.release(release).await.expect("released");
    assert_eq!(world.numbers(&item("widget")).await, (1, 100, 0, 0));
}

#[tokio::test]
async fn not_enough_stock_is_an_outcome_and_a_spent_id_an_error() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    let answer = client.reserve(ReserveRequest { quantity: 101, ..good() }).await.expect("answered").into_inner();
    assert!(matches!(answer.outcome, Some(Outcome::Insufficient(short)) if short.remaining == 100));
    client.reserve(good()).await.expect("held");
    let reason = |status: Status| Failure::from_status(&status).reason;
    let status = client.reserve(ReserveRequest { quantity: 3, ..good() }).await.expect_err("refused");
    assert_eq!(reason(status), Reason::ReservationMismatch);
    let release = || ReleaseRequest { reservation_id: CLIENT_ID.into(), item: String::new() };
    client.release(release()).await.expect("released");
    client.release(release()).await.expect("a repeat is answered alike");
    assert_eq!(reason(client.reserve(good()).await.expect_err("refused")), Reason::ReservationReleased);
    let unknown = ReleaseRequest { reservation_id: Uuid::new_v8([1; 16]).to_string(), item: String::new() };
    assert_eq!(reason(client.release(unknown).await.expect_err("refused")), Reason::ReservationNotFound);
}

#[tokio::test]
async fn only_an_id_that_somebody_may_have_used_is_asked_about() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    world.hold(&item("widget"), 1).await;
    for (request, questions) in [
        (good(), 1),
        (good(), 1),
        (ReserveRequest { skip_verdict: true, ..good() }, 0),
        (ReserveRequest { reservation_id: Some(Uuid::new_v8([5; 16]).to_string()), ..good() }, 0),
        (ReserveRequest { reservation_id: None, ..good() }, 0),
    ] {
        let asked = world.ledger.asked();
        client.reserve(request.clone()).await.expect("held");
        assert_eq!(world.ledger.asked() - asked, questions, "{request:?}");
    }
}

#[tokio::test]
async fn stock_is_read_and_restocked_under_the_normalised_name() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    let read = GetStockRequest { item: "cafe\u{301}".into() };
    let answer = client.get_stock(read).await.expect("answered").into_inner();
    assert_eq!((answer.item.as_str(), answer.stock), ("caf\u{e9}", 100));
    let restock = RestockRequest { id: CLIENT_ID.into(), item: "cafe\u{301}".into(), quantity: 5 };
    for _ in 0..2 {
        let answer = client.restock(restock.clone()).await.expect("answered").into_inner();
        assert_eq!((answer.item.as_str(), answer.stock), ("caf\u{e9}", 105));
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable_and_the_cause_stays_inside() {
    let world = World::new().await;
    let (mut client, _running) = world.serve().await;
    world.store.set_down(true);
    let status = client.reserve(good()).await.expect_err("fails");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(!status.message().contains("the test"), "{}", status.message());
}

#[tokio::test]
async fn a_restock_whose_caller_gives_up_between_ledger_and_store_is_finished() {
    let world = World::with_stock(10).await;
    let (mut client, _running) = world.serve().await;
    world.hold(&item("widget"), 1).await;
    let closed = world.store.restocks.acquire().await.expect("never closed");
    let request = RestockRequest { id: CLIENT_ID.into(), item: "widget".into(), quantity: 5 };
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_millis(200));
    client.restock(request).await.expect_err("its deadline has passed");
    assert_eq!(world.ledger.rows().2, 1, "journalled");
    // The server has answered or seen the cancel by the time it has answered this on the same connection.
    client.get_stock(GetStockRequest { item: "widget".into() }).await.expect("answered");
    drop(closed);
    world.until("it is counted", async || world.numbers(&item("widget")).await == (1, 14, 1, 0)).await;
}
