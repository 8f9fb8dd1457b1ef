//! The order service as a process of its own.

use std::{process::ExitCode, sync::Arc, time::Duration};

use broker::{Broker, queues, rabbitmq::RabbitMqBroker};
use contracts::{
    DESCRIPTORS, Failure,
    orders::v1::{ledger_service_server::LedgerServiceServer, order_service_server::OrderServiceServer},
};
use futures::{FutureExt, future};
use order::{
    assembly::{self, OrderService, Ports},
    grpc::{ledger::LedgerApi, orders::OrderApi},
    inventory::grpc::GrpcInventory,
    ledger::{Ledger, postgres::PostgresLedger},
    metrics::OrderMetrics,
    settings::{ADMIN_ADDR_DEFAULT, HELP, LEDGER, MIGRATE_COMMAND, ProcessSettings},
};
use prometheus_client::registry::Registry;
use service::{
    admin, cli, healthcheck,
    lifecycle::{Lifecycle, Serving},
    outage::Outage,
    process::{self, Failed},
    readiness,
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{Peer, RpcClientMetrics},
    server::{Limits, Listener},
    settings::{BadSettings, EXIT_BAD_SETTINGS, Settings},
    signals::Signals,
    telemetry::TelemetrySettings,
};
use tonic::server::NamedService;

/// How long `migrate` waits for Postgres to answer, in milliseconds.
const MIGRATE_WAIT_MAX_MS: u64 = 30_000;

fn main() -> ExitCode {
    match cli::command("order-service", HELP, &[MIGRATE_COMMAND, healthcheck::COMMAND]) {
        Ok(Some(healthcheck::COMMAND)) => healthcheck::run(ADMIN_ADDR_DEFAULT),
        Ok(command) => process::run(|signals| work(command, signals)),
        Err(done) => done,
    }
}

async fn work(command: Option<&str>, signals: Signals) -> ExitCode {
    service::tls::install();
    service::open_files::raise_limit();
    let done = if command.is_some() { migrate(signals).await } else { serve_until_signal(signals).await };
    done.unwrap_or_else(|bad| cli::fail(EXIT_BAD_SETTINGS, &bad))
}

/// Brings the schema up to date, once. Waits for a Postgres that does not answer yet, but for nothing else.
async fn migrate(signals: Signals) -> Result<ExitCode, BadSettings> {
    let mut settings = Settings::from_env();
    let telemetry = TelemetrySettings::read(&mut settings);
    let ledger = settings.server_required(&LEDGER, str::parse);
    let ledger = settings.finish_with(ledger)?;
    let work = async {
        let env = Lifecycle::new().env();
        let ledger = PostgresLedger::new(&ledger, env.clone());
        let wait_end = env.uptime() + Duration::from_millis(MIGRATE_WAIT_MAX_MS);
        let mut outage = Outage::new(env.clone(), "migrating the ledger's schema");
        while let Err(error) = ledger.prepare(true).await {
            if !error.is_for_now() || env.uptime() >= wait_end {
                return Err(error.into());
            }
            env.sleep(outage.failed(&Failure::unavailable(error))).await;
        }
        tracing::info!("the schema is up to date");
        Ok(())
    };
    Ok(process::once("order-service", telemetry, signals, work).await)
}

async fn serve_until_signal(signals: Signals) -> Result<ExitCode, BadSettings> {
    let settings = ProcessSettings::read(Settings::from_env())?;
    Ok(process::serve("order-service", settings.run.clone(), signals, start(settings)).await)
}

async fn start(settings: ProcessSettings) -> Result<Serving, Failed> {
    let lifecycle = Lifecycle::new();
    let env = lifecycle.env();
    let grpc = Listener::bind_set("ORDER_GRPC_ADDR", settings.order.grpc_addr).await?;
    let admin = Listener::bind_set("ADMIN_ADDR", settings.admin_addr).await?;

    let postgres = PostgresLedger::new(&settings.ledger, env.clone());
    let ledger: Arc<dyn Ledger> = postgres.clone();
    let broker: Arc<dyn Broker> = RabbitMqBroker::new(&settings.broker, env.clone());

    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let rpc_metrics = RpcMetrics::register(&mut registry);
    let client_metrics = RpcClientMetrics::register(&mut registry);
    let inventory_urls = settings.order.inventory_urls.unwrap_or_default();
    let inventory = Peer::new("inventory", &inventory_urls, env.clone(), &client_metrics)?;
    let metrics = OrderMetrics::register(&mut registry);
    let ports = Ports {
        env: env.clone(),
        ledger: ledger.clone(),
        inventory: Arc::new(GrpcInventory::new(inventory)),
        broker: broker.clone(),
    };
    let order = OrderService::new(ports, settings.order.hold_ttl, &metrics, &lifecycle.stop());
    let rpc = RpcServer::new(env.clone(), rpc_metrics, DESCRIPTORS).add(order.orders).add(order.ledger);

    let health = readiness::keep(
        env.clone(),
        rpc.health(),
        &["", OrderServiceServer::<OrderApi>::NAME, LedgerServiceServer::<LedgerApi>::NAME],
        assembly::check(&ledger),
        lifecycle.leaving(),
    );
    assembly::prepare_first(&postgres, settings.order.migrate, &env).await;
    let mut background = order.background;
    background.push(health.boxed());
    background.push(assembly::prepare(postgres, settings.order.migrate, env.clone(), lifecycle.stop()).boxed());

    tracing::info!(grpc = %grpc.addr(), admin = %admin.addr(), "order-service listens");
    let report = readiness::report(&lifecycle, vec![assembly::check(&ledger), queues::check(&broker)]);
    let admin_routes = admin::router(Arc::new(registry), report);
    let servers = vec![(grpc, rpc.router(), Limits::internal()), (admin, admin_routes, Limits::default())];
    Ok(Serving { lifecycle, servers, background, close: future::ready(()).boxed() })
}
