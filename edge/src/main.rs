//! The edge as a process of its own.

use std::{process::ExitCode, sync::Arc};

use edge::{
    EdgeSettings, openapi,
    settings::{ADMIN_ADDR_DEFAULT, HELP, URL_REQUIRED},
};
use futures::{FutureExt, future};
use prometheus_client::registry::Registry;
use service::{
    admin, cli, healthcheck,
    http::HttpMetrics,
    lifecycle::{Lifecycle, Serving},
    process::{self, Failed, RunSettings},
    rpc_client::{Peer, RpcClientMetrics},
    server::{Limits, Listener},
    settings::{BadSettings, EXIT_BAD_SETTINGS, Settings},
    signals::Signals,
};

fn main() -> ExitCode {
    match cli::command("edge", HELP, &[healthcheck::COMMAND, openapi::COMMAND]) {
        Ok(None) => process::run(serve_until_signal),
        Ok(Some(openapi::COMMAND)) => cli::succeed(&openapi::document()),
        Ok(Some(_)) => healthcheck::run(ADMIN_ADDR_DEFAULT),
        Err(done) => done,
    }
}

async fn serve_until_signal(signals: Signals) -> ExitCode {
    service::open_files::raise_limit();
    match settings(Settings::from_env()) {
        Ok((settings, run)) => process::serve("edge", run, signals, start(settings)).await,
        Err(bad) => cli::fail(EXIT_BAD_SETTINGS, &bad),
    }
}

fn settings(mut settings: Settings) -> Result<(EdgeSettings, RunSettings), BadSettings> {
    let run = RunSettings::read(&mut settings);
    let edge = EdgeSettings::read(&mut settings, ADMIN_ADDR_DEFAULT);
    for name in URL_REQUIRED {
        settings
            .required(name, "where the service is, as in http://127.0.0.1:50051, or 50052 for the inventory service");
    }
    settings.finish()?;
    Ok((edge, run))
}

async fn start(settings: EdgeSettings) -> Result<Serving, Failed> {
    let lifecycle = Lifecycle::new();
    let env = lifecycle.env();
    let http = Listener::bind_set("HTTP_ADDR", settings.http_addr).await?;
    let admin = Listener::bind_set("ADMIN_ADDR", settings.admin_addr).await?;

    let ready: edge::Ready = Arc::new({
        let lifecycle = lifecycle.clone();
        move || lifecycle.is_ready()
    });
    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let metrics = HttpMetrics::register(&mut registry);
    let rpc_metrics = RpcClientMetrics::register(&mut registry);
    let peer = |name, urls: Option<Vec<_>>| Peer::new(name, &urls.unwrap_or_default(), Arc::clone(&env), &rpc_metrics);
    let orders = peer("order", settings.order_urls)?;
    let inventory = peer("inventory", settings.inventory_urls)?;
    let health = edge::health_check(Arc::clone(&env), orders.clone(), inventory.clone(), Arc::clone(&ready));

    tracing::info!(http = %http.addr(), admin = %admin.addr(), "edge listens");
    let routes = edge::router(Arc::clone(&env), orders, inventory, metrics, ready);
    let servers =
        vec![(http, routes, Limits::default()), (admin, admin::router(Arc::new(registry), health), Limits::default())];
    Ok(Serving { lifecycle, servers, background: Vec::new(), close: future::ready(()).boxed() })
}
