//! gRPC as strangers write it, to an order service over an embedded ledger: deadlines, page tokens, and messages.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use axum::{Router, body::Body};
use broker::{Broker, BrokerError, Consumer, Message as BrokerMessage, PublishOutcome, QueueSpec};
use contracts::{
    DESCRIPTORS, Failure,
    orders::v1::{self as proto, get_books_request::Which},
    values::{Item, ReservationId, Ttl},
};
use http::{HeaderValue, Request, Version};
use http_body_util::BodyExt;
use order::{
    assembly::{OrderService, Ports},
    inventory::{Inventory, Reserve, Reserved},
    ledger::sqlite::SqliteLedger,
    metrics::OrderMetrics,
};
use prometheus_client::registry::Registry;
use proptest::{collection::vec, prelude::*, sample::select};
use prost::Message;
use service::{
    call::Call,
    environment::{Env, RealEnvironment},
    rpc::{RpcMetrics, RpcServer},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::{
    driver::{self, Inputs, Verdict, word},
    rules,
};

/// The order service, asked without a socket.
struct Orders {
    runtime: Runtime,
    router: Router,
    _folder: TempDir,
}

impl Orders {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = TempDir::new().expect("a folder");
        let router = runtime.block_on(async {
            let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
            let ledger = SqliteLedger::open(&folder.path().join("ledger.db"), env.clone()).await.expect("opens");
            let ports = Ports { env: env.clone(), ledger, inventory: Arc::new(SoldOut), broker: Arc::new(NoBroker) };
            let metrics = OrderMetrics::register(&mut Registry::default());
            let service = OrderService::new(ports, Ttl::DEFAULT, &metrics, &CancellationToken::new());
            RpcServer::new(env, RpcMetrics::register(&mut Registry::default()), DESCRIPTORS)
                .add(service.orders)
                .add(service.ledger)
                .router()
        });
        Self { runtime, router, _folder: folder }
    }

    fn ask(&self, method: &str, message: &[u8], timeout: Option<HeaderValue>) -> Status {
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).expect("small").to_be_bytes());
        body.extend_from_slice(message);
        let mut request =
            Request::post(format!("/{method}")).version(Version::HTTP_2).header("content-type", "application/grpc");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(Body::from(body)).expect("valid");
        self.runtime.block_on(async {
            let (parts, body) = self.router.clone().oneshot(request).await.expect("infallible").into_parts();
            let body = body.collect().await.expect("whole");
            let trailers = body.trailers().and_then(Status::from_header_map);
            trailers.or_else(|| Status::from_header_map(&parts.headers)).expect("a status")
        })
    }
}

/// An inventory that has nothing.
struct SoldOut;

#[async_trait]
impl Inventory for SoldOut {
    async fn reserve(&self, _: &Call, _: &Reserve) -> Result<Reserved, Failure> {
        Ok(Reserved::Insufficient { remaining: 0 })
    }

    async fn release(&self, _: &Call, _: ReservationId, _: &Item) -> Result<(), Failure> {
        Ok(())
    }
}

/// Nobody runs the relay.
struct NoBroker;

#[async_trait]
impl Broker for NoBroker {
    async fn declare(&self, _: &QueueSpec) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, _: &[BrokerMessage]) -> Result<Vec<PublishOutcome>, BrokerError> {
        Err(BrokerError("not here".into()))
    }

    async fn consume(&self, _: &str, _: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(BrokerError("not here".into()))
    }

    async fn depth(&self, _: &str) -> Result<u64, BrokerError> {
        Ok(0)
    }
}

#[test]
fn a_deadline_is_taken_exactly_when_grpc_says_so() {
    let orders = Orders::start();
    driver::run("deadlines", deadlines(), |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return Ok(()) };
        let code = orders.ask("orders.v1.OrderService/GetOrder", b"", Some(value)).code();
        let (digits, unit) = input.split_at(input.len().saturating_sub(1));
        let good = (1..=8).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_digit)
            && b"HMSmun".contains(unit.first().unwrap_or(&0));
        if good {
            prop_assert!([Code::NotFound, Code::DeadlineExceeded].contains(&code), "{code:?}");
            let long = b"HM".contains(&unit[0]) && digits.iter().any(|digit| *digit != b'0');
            prop_assert!(!long || code == Code::NotFound, "a minute is enough");
        } else {
            prop_assert_eq!(code, Code::InvalidArgument);
        }
        Ok(())
    });
}

fn deadlines() -> Inputs {
    prop_oneof!["[0-9]{0,9}[HMSmunhs]?", "[+-]?[0-9.]{0,4}[ -~]", "99999999[HMSmun]"]
        .prop_map(String::into_bytes)
        .boxed()
}

#[test]
fn a_page_token_is_taken_exactly_when_it_is_one_that_was_given_out() {
    let orders = Orders::start();
    driver::run("page_tokens", page_tokens(), |input| {
        let Ok(token) = String::from_utf8(input.to_vec()) else { return Ok(()) };
        let good = token.is_empty()
            || token.split_once('.').is_some_and(|(micros, id)| {
                micros.parse::<i64>().is_ok_and(|n| n.to_string() == micros) && rules::uuid(id).is_some()
            });
        let message = proto::ListOrdersRequest { page_token: token, ..Default::default() };
        let code = orders.ask("orders.v1.OrderService/ListOrders", &message.encode_to_vec(), None).code();
        prop_assert_eq!(code, if good { Code::Ok } else { Code::InvalidArgument });
        Ok(())
    });
}

fn page_tokens() -> Inputs {
    let id = "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    let number = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), "[+-]?0?[0-9]{0,20}"];
    prop_oneof![
        4 => (number, id).prop_map(|(number, id)| format!("{number}.{id}")),
        1 => "[0-9.a-f-]{0,60}",
        1 => any::<String>(),
    ]
    .prop_map(String::into_bytes)
    .boxed()
}

const METHODS: [&str; 8] = [
    "orders.v1.OrderService/CreateOrder",
    "orders.v1.OrderService/GetOrder",
    "orders.v1.OrderService/ListOrders",
    "orders.v1.LedgerService/OpenStock",
    "orders.v1.LedgerService/GetStock",
    "orders.v1.LedgerService/ResolveReservation",
    "orders.v1.LedgerService/RecordRestock",
    "orders.v1.LedgerService/GetBooks",
];

/// An input is the number of a method, as a digit, and the bytes of its message.
#[test]
fn no_message_makes_the_order_service_fail() {
    let orders = Orders::start();
    driver::run("messages", messages(), |input| check_message(&orders, input));
}

fn check_message(orders: &Orders, input: &[u8]) -> Verdict {
    let Some((number, message)) = input.split_first() else { return Ok(()) };
    let number = usize::from(number.wrapping_sub(b'0'));
    let Some(method) = METHODS.get(number) else { return Ok(()) };
    let whole = match number {
        0 => proto::CreateOrderRequest::decode(message).is_ok(),
        1 => proto::GetOrderRequest::decode(message).is_ok(),
        2 => proto::ListOrdersRequest::decode(message).is_ok(),
        3 => proto::OpenStockRequest::decode(message).is_ok(),
        4 => proto::GetStockRequest::decode(message).is_ok(),
        5 => proto::ResolveReservationRequest::decode(message).is_ok(),
        6 => proto::RecordRestockRequest::decode(message).is_ok(),
        _ => proto::GetBooksRequest::decode(message).is_ok(),
    };
    let status = orders.ask(method, message, None);
    let fine = [Code::Ok, Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::AlreadyExists];
    // tonic calls bytes that are no message INTERNAL.
    prop_assert!(fine.contains(&status.code()) || (!whole && status.code() == Code::Internal), "{method}: {status:?}");
    Ok(())
}

fn messages() -> Inputs {
    let item = || {
        prop_oneof![
            4 => word(&["widget", "a", ".", "", "caf\u{e9}", "a{b"]),
            1 => any::<String>(),
        ]
    };
    let number = || {
        prop_oneof![
            select(&[0, 1, -1, 1 << 52, (1 << 52) + 1, i64::MAX - 1, i64::MAX, i64::MIN][..]),
            any::<i64>(),
            0..1000_i64
        ]
    };
    let id = || {
        prop_oneof![
            "[0-9a-f]{8}-[0-9a-f]{4}-[48][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            "7c9e6679-7425-40de-944b-e07fc1f90ae7",
            any::<String>()
        ]
    };
    let stamp = (item(), number(), number()).prop_map(|(item, epoch, number)| proto::Stamp { item, epoch, number });
    let query = (id(), proptest::option::of(stamp))
        .prop_map(|(reservation_id, stamp)| proto::ReservationQuery { reservation_id, stamp });
    prop_oneof![
        (
            item(),
            number(),
            proptest::option::of("[ -~]{0,9}"),
            proptest::option::of(id()),
            proptest::option::of("[a-z-]{0,9}")
        )
            .prop_map(|(item, quantity, idempotency_key, reservation_id, attempt_id)| {
                numbered(0, &proto::CreateOrderRequest { item, quantity, idempotency_key, reservation_id, attempt_id })
            }),
        id().prop_map(|id| numbered(1, &proto::GetOrderRequest { id })),
        (item(), any::<i32>(), id()).prop_map(|(item, page_size, page_token)| {
            numbered(2, &proto::ListOrdersRequest { item, page_size, page_token })
        }),
        (item(), number(), number()).prop_map(|(item, initial, dead_epoch)| {
            numbered(3, &proto::OpenStockRequest { item, initial, dead_epoch })
        }),
        (vec(item(), 0..600), number())
            .prop_map(|(items, initial)| numbered(4, &proto::GetStockRequest { items, initial })),
        vec(query, 0..20).prop_map(|reservations| numbered(5, &proto::ResolveReservationRequest { reservations })),
        (id(), item(), number(), number()).prop_map(|(id, item, quantity, initial)| {
            numbered(6, &proto::RecordRestockRequest { id, item, quantity, initial })
        }),
        proptest::option::of(prop_oneof![item().prop_map(Which::Item), item().prop_map(Which::After)])
            .prop_map(|which| numbered(7, &proto::GetBooksRequest { which })),
    ]
    .boxed()
}

fn numbered(number: u8, message: &(impl Message + Debug)) -> Vec<u8> {
    [&[b'0' + number][..], &message.encode_to_vec()].concat()
}
