//! gRPC, on both ports.

use contracts::{
    Failure,
    inventory::v1::{self as inventory, inventory_service_client::InventoryServiceClient},
    orders::v1::{self as orders, order_service_client::OrderServiceClient},
    values::EPOCH_CLAIM_MAX,
};
use system_tests::Client;
use tonic::{Response, Status};

use crate::{ID, Target};

/// The call was refused for this field alone, in the standard way.
#[track_caller]
fn bad_field<T: std::fmt::Debug>(result: Result<Response<T>, Status>, field: &str) {
    let status = result.expect_err(field);
    let failure = Failure::from_status(&status);
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{field}: {status:?}");
    assert_eq!(failure.reason.name(), "INVALID_REQUEST", "{field}");
    let fields: Vec<_> = failure.fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{status:?}");
    assert!(!failure.fields[0].detail.is_empty());
}

const BAD_ITEMS: [&str; 8] = ["", " ", "..", "{widget}", "wid\0get", "wid\u{202e}teg", "widget\n", "\u{feff}widget"];
const BAD_QUANTITIES: [i64; 6] = [i64::MIN, -1, 0, 1_000_001, 4_294_967_297, i64::MAX];
const BAD_CLIENT_IDS: [&str; 5] = [
    "",
    "x",
    "00000000-0000-0000-0000-000000000000",
    "7b1c5f6e2f6b4d0b9d560f3a1c2b4d5e",
    "7b1c5f6e-2f6b-1d0b-9d56-0f3a1c2b4d5e",
];

#[tokio::test]
async fn the_order_service_refuses_what_is_out_of_range() {
    let target = Target::start().await;
    let before = target.state().await;
    let mut client = OrderServiceClient::connect(target.system.url("order gRPC")).await.expect("it listens");
    let good = || orders::CreateOrderRequest { item: "widget".into(), quantity: 1, ..Default::default() };
    for item in BAD_ITEMS {
        bad_field(client.create_order(orders::CreateOrderRequest { item: item.into(), ..good() }).await, "item");
    }
    for quantity in BAD_QUANTITIES {
        bad_field(client.create_order(orders::CreateOrderRequest { quantity, ..good() }).await, "quantity");
    }
    let several =
        orders::CreateOrderRequest { item: String::new(), quantity: 0, attempt_id: Some("?".into()), ..good() };
    let refused = Failure::from_status(&client.create_order(several).await.expect_err("bad"));
    let fields: Vec<_> = refused.fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["item", "quantity", "attempt_id"]);
    for key in ["", "k\n", "k\u{e9}", &"k".repeat(256)] {
        let request = orders::CreateOrderRequest { idempotency_key: Some(key.to_owned()), ..good() };
        bad_field(client.create_order(request).await, "idempotency_key");
    }
    for id in BAD_CLIENT_IDS.into_iter().chain(["7b1c5f6e-2f6b-8d0b-9d56-0f3a1c2b4d5e"]) {
        let request = orders::CreateOrderRequest { reservation_id: Some(id.to_owned()), ..good() };
        bad_field(client.create_order(request).await, "reservation_id");
    }
    for attempt in ["", "a b", "a_b", &"a".repeat(65)] {
        let request = orders::CreateOrderRequest { attempt_id: Some(attempt.to_owned()), ..good() };
        bad_field(client.create_order(request).await, "attempt_id");
    }
    for page_size in [-1, 501, i32::MIN, i32::MAX] {
        let request = orders::ListOrdersRequest { page_size, ..Default::default() };
        bad_field(client.list_orders(request).await, "page_size");
    }
    for page_token in ["x", ".", "1.x", "99999999999999999999.7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e"] {
        let request = orders::ListOrdersRequest { page_token: page_token.into(), ..Default::default() };
        bad_field(client.list_orders(request).await, "page_token");
    }
    for id in ["", "x", ID] {
        let status = client.get_order(orders::GetOrderRequest { id: id.into() }).await.expect_err("no such order");
        assert_eq!(Failure::from_status(&status).reason.name(), "ORDER_NOT_FOUND", "{id}");
    }
    assert_eq!(target.state().await, before);
    target.still_sells().await;
}

#[tokio::test]
async fn the_inventory_service_refuses_what_is_out_of_range() {
    let target = Target::start().await;
    let before = target.state().await;
    let mut client = InventoryServiceClient::connect(target.system.url("inventory gRPC")).await.expect("it listens");
    let hold = || inventory::ReserveRequest { item: "widget".into(), quantity: 1, ..Default::default() };
    let restock = || inventory::RestockRequest { id: ID.into(), item: "widget".into(), quantity: 1 };
    for item in BAD_ITEMS {
        bad_field(client.reserve(inventory::ReserveRequest { item: item.into(), ..hold() }).await, "item");
        bad_field(client.restock(inventory::RestockRequest { item: item.into(), ..restock() }).await, "item");
        bad_field(client.get_stock(inventory::GetStockRequest { item: item.into() }).await, "item");
        if !item.is_empty() {
            let release = inventory::ReleaseRequest { reservation_id: ID.into(), item: item.into() };
            bad_field(client.release(release).await, "item");
        }
    }
    for quantity in BAD_QUANTITIES {
        bad_field(client.reserve(inventory::ReserveRequest { quantity, ..hold() }).await, "quantity");
        bad_field(client.restock(inventory::RestockRequest { quantity, ..restock() }).await, "quantity");
    }
    for id in BAD_CLIENT_IDS {
        let request = inventory::ReserveRequest { reservation_id: Some(id.to_owned()), ..hold() };
        bad_field(client.reserve(request).await, "reservation_id");
    }
    for id in ["", "x", "{7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e}"] {
        let release = inventory::ReleaseRequest { reservation_id: id.into(), item: String::new() };
        bad_field(client.release(release).await, "reservation_id");
        bad_field(client.restock(inventory::RestockRequest { id: id.into(), ..restock() }).await, "id");
    }
    for (seconds, nanos) in [(0, 0), (-1, 0), (86_401, 0), (i64::MAX, 0), (i64::MIN, 0), (60, 1), (60, -1)] {
        let request = inventory::ReserveRequest { ttl: Some(prost_types::Duration { seconds, nanos }), ..hold() };
        bad_field(client.reserve(request).await, "ttl");
    }
    for least_epoch in [-1, i64::MIN, i64::MAX] {
        bad_field(client.reserve(inventory::ReserveRequest { least_epoch, ..hold() }).await, "least_epoch");
    }
    assert_eq!(target.state().await, before);
    target.still_sells().await;
}

#[tokio::test]
async fn the_ledger_service_refuses_what_is_out_of_range() {
    let target = Target::start().await;
    let before = target.state().await;
    let mut client = target.ledger.clone();
    let open = || orders::OpenStockRequest { item: "poison".into(), initial: 100, dead_epoch: 0 };
    let restock = || orders::RecordRestockRequest { id: ID.into(), item: "poison".into(), quantity: 1, initial: 100 };
    for item in BAD_ITEMS {
        bad_field(client.open_stock(orders::OpenStockRequest { item: item.into(), ..open() }).await, "item");
        bad_field(client.record_restock(orders::RecordRestockRequest { item: item.into(), ..restock() }).await, "item");
        let request = orders::GetStockRequest { items: vec!["widget".into(), item.into()], initial: 100 };
        bad_field(client.get_stock(request).await, "items");
    }
    for initial in [-1, i64::MIN, 1_000_000_001, i64::MAX] {
        bad_field(client.open_stock(orders::OpenStockRequest { initial, ..open() }).await, "initial");
        bad_field(client.record_restock(orders::RecordRestockRequest { initial, ..restock() }).await, "initial");
        let request = orders::GetStockRequest { items: vec!["poison".into()], initial };
        bad_field(client.get_stock(request).await, "initial");
    }
    for dead_epoch in [-1, i64::MIN, i64::MAX, i64::MAX - 1] {
        bad_field(client.open_stock(orders::OpenStockRequest { dead_epoch, ..open() }).await, "dead_epoch");
    }
    for quantity in BAD_QUANTITIES {
        bad_field(client.record_restock(orders::RecordRestockRequest { quantity, ..restock() }).await, "quantity");
    }
    for id in ["", "x", "{7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e}"] {
        bad_field(client.record_restock(orders::RecordRestockRequest { id: id.into(), ..restock() }).await, "id");
    }
    for count in [0, 501] {
        let items = (0..count).map(|n| format!("item-{n}")).collect();
        bad_field(client.get_stock(orders::GetStockRequest { items, initial: 100 }).await, "items");
        let reservations = vec![query(ID, None); count];
        bad_field(client.resolve_reservation(orders::ResolveReservationRequest { reservations }).await, "reservations");
    }
    let stamp = |item: &str, epoch, number| Some(orders::Stamp { item: item.into(), epoch, number });
    for bad in [
        query("", None),
        query("x", None),
        query(ID, stamp("", 1, 1)),
        query(ID, stamp("{widget}", 1, 1)),
        query(ID, stamp("widget", 0, 1)),
        query(ID, stamp("widget", -1, 1)),
        query(ID, stamp("widget", 1, -1)),
        query(ID, stamp("widget", 1, i64::MIN)),
    ] {
        // The good one beside it is not judged either.
        let good = query("11111111-1111-4111-8111-111111111111", stamp("widget", 1, 9));
        let request = orders::ResolveReservationRequest { reservations: vec![good, bad] };
        bad_field(client.resolve_reservation(request).await, "reservations");
    }
    let reservations = [ID, "11111111-1111-4111-8111-111111111111"].map(|id| query(id, None)).to_vec();
    let verdicts = client.resolve_reservation(orders::ResolveReservationRequest { reservations }).await;
    let unknown = orders::Verdict::Unknown as i32;
    assert_eq!(verdicts.expect("answered").into_inner().verdicts, [unknown, unknown], "no tombstone was written");
    assert_eq!(target.state().await, before);
    target.still_sells().await;
}

fn query(id: &str, stamp: Option<orders::Stamp>) -> orders::ReservationQuery {
    orders::ReservationQuery { reservation_id: id.into(), stamp }
}

#[tokio::test]
async fn what_is_no_grpc_message_is_refused() {
    let target = Target::start().await;
    let before = target.state().await;
    let order = [b"\x0a\x06widget\x10\x01".as_slice(), b""].concat();
    let frame = |flags: u8, length: u32, message: &[u8]| [&[flags][..], &length.to_be_bytes(), message].concat();
    let large = vec![0; 1024 * 1024 + 1];
    for (what, body) in [
        ("nothing", Vec::new()),
        ("half a frame's head", vec![0, 0]),
        ("no message", frame(0, 0, b"")),
        ("less than was said", frame(0, 100, &order)),
        ("more than may be", frame(0, u32::MAX, &order)),
        ("a large message", frame(0, 1024 * 1024 + 1, &large)),
        ("compressed, but nobody said how", frame(1, 10, &order)),
        ("a flag that does not exist", frame(2, 10, &order)),
        ("no protobuf", frame(0, 4, b"\xff\xff\xff\xff")),
        ("an item that is no UTF-8", frame(0, 6, b"\x0a\x02\xff\xfe\x10\x01")),
        ("an item of the wrong type", frame(0, 4, b"\x08\x01\x10\x01")),
    ] {
        for (port, method) in [
            ("order gRPC", "/orders.v1.OrderService/CreateOrder"),
            ("order gRPC", "/orders.v1.LedgerService/OpenStock"),
            ("inventory gRPC", "/inventory.v1.InventoryService/Reserve"),
        ] {
            // gRPC-Web is gRPC in HTTP/1.1, which a test can write by hand.
            let http = Client::new(target.system.addr(port));
            let kind = [("content-type", "application/grpc-web+proto")];
            let answer = http.send(http::Method::POST, method, &kind, body.clone()).await;
            let refused = grpc_status(&answer).is_some_and(|code| code != 0) || answer.status.is_client_error();
            assert!(refused, "{method}: {what}: {answer:?}");
            assert_eq!(target.state().await, before, "{method}: {what}");
        }
    }
    let http = Client::new(target.system.addr("order gRPC"));
    let answer = http.post("/orders.v1.OrderService/CreateOrder", &serde_json::json!({ "item": "widget" })).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let timeout = [("content-type", "application/grpc-web+proto"), ("grpc-timeout", "soon")];
    let answer =
        http.send(http::Method::POST, "/orders.v1.OrderService/CreateOrder", &timeout, frame(0, 10, &order)).await;
    assert_eq!(grpc_status(&answer), Some(3), "{answer:?}");
    assert_eq!(target.state().await, before);
    // The frame was right all along.
    let kind = [("content-type", "application/grpc-web+proto")];
    let answer =
        http.send(http::Method::POST, "/orders.v1.OrderService/CreateOrder", &kind, frame(0, 10, &order)).await;
    assert_eq!((grpc_status(&answer), target.state().await.created), (Some(0), before.created + 1));
}

/// The code of an answer in gRPC-Web: in the headers, or in the trailers that end the body.
fn grpc_status(answer: &system_tests::Answer) -> Option<u32> {
    if let Ok(code) = answer.header("grpc-status").parse() {
        return Some(code);
    }
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let (_, rest) = body.split_once("grpc-status:")?;
    rest.trim_start().split("\r\n").next()?.parse().ok()
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let target = Target::start().await;
    let before = target.state().await;
    for (port, method) in [
        ("order gRPC", "/orders.v1.OrderService/DeleteOrder"),
        ("order gRPC", "/inventory.v1.InventoryService/Reserve"),
        ("inventory gRPC", "/orders.v1.LedgerService/OpenStock"),
        ("inventory gRPC", "/"),
    ] {
        let http = Client::new(target.system.addr(port));
        let message = [0, 0, 0, 0, 8, 10, 6, b'p', b'o', b'i', b's', b'o', b'n'];
        let kind = [("content-type", "application/grpc-web+proto")];
        let answer = http.send(http::Method::POST, method, &kind, message.to_vec()).await;
        assert_eq!(grpc_status(&answer), Some(12), "{port} {method}: {answer:?}");
    }
    assert_eq!(target.state().await, before);
}

#[tokio::test]
async fn an_epoch_that_somebody_made_up_spoils_one_item_at_most() {
    let target = Target::start().await;
    let mut client = target.ledger.clone();
    let open = |dead_epoch| orders::OpenStockRequest { item: "forged".into(), initial: 100, dead_epoch };
    let mut newest = EPOCH_CLAIM_MAX;
    bad_field(client.open_stock(open(newest + 1)).await, "dead_epoch");
    for _ in 0..3 {
        let answer = client.open_stock(open(newest)).await.expect("lent").into_inner();
        let Some(orders::open_stock_response::Outcome::Lease(lease)) = answer.outcome else { panic!("{answer:?}") };
        assert_eq!(lease.epoch, newest + 1, "however high it is, there is a next one");
        newest = lease.epoch;
    }
    // Its stamps are judged among all others, so the reaper never stops at them.
    let stamp = |item: &str, epoch| orders::Stamp { item: item.into(), epoch, number: 1 };
    let query = |id: u128, stamp| orders::ReservationQuery {
        reservation_id: uuid::Uuid::from_u128(id).to_string(),
        stamp: Some(stamp),
    };
    let reservations = vec![query(1, stamp("forged", newest)), query(2, stamp("widget", 1))];
    let answer = client.resolve_reservation(orders::ResolveReservationRequest { reservations }).await;
    let aborted = i32::from(orders::Verdict::Aborted);
    assert_eq!(answer.expect("judged").into_inner().verdicts, [aborted, aborted]);
    target.still_sells().await;
}
