//! A running server, and ways to talk to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Bytes;
use contracts::{
    DESCRIPTORS, Failure,
    orders::v1::{
        GetStockRequest, GetStockResponse, ledger_service_client::LedgerServiceClient,
        ledger_service_server::LedgerServiceServer,
    },
    values::Token,
};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prometheus_client::registry::Registry;
use service::{
    call::Call,
    environment::{Env, RealEnvironment},
    rpc::{Health, RpcMetrics, RpcServer},
    rpc_client::{Peer, Repeat, RpcClientMetrics},
    server::{Limits, Listener, serve},
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::ledger::{GET_STOCK, Ledger};

/// More than anything here should take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Running {
    pub addr: SocketAddr,
    pub env: Env,
    pub ledger: Ledger,
    pub health: Health,
    pub registry: Registry,
    pub drain: CancellationToken,
    pub served: JoinHandle<()>,
}

pub fn env() -> Env {
    Arc::new(RealEnvironment::new(TaskTracker::new()))
}

pub async fn listener() -> Listener {
    Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port")
}

pub async fn start() -> Running {
    start_with(Limits::internal()).await
}

pub async fn start_with(limits: Limits) -> Running {
    start_on(listener().await, limits)
}

pub async fn start_at(addr: SocketAddr) -> Running {
    start_on(Listener::bind(addr).await.expect("it is free again"), Limits::internal())
}

fn start_on(listener: Listener, limits: Limits) -> Running {
    let (env, drain) = (env(), CancellationToken::new());
    let addr = listener.addr();
    let ledger = Ledger {
        env: Arc::clone(&env),
        release: Arc::default(),
        held: Arc::new(Semaphore::new(0)),
        ids: Arc::default(),
    };
    let mut registry = Registry::default();
    let metrics = RpcMetrics::register(&mut registry);
    let server = RpcServer::new(Arc::clone(&env), metrics, DESCRIPTORS).add(LedgerServiceServer::new(ledger.clone()));
    let health = server.health();
    let task = tokio::spawn(serve(listener, server.router(), limits, Arc::clone(&env), drain.clone()));
    Running { addr, env, ledger, health, registry, drain, served: task }
}

impl Running {
    /// A connection as a stranger makes it.
    pub fn channel(&self) -> Channel {
        Endpoint::from(url(self.addr, "")).connect_lazy()
    }

    pub fn peer(&self) -> Peer {
        peer(&[self.addr], &self.env)
    }

    pub fn call(&self, timeout: Duration) -> Call {
        Call::new(&*self.env, timeout, Token::parse("test").expect("sane"))
    }

    pub async fn stock(&self, item: &str) -> Result<GetStockResponse, Failure> {
        stock(&self.peer(), &self.call(Duration::from_secs(5)), item).await
    }

    /// One HTTP/2 request with exactly these headers, as no tonic client would send it.
    pub async fn raw(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Answer {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let mut request = Request::post(url(self.addr, path)).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            client.request(request.body(Full::new(framed(message))).expect("valid")).await.expect("answered");
        Answer::read(response).await
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encodes");
        text
    }

    /// Calls counted under a method and status.
    pub fn count(&self, method: &str, code: &str) -> u64 {
        let series = format!(
            "rpc_server_call_duration_seconds_count{{rpc_method=\"{method}\",rpc_response_status_code=\"{code}\"}} "
        );
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.map_or(0, |count| count.parse().expect("a number"))
    }
}

pub fn peer(addrs: &[SocketAddr], env: &Env) -> Peer {
    measured_peer(addrs, env, &RpcClientMetrics::default())
}

pub fn measured_peer(addrs: &[SocketAddr], env: &Env, metrics: &RpcClientMetrics) -> Peer {
    let urls: Vec<Uri> = addrs.iter().map(|addr| url(*addr, "")).collect();
    Peer::new("ledger", &urls, Arc::clone(env), metrics).expect("good URLs")
}

pub async fn stock(peer: &Peer, call: &Call, item: &str) -> Result<GetStockResponse, Failure> {
    stock_repeating(peer, call, Repeat::Safe, item).await
}

pub async fn stock_repeating(
    peer: &Peer,
    call: &Call,
    repeat: Repeat,
    item: &str,
) -> Result<GetStockResponse, Failure> {
    let message = GetStockRequest { items: vec![item.to_owned()], initial: 0 };
    peer.unary(call, GET_STOCK, repeat, message, |channel, request| async move {
        LedgerServiceClient::new(channel).get_stock(request).await
    })
    .await
}

pub fn url(addr: SocketAddr, path: &str) -> Uri {
    format!("http://{addr}{path}").parse().expect("a URL")
}

/// A message as it stands in a gRPC body.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("short");
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

/// The bytes of a `GetStockRequest`.
pub fn question(item: &str) -> Vec<u8> {
    [&[0x0a, u8::try_from(item.len()).expect("short")], item.as_bytes()].concat()
}

pub struct Answer {
    pub http: http::StatusCode,
    pub status: Option<Status>,
    pub body: Bytes,
}

impl Answer {
    pub async fn read<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
    {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("whole");
        let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(body.trailers()?));
        Self { http: head.status, status, body: body.to_bytes() }
    }

    pub fn code(&self) -> Code {
        self.status.as_ref().expect("a gRPC answer").code()
    }

    pub fn failure(&self) -> Failure {
        Failure::from_status(self.status.as_ref().expect("a gRPC answer"))
    }
}

/// Waits for something to become true.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polling).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The end of something that has to end soon.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("too late: {what}"))
}
