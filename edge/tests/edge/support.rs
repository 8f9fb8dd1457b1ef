//! A running edge and its peers.

pub mod client;
pub mod peers;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use contracts::{
    DESCRIPTORS, inventory::v1::inventory_service_server::InventoryServiceServer,
    orders::v1::order_service_server::OrderServiceServer,
};
use prometheus_client::registry::Registry;
use service::{
    environment::{Env, RealEnvironment},
    http::HttpMetrics,
    rpc::{Health, RpcMetrics, RpcServer},
    rpc_client::{Peer, RpcClientMetrics},
    server::{Limits, Listener, serve},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use client::{Answer, send};
use peers::Peers;

/// An edge with both peers behind one gRPC server. Ends with the test's runtime.
pub struct System {
    pub addr: SocketAddr,
    pub peers: Peers,
    pub health: Health,
    pub ready: Arc<AtomicBool>,
    pub registry: Registry,
    /// The peers' server.
    peers_drain: CancellationToken,
}

impl System {
    /// Everything up and serving.
    pub async fn start() -> Self {
        let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
        let (peers, peers_drain) = (Peers::default(), CancellationToken::new());
        let rpc_metrics = RpcMetrics::register(&mut Registry::default());
        let rpc = RpcServer::new(Arc::clone(&env), rpc_metrics, DESCRIPTORS)
            .add(OrderServiceServer::new(peers.clone()))
            .add(InventoryServiceServer::new(peers.clone()));
        let health = rpc.health();
        health.say("orders.v1.OrderService", true);
        health.say("inventory.v1.InventoryService", true);
        let peers_addr = listen(rpc.router(), &env, peers_drain.clone()).await;

        let url = [format!("http://{peers_addr}").parse().expect("a URL")];
        let orders = Peer::new("order", &url, Arc::clone(&env), &RpcClientMetrics::default()).expect("a URL");
        let inventory = Peer::new("inventory", &url, Arc::clone(&env), &RpcClientMetrics::default()).expect("a URL");
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = Arc::clone(&ready);
        let is_ready = Arc::new(move || is_ready.load(Ordering::Relaxed));
        let router = edge::router(Arc::clone(&env), orders, inventory, metrics, is_ready);
        let addr = listen(router, &env, CancellationToken::new()).await;
        Self { addr, peers, health, ready, registry, peers_drain }
    }

    /// Stops the peers' server: from now on nobody listens there.
    pub async fn stop_peers(&self) {
        self.peers_drain.cancel();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.get("/readyz").await.status != 503 {
            assert!(std::time::Instant::now() < deadline, "the peers do not stop");
        }
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        send(self.addr, bytes.as_ref()).await
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: edge\r\n\r\n")).await
    }

    /// DELETE.
    pub async fn delete(&self, target: &str) -> Answer {
        self.send(format!("DELETE {target} HTTP/1.1\r\nHost: edge\r\n\r\n")).await
    }

    /// POST of JSON.
    pub async fn post(&self, target: &str, body: &str) -> Answer {
        self.post_with(target, "", body).await
    }

    /// POST of JSON with more header lines, each ended by CRLF.
    pub async fn post_with(&self, target: &str, lines: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n{lines}");
        self.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await
    }
}

async fn listen(router: axum::Router, env: &Env, drain: CancellationToken) -> SocketAddr {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let addr = listener.addr();
    let serving = serve(listener, router, Limits::default(), Arc::clone(env), drain);
    env.start(Box::pin(serving));
    addr
}
