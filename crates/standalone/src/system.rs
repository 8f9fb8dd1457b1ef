//! Binds, connects, serves.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use broker::queues;
use contracts::{
    DESCRIPTORS,
    inventory::v1::inventory_service_server::InventoryServiceServer,
    orders::v1::{ledger_service_server::LedgerServiceServer, order_service_server::OrderServiceServer},
};
use futures::future::BoxFuture;
use http::Uri;
use inventory::{
    Inventory, backend::Backend, grpc::InventoryGrpc, ledger::grpc::GrpcLedger, metrics::InventoryMetrics,
};
use order::{
    assembly::{OrderService, Ports},
    grpc::{ledger::LedgerApi, orders::OrderApi},
    inventory::grpc::GrpcInventory,
    metrics::OrderMetrics,
};
use prometheus_client::registry::Registry;
use service::{
    admin,
    environment::Env,
    http::HttpMetrics,
    lifecycle::Lifecycle,
    readiness,
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{NoUrl, Peer},
    server::{BindError, Limits, Listener, serve},
};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;

use crate::{
    settings::StandaloneSettings,
    stores::{Stores, StoresError},
};

/// How long closing the ledger may take after the drain, in milliseconds.
pub const CLOSE_TIMEOUT_MS: u64 = 2_000;

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A store cannot be opened.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// A service's URL cannot be used.
    #[error(transparent)]
    Peer(#[from] NoUrl),
}

/// Every address that it listens on.
#[derive(Debug)]
pub struct Listeners {
    /// HTTP/JSON.
    pub http: Listener,
    /// The order service.
    pub order: Listener,
    /// The inventory service.
    pub inventory: Listener,
    /// Metrics and health.
    pub admin: Listener,
}

impl Listeners {
    /// Binds all of them.
    pub async fn bind(settings: &StandaloneSettings) -> Result<Self, StartError> {
        Ok(Self {
            http: Listener::bind_set("HTTP_ADDR", settings.edge.http_addr).await?,
            order: Listener::bind_set("ORDER_GRPC_ADDR", settings.order.grpc_addr).await?,
            inventory: Listener::bind_set("INVENTORY_GRPC_ADDR", settings.inventory.grpc_addr).await?,
            admin: Listener::bind_set("ADMIN_ADDR", settings.edge.admin_addr).await?,
        })
    }
}

/// The system, put together. It serves once it is run.
pub struct System {
    env: Env,
    lifecycle: Lifecycle,
    servers: Vec<BoxFuture<'static, ()>>,
    background: Vec<BoxFuture<'static, ()>>,
    /// Keeps the data directory locked.
    stores: Stores,
}

impl System {
    /// Puts everything together: three services that talk gRPC, on these stores.
    pub fn new(
        lifecycle: Lifecycle,
        settings: &StandaloneSettings,
        listeners: Listeners,
        stores: Stores,
    ) -> Result<Self, StartError> {
        let env = lifecycle.env();
        let mut registry = Registry::default();
        admin::process::register(&mut registry, &*env);
        let rpc_metrics = RpcMetrics::register(&mut registry);
        let http_metrics = HttpMetrics::register(&mut registry);
        let order_metrics = OrderMetrics::register(&mut registry);
        let inventory_metrics = InventoryMetrics::register(&mut registry);

        let edge = &settings.edge;
        let order_peer = peer("order-service", edge.order_urls.as_deref(), &listeners.order, &env)?;
        let inventory_peer = peer("inventory-service", edge.inventory_urls.as_deref(), &listeners.inventory, &env)?;

        let order = OrderService::new(
            Ports {
                env: env.clone(),
                ledger: stores.ledger.clone(),
                inventory: Arc::new(GrpcInventory::new(inventory_peer.clone())),
                broker: stores.broker.clone(),
            },
            settings.order.hold_ttl,
            &order_metrics,
            &lifecycle.stop(),
        );
        let inventory = Inventory::new(
            Backend {
                env: env.clone(),
                store: stores.stock.clone(),
                // A connection of its own: orders that wait for a lease must not keep the lease from being asked for.
                ledger: Arc::new(GrpcLedger::new(peer("ledger", edge.order_urls.as_deref(), &listeners.order, &env)?)),
                default_stock: settings.inventory.default_stock,
                metrics: inventory_metrics,
            },
            stores.broker.clone(),
        );

        let rpc = || RpcServer::new(env.clone(), rpc_metrics.clone(), DESCRIPTORS);
        let order_rpc = rpc().add(order.orders).add(order.ledger);
        let inventory_rpc = rpc().add(inventory.service());
        let mut background = order.background;
        if let Some(postgres) = stores.postgres.clone() {
            let migrate = settings.order.migrate;
            background.push(Box::pin(order::assembly::prepare(postgres, migrate, env.clone(), lifecycle.stop())));
        }
        background.push(Box::pin(inventory.reaper().run(lifecycle.stop())));
        background.push(Box::pin(inventory.consumer().run(lifecycle.stop())));
        background.push(Box::pin(readiness::keep(
            env.clone(),
            order_rpc.health(),
            &["", OrderServiceServer::<OrderApi>::NAME, LedgerServiceServer::<LedgerApi>::NAME],
            order::assembly::check(&stores.ledger),
            lifecycle.drain(),
        )));
        background.push(Box::pin(readiness::keep(
            env.clone(),
            inventory_rpc.health(),
            &["", InventoryServiceServer::<InventoryGrpc>::NAME],
            inventory::check(&stores.stock),
            lifecycle.drain(),
        )));

        let ready = {
            let lifecycle = lifecycle.clone();
            Arc::new(move || lifecycle.is_ready())
        };
        let edge = edge::router(env.clone(), order_peer, inventory_peer, http_metrics, ready);
        // Without the ledger no order can be placed; with any other part missing there are some that can.
        let checks = vec![
            order::assembly::check(&stores.ledger),
            inventory::check(&stores.stock),
            queues::check(&stores.broker),
        ];
        let admin = admin::router(Arc::new(registry), readiness::report(&lifecycle, checks));
        // Each finishes what it has taken only while those that it asks still serve.
        let servers = [
            (listeners.http, edge, Limits::default()),
            (listeners.order, order_rpc.router(), Limits::internal()),
            (listeners.inventory, inventory_rpc.router(), Limits::internal()),
            (listeners.admin, admin, Limits::default()),
        ];
        let servers = one_after_the_other(servers, &env, &lifecycle);
        Ok(Self { env, lifecycle, servers, background, stores })
    }

    /// Serves until a signal, then drains.
    pub async fn run(self) -> ExitCode {
        self.lifecycle.ready();
        let code = self.lifecycle.run_until_signal(self.servers, self.background).await;
        let limit = Duration::from_millis(CLOSE_TIMEOUT_MS);
        // Past it, or after a second signal, the file is left as a kill would leave it.
        if self.env.timeout(limit, self.stores.close()).await.is_err() {
            tracing::warn!("the ledger was not closed in time");
        }
        code
    }
}

/// Serves all of them. The first drains when the process does, each other one when the one before it has drained.
fn one_after_the_other(
    servers: [(Listener, Router, Limits); 4],
    env: &Env,
    lifecycle: &Lifecycle,
) -> Vec<BoxFuture<'static, ()>> {
    let mut drain = lifecycle.drain();
    let serve = |(listener, router, limits)| -> BoxFuture<'static, ()> {
        let drained = CancellationToken::new();
        let this = std::mem::replace(&mut drain, drained.clone());
        let work = serve(listener, router, limits, env.clone(), this);
        // A guard, because a server that panics must not keep the next one from draining.
        let drained = drained.drop_guard();
        Box::pin(async move {
            work.await;
            drop(drained);
        })
    };
    servers.into_iter().map(serve).collect()
}

/// A service at its URLs, or where this process serves it.
fn peer(name: &'static str, urls: Option<&[Uri]>, listener: &Listener, env: &Env) -> Result<Peer, NoUrl> {
    let own = [loopback(listener.addr())];
    Peer::new(name, urls.unwrap_or(&own), env.clone())
}

/// How this process reaches what it listens on, which may be every address.
fn loopback(addr: SocketAddr) -> Uri {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port())).parse().expect("an address makes a URL")
}
