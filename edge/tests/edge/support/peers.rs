//! Both services, answering what the test says. The real ones are tested elsewhere; here only the translation is.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use contracts::{
    Failure,
    inventory::v1::{
        GetStockRequest, GetStockResponse, Held, Insufficient, ReleaseRequest, ReleaseResponse, ReserveRequest,
        ReserveResponse, RestockRequest, RestockResponse, inventory_service_server::InventoryService,
        reserve_response::Outcome,
    },
    orders::v1::{
        CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
        ListOrdersResponse, Order, OrderStatus, order_service_server::OrderService,
    },
    values::Timestamp,
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

pub const ORDER_ID: &str = "0f8fad5b-d9cb-869f-a165-70867728950e";
pub const RESERVATION_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
pub const TIME: &str = "2026-11-22T10:00:00.123456Z";
pub const PAGE_TOKEN: &str = "next+/=";
pub const STOCK: i64 = 99;

/// What both services do with every call.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    /// The usual.
    #[default]
    Answer,
    /// As `Answer`, and the order was placed before.
    Replay,
    /// There are only so many units.
    Insufficient(i64),
    /// Refuse.
    Fail(Failure),
    /// A status that is none of ours, as from a proxy.
    Status(tonic::Code),
    /// Never answer.
    Hang,
    /// An answer that lacks everything.
    Empty,
}

/// Everything that arrived.
#[derive(Debug, Default)]
pub struct Seen {
    pub creates: Vec<CreateOrderRequest>,
    pub lists: Vec<ListOrdersRequest>,
    pub reserves: Vec<ReserveRequest>,
    pub releases: Vec<ReleaseRequest>,
    pub restocks: Vec<RestockRequest>,
    /// Request ids, of every call.
    pub request_ids: Vec<String>,
    /// `grpc-timeout`, of every call.
    pub timeouts: Vec<Duration>,
    /// `traceparent`, of every call that had one.
    pub traceparents: Vec<String>,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    seen: Seen,
}

/// Both services.
#[derive(Clone, Default)]
pub struct Peers {
    state: Arc<Mutex<State>>,
    called: Arc<Notify>,
}

impl Peers {
    pub fn behave(&self, behaviour: Behaviour) {
        self.state.lock().expect("no panic").behaviour = behaviour;
    }

    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.state.lock().expect("no panic").seen)
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.seen(|seen| seen.request_ids.len())
    }

    /// Waits until somebody calls.
    pub async fn called(&self) {
        self.called.notified().await;
    }

    async fn play<Q, A: Default>(
        &self,
        request: Request<Q>,
        note: impl FnOnce(&mut Seen, Q),
        answer: impl FnOnce(&Behaviour) -> A,
    ) -> Result<Response<A>, Status> {
        let call = service::rpc::call(&request);
        let metadata = request.metadata().clone();
        let behaviour = {
            let mut state = self.state.lock().expect("no panic");
            let seen = &mut state.seen;
            seen.request_ids.push(call.request_id.to_string());
            let header = |name| metadata.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            seen.timeouts.extend(header("grpc-timeout").map(|text| timeout(&text)));
            seen.traceparents.extend(header("traceparent"));
            note(seen, request.into_inner());
            state.behaviour.clone()
        };
        self.called.notify_one();
        match behaviour {
            Behaviour::Fail(failure) => Err(failure.into()),
            Behaviour::Status(code) => Err(Status::new(code, "of 10.0.0.7")),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Empty => Ok(Response::new(A::default())),
            Behaviour::Answer | Behaviour::Replay | Behaviour::Insufficient(_) => Ok(Response::new(answer(&behaviour))),
        }
    }
}

fn timeout(text: &str) -> Duration {
    let (digits, unit) = text.split_at(text.len() - 1);
    let amount = digits.parse().expect("digits");
    match unit {
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        other => panic!("unit {other}"),
    }
}

fn time() -> prost_types::Timestamp {
    TIME.parse::<Timestamp>().expect("a time").to_proto()
}

fn order(item: &str, quantity: i64) -> Order {
    let status = OrderStatus::Confirmed.into();
    Order { id: ORDER_ID.into(), item: item.into(), quantity, status, create_time: Some(time()) }
}

#[tonic::async_trait]
impl OrderService for Peers {
    async fn create_order(&self, r: Request<CreateOrderRequest>) -> Result<Response<CreateOrderResponse>, Status> {
        let order = order(&r.get_ref().item, r.get_ref().quantity);
        self.play(
            r,
            |seen, message| seen.creates.push(message),
            |behaviour| CreateOrderResponse { order: Some(order), replayed: matches!(behaviour, Behaviour::Replay) },
        )
        .await
    }

    async fn get_order(&self, r: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        self.play(r, |_, _| (), |_| GetOrderResponse { order: Some(order("widget", 2)) }).await
    }

    async fn list_orders(&self, r: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        let page =
            ListOrdersResponse { orders: vec![order("b", 2), order("a", 1)], next_page_token: PAGE_TOKEN.into() };
        self.play(r, |seen, message| seen.lists.push(message), |_| page).await
    }
}

#[tonic::async_trait]
impl InventoryService for Peers {
    async fn reserve(&self, r: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let outcome = |behaviour: &Behaviour| match behaviour {
            Behaviour::Insufficient(remaining) => Outcome::Insufficient(Insufficient { remaining: *remaining }),
            _ => Outcome::Held(Held {
                reservation_id: RESERVATION_ID.into(),
                epoch: 1,
                number: 1,
                remaining: STOCK,
                expire_time: Some(time()),
            }),
        };
        self.play(
            r,
            |seen, message| seen.reserves.push(message),
            |behaviour| ReserveResponse { outcome: Some(outcome(behaviour)) },
        )
        .await
    }

    async fn release(&self, r: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        self.play(r, |seen, message| seen.releases.push(message), |_| ReleaseResponse {}).await
    }

    async fn get_stock(&self, r: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        let item = r.get_ref().item.clone();
        self.play(r, |_, _| (), |_| GetStockResponse { item, stock: STOCK }).await
    }

    async fn restock(&self, r: Request<RestockRequest>) -> Result<Response<RestockResponse>, Status> {
        let item = r.get_ref().item.clone();
        self.play(r, |seen, message| seen.restocks.push(message), |_| RestockResponse { item, stock: STOCK }).await
    }
}
