//! An edge in the test's hands, asked without a socket, and both its peers behind a real gRPC server.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body};
use contracts::{
    DESCRIPTORS, Failure, Reason,
    inventory::v1::{self as inventory, inventory_service_server as inventory_server},
    orders::v1::{self as orders, order_service_server as orders_server},
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde_json::Value;
use service::{
    environment::{Env, RealEnvironment},
    http::HttpMetrics,
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{Peer, RpcClientMetrics},
    server::{Limits, Listener, serve},
};
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Response, Status};
use tower::ServiceExt;

use crate::driver::Verdict;

const ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
/// Most bad fields that an answer names.
const ERRORS_MAX: usize = 32;

/// A call that reached a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Create(orders::CreateOrderRequest),
    Order(orders::GetOrderRequest),
    List(orders::ListOrdersRequest),
    Reserve(inventory::ReserveRequest),
    Release(inventory::ReleaseRequest),
    Stock(inventory::GetStockRequest),
    Restock(inventory::RestockRequest),
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    failure: Option<Failure>,
}

/// Both peers: they note every call and answer it well, or with the failure that a test sets.
#[derive(Clone, Default)]
pub struct Peers(Arc<Mutex<State>>);

impl Peers {
    fn answer<T>(&self, seen: Seen, answer: T) -> Result<Response<T>, Status> {
        let mut state = self.0.lock().expect("no panic");
        state.seen.push(seen);
        match state.failure.clone() {
            Some(failure) => Err(failure.into()),
            None => Ok(Response::new(answer)),
        }
    }
}

fn order(id: &str, item: &str, quantity: i64) -> orders::Order {
    let create_time = Some(prost_types::Timestamp::default());
    let status = orders::OrderStatus::Confirmed.into();
    orders::Order { id: id.into(), item: item.into(), quantity, status, create_time }
}

#[tonic::async_trait]
impl orders_server::OrderService for Peers {
    async fn create_order(
        &self,
        request: tonic::Request<orders::CreateOrderRequest>,
    ) -> Result<Response<orders::CreateOrderResponse>, Status> {
        let asked = request.into_inner();
        let order = Some(order(ID, &asked.item, asked.quantity));
        self.answer(Seen::Create(asked), orders::CreateOrderResponse { order, replayed: false })
    }

    async fn get_order(
        &self,
        request: tonic::Request<orders::GetOrderRequest>,
    ) -> Result<Response<orders::GetOrderResponse>, Status> {
        let asked = request.into_inner();
        let order = Some(order(&asked.id, "widget", 1));
        self.answer(Seen::Order(asked), orders::GetOrderResponse { order })
    }

    async fn list_orders(
        &self,
        request: tonic::Request<orders::ListOrdersRequest>,
    ) -> Result<Response<orders::ListOrdersResponse>, Status> {
        self.answer(Seen::List(request.into_inner()), orders::ListOrdersResponse::default())
    }
}

#[tonic::async_trait]
impl inventory_server::InventoryService for Peers {
    async fn reserve(
        &self,
        request: tonic::Request<inventory::ReserveRequest>,
    ) -> Result<Response<inventory::ReserveResponse>, Status> {
        let short = inventory::Insufficient { remaining: 0 };
        let outcome = Some(inventory::reserve_response::Outcome::Insufficient(short));
        self.answer(Seen::Reserve(request.into_inner()), inventory::ReserveResponse { outcome })
    }

    async fn release(
        &self,
        request: tonic::Request<inventory::ReleaseRequest>,
    ) -> Result<Response<inventory::ReleaseResponse>, Status> {
        self.answer(Seen::Release(request.into_inner()), inventory::ReleaseResponse {})
    }

    async fn get_stock(
        &self,
        request: tonic::Request<inventory::GetStockRequest>,
    ) -> Result<Response<inventory::GetStockResponse>, Status> {
        let asked = request.into_inner();
        let item = asked.item.clone();
        self.answer(Seen::Stock(asked), inventory::GetStockResponse { item, stock: 7 })
    }

    async fn restock(
        &self,
        request: tonic::Request<inventory::RestockRequest>,
    ) -> Result<Response<inventory::RestockResponse>, Status> {
        let asked = request.into_inner();
        let item = asked.item.clone();
        self.answer(Seen::Restock(asked), inventory::RestockResponse { item, stock: 7 })
    }
}

/// The edge. Everything runs on the thread that asks.
pub struct Edge {
    runtime: Runtime,
    router: Router,
    peers: Peers,
}

/// What it said, and what its peers heard meanwhile.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `Null` without a body.
    pub body: Value,
    pub seen: Vec<Seen>,
}

impl Edge {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let peers = Peers::default();
        let router = runtime.block_on(assemble(peers.clone()));
        Self { runtime, router, peers }
    }

    /// From now on the peers fail with it.
    pub fn fail(&self, failure: Failure) {
        self.peers.0.lock().expect("no panic").failure = Some(failure);
    }

    /// Asks, and holds the answer against what all answers have in common.
    pub fn ask(&self, request: Request<Body>) -> Result<Answer, TestCaseError> {
        let router = self.router.clone();
        let (parts, body) = self.runtime.block_on(async {
            let (parts, body) = router.oneshot(request).await.expect("infallible").into_parts();
            (parts, body.collect().await.expect("whole").to_bytes())
        });
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
        let seen = mem::take(&mut self.peers.0.lock().expect("no panic").seen);
        let answer = Answer { status: parts.status, headers: parts.headers, body, seen };
        prop_assert!(answer.headers.contains_key("x-request-id"));
        if !answer.status.is_success() {
            answer.check_problem()?;
        }
        Ok(answer)
    }
}

async fn assemble(peers: Peers) -> Router {
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let server = RpcServer::new(Arc::clone(&env), RpcMetrics::register(&mut Registry::default()), DESCRIPTORS)
        .add(orders_server::OrderServiceServer::new(peers.clone()))
        .add(inventory_server::InventoryServiceServer::new(peers));
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let url = [format!("http://{}", listener.addr()).parse().expect("a URL")];
    let serving = serve(listener, server.router(), Limits::internal(), Arc::clone(&env), CancellationToken::new());
    env.start(Box::pin(serving));
    let peer = |name| Peer::new(name, &url, Arc::clone(&env), &RpcClientMetrics::default()).expect("a URL");
    let metrics = HttpMetrics::register(&mut Registry::default());
    edge::router(Arc::clone(&env), peer("order"), peer("inventory"), metrics, Arc::new(|| true))
}

impl Answer {
    /// RFC 9457, and each bad field named once and in one place.
    fn check_problem(&self) -> Verdict {
        let body = &self.body;
        let reason = body["reason"].as_str().and_then(Reason::from_name);
        prop_assert!(reason.is_some(), "no reason: {self:?}");
        let reason = reason.expect("checked");
        prop_assert_eq!(self.headers["content-type"].as_bytes(), b"application/problem+json");
        prop_assert_eq!(self.status.as_u16(), reason.http_status());
        prop_assert_eq!(body["status"].as_u64(), Some(reason.http_status().into()));
        prop_assert!(body["detail"].is_string() && body["title"].is_string() && body["type"].is_string());
        let Some(errors) = body.get("errors") else { return Ok(()) };
        prop_assert!(errors.as_array().is_some_and(|errors| (1..=ERRORS_MAX).contains(&errors.len())), "{body}");
        for error in errors.as_array().expect("checked") {
            let members: BTreeSet<&str> = error.as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
            let places = ["pointer", "parameter", "header"].into_iter().filter(|place| members.contains(place)).count();
            prop_assert!(places == 1 && members.len() == 2 && error["detail"].is_string(), "{error}");
        }
        Ok(())
    }

    /// The `errors` of this kind of place, sorted.
    pub fn places(&self, kind: &str) -> Vec<String> {
        let errors = self.body["errors"].as_array().into_iter().flatten();
        let mut places: Vec<String> = errors.filter_map(|e| e[kind].as_str()).map(str::to_owned).collect();
        places.sort();
        places
    }

    /// 400 at exactly these places, and nobody was asked.
    pub fn refused_at(&self, kind: &str, mut places: Vec<String>) -> Verdict {
        places.sort();
        prop_assert_eq!(self.status, StatusCode::BAD_REQUEST);
        prop_assert!(self.seen.is_empty(), "a peer was asked: {self:?}");
        let found = self.places(kind);
        if places.len() <= ERRORS_MAX {
            prop_assert_eq!(found, places);
        } else {
            prop_assert!(found.len() == ERRORS_MAX && found.iter().all(|place| places.contains(place)));
        }
        Ok(())
    }
}
