//! Binds, and puts together.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use broker::queues;
use contracts::{
    DESCRIPTORS,
    inventory::v1::inventory_service_server::InventoryServiceServer,
    orders::v1::{ledger_service_server::LedgerServiceServer, order_service_server::OrderServiceServer},
};
use futures::FutureExt;
use http::Uri;
use inventory::{
    Inventory, audit,
    backend::Backend,
    grpc::InventoryGrpc,
    ledger::grpc::GrpcLedger,
    metrics::{AuditMetrics, InventoryMetrics},
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
    http::HttpMetrics,
    lifecycle::{Lifecycle, Serving},
    readiness,
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{NoUrl, Peer, RpcClientMetrics},
    server::{BindError, Limits, Listener},
};
use tonic::server::NamedService;

use crate::{settings::StandaloneSettings, stores::Stores};

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
    pub async fn bind(settings: &StandaloneSettings) -> Result<Self, BindError> {
        Ok(Self {
            http: Listener::bind_set("HTTP_ADDR", settings.edge.http_addr).await?,
            order: Listener::bind_set("ORDER_GRPC_ADDR", settings.order.grpc_addr).await?,
            inventory: Listener::bind_set("INVENTORY_GRPC_ADDR", settings.inventory.grpc_addr).await?,
            admin: Listener::bind_set("ADMIN_ADDR", settings.edge.admin_addr).await?,
        })
    }
}

/// Puts everything together: three services that talk gRPC, on these stores.
pub fn assemble(
    lifecycle: Lifecycle,
    settings: &StandaloneSettings,
    listeners: Listeners,
    stores: Stores,
) -> Result<Serving, NoUrl> {
    let env = lifecycle.env();
    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let rpc_metrics = RpcMetrics::register(&mut registry);
    let http_metrics = HttpMetrics::register(&mut registry);
    let order_metrics = OrderMetrics::register(&mut registry);
    let inventory_metrics = InventoryMetrics::register(&mut registry);

    let edge = &settings.edge;
    let client_metrics = RpcClientMetrics::register(&mut registry);
    // A service at its URLs, or where this process serves it.
    let peer = |name, urls: &Option<Vec<Uri>>, listener: &Listener| {
        let own = [loopback(listener.addr())];
        Peer::new(name, urls.as_deref().unwrap_or(&own), env.clone(), &client_metrics)
    };
    let order_peer = peer("order", &edge.order_urls, &listeners.order)?;
    let inventory_peer = peer("inventory", &edge.inventory_urls, &listeners.inventory)?;

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
    // A connection of its own: orders that wait for a lease must not keep the lease from being asked for.
    let ledger = Arc::new(GrpcLedger::new(peer("ledger", &edge.order_urls, &listeners.order)?));
    let inventory = Inventory::new(
        Backend {
            env: env.clone(),
            store: stores.stock.clone(),
            ledger: ledger.clone(),
            default_stock: settings.inventory.default_stock,
            metrics: inventory_metrics,
        },
        stores.broker.clone(),
    );
    let auditor = inventory.auditor(ledger, AuditMetrics::register(&mut registry, env.now()));

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
    background.push(Box::pin(auditor.clone().run(lifecycle.stop())));
    background.push(Box::pin(readiness::keep(
        env.clone(),
        order_rpc.health(),
        &["", OrderServiceServer::<OrderApi>::NAME, LedgerServiceServer::<LedgerApi>::NAME],
        order::assembly::check(&stores.ledger),
        lifecycle.leaving(),
    )));
    background.push(Box::pin(readiness::keep(
        env.clone(),
        inventory_rpc.health(),
        &["", InventoryServiceServer::<InventoryGrpc>::NAME],
        inventory::check(&stores.stock),
        lifecycle.leaving(),
    )));

    let ready = {
        let lifecycle = lifecycle.clone();
        Arc::new(move || lifecycle.is_ready())
    };
    let edge = edge::router(env.clone(), order_peer, inventory_peer, http_metrics, ready);
    // Without the ledger no order can be placed; with any other part missing there are some that can.
    let checks =
        vec![order::assembly::check(&stores.ledger), inventory::check(&stores.stock), queues::check(&stores.broker)];
    let admin = admin::router(Arc::new(registry), readiness::report(&lifecycle, checks)).merge(audit::router(auditor));
    let servers = vec![
        (listeners.http, edge, Limits::default()),
        (listeners.order, order_rpc.router(), Limits::internal()),
        (listeners.inventory, inventory_rpc.router(), Limits::internal()),
        (listeners.admin, admin, Limits::default()),
    ];
    // They keep the data directory locked until then.
    Ok(Serving { lifecycle, servers, background, close: stores.close().boxed() })
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
