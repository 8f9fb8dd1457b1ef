//! The edge as a process of its own.

use std::{process::ExitCode, sync::Arc};

use edge::{
    EdgeSettings,
    settings::{ADMIN_ADDR_DEFAULT, HELP, URL_REQUIRED},
};
use futures::{FutureExt, future::BoxFuture};
use prometheus_client::registry::Registry;
use service::{
    admin, cli, healthcheck,
    http::HttpMetrics,
    lifecycle::Lifecycle,
    rpc_client::Peer,
    server::{Limits, Listener, serve},
    settings::{BadSettings, EXIT_BAD_SETTINGS, Settings},
    telemetry::{Telemetry, TelemetrySettings},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match cli::command("edge", HELP, &[healthcheck::COMMAND]) {
        Ok(None) => serve_until_signal(),
        Ok(Some(_)) => healthcheck::run(ADMIN_ADDR_DEFAULT),
        Err(done) => done,
    }
}

#[tokio::main]
async fn serve_until_signal() -> ExitCode {
    service::open_files::raise_limit();
    match settings(Settings::from_env()) {
        Ok((settings, telemetry)) => Telemetry::around("edge", telemetry, run(settings)).await,
        Err(bad) => cli::fail(EXIT_BAD_SETTINGS, &bad),
    }
}

fn settings(mut settings: Settings) -> Result<(EdgeSettings, TelemetrySettings), BadSettings> {
    let telemetry = TelemetrySettings::read(&mut settings);
    let edge = EdgeSettings::read(&mut settings, ADMIN_ADDR_DEFAULT);
    for name in URL_REQUIRED {
        settings
            .required(name, "where the service is, as in http://127.0.0.1:50051, or 50052 for the inventory service");
    }
    settings.finish()?;
    Ok((edge, telemetry))
}

/// Runs until a signal ends it.
async fn run(settings: EdgeSettings) -> Result<ExitCode, Error> {
    let lifecycle = Lifecycle::new();
    let env = lifecycle.env();
    let http = Listener::bind_set("HTTP_ADDR", settings.http_addr).await?;
    let admin = Listener::bind_set("ADMIN_ADDR", settings.admin_addr).await?;

    let orders = Peer::new("order", &settings.order_urls.unwrap_or_default(), Arc::clone(&env))?;
    let inventory = Peer::new("inventory", &settings.inventory_urls.unwrap_or_default(), Arc::clone(&env))?;
    let ready: edge::Ready = Arc::new({
        let lifecycle = lifecycle.clone();
        move || lifecycle.is_ready()
    });
    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let metrics = HttpMetrics::register(&mut registry);
    let health = edge::health_check(Arc::clone(&env), orders.clone(), inventory.clone(), Arc::clone(&ready));

    tracing::info!(http = %http.addr(), admin = %admin.addr(), "edge listens");
    let routes = edge::router(Arc::clone(&env), orders, inventory, metrics, ready);
    let drain = lifecycle.drain();
    let servers: Vec<BoxFuture<'static, ()>> = vec![
        serve(http, routes, Limits::default(), Arc::clone(&env), drain.clone()).boxed(),
        serve(admin, admin::router(Arc::new(registry), health), Limits::default(), env, drain).boxed(),
    ];
    lifecycle.ready();
    Ok(lifecycle.run_until_signal(servers, Vec::new()).await)
}
