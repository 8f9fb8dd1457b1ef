//! The inventory service as a process of its own.

use std::{process::ExitCode, sync::Arc};

use broker::{Broker, queues, rabbitmq::RabbitMqBroker, replay, settings::BROKER};
use contracts::{DESCRIPTORS, inventory::v1::inventory_service_server::InventoryServiceServer};
use futures::{FutureExt, future::BoxFuture};
use inventory::{
    Inventory,
    backend::Backend,
    grpc::InventoryGrpc,
    ledger::grpc::GrpcLedger,
    metrics::InventoryMetrics,
    settings::{ADMIN_ADDR_DEFAULT, HELP, ProcessSettings, REPLAY_COMMAND},
    stock::{StockStore, redis::RedisStock},
};
use prometheus_client::registry::Registry;
use service::{
    admin, cli, healthcheck,
    lifecycle::Lifecycle,
    readiness,
    rpc::{RpcMetrics, RpcServer},
    rpc_client::Peer,
    server::{Limits, Listener, serve},
    settings::{BadSettings, EXIT_BAD_SETTINGS, Settings},
    telemetry::{Telemetry, TelemetrySettings},
};
use tonic::server::NamedService;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match cli::command("inventory-service", HELP, &[REPLAY_COMMAND, healthcheck::COMMAND]) {
        Ok(Some(healthcheck::COMMAND)) => healthcheck::run(ADMIN_ADDR_DEFAULT),
        Ok(command) => work(command),
        Err(done) => done,
    }
}

#[tokio::main]
async fn work(command: Option<&str>) -> ExitCode {
    service::tls::install();
    service::open_files::raise_limit();
    let done = if command.is_some() { replay_dead_letters().await } else { serve_until_signal().await };
    done.unwrap_or_else(|bad| cli::fail(EXIT_BAD_SETTINGS, &bad))
}

/// Gives the events that could not be handled another chance, once.
async fn replay_dead_letters() -> Result<ExitCode, BadSettings> {
    let mut settings = Settings::from_env();
    let telemetry = TelemetrySettings::read(&mut settings);
    let broker = settings.server_required(&BROKER, str::parse);
    let broker = settings.finish_with(broker)?;
    let work = async {
        let env = Lifecycle::new().env();
        let broker = RabbitMqBroker::new(&broker, env.clone());
        let replayed = replay::replay(&env, &*broker, &queues::order_created(), u64::MAX).await?;
        tracing::info!(moved = replayed.moved, left = replayed.left, "dead letters replayed");
        Ok(ExitCode::SUCCESS)
    };
    Ok(Telemetry::around("inventory-service", telemetry, work).await)
}

async fn serve_until_signal() -> Result<ExitCode, BadSettings> {
    let settings = ProcessSettings::read(Settings::from_env())?;
    Ok(Telemetry::around("inventory-service", settings.telemetry.clone(), run(settings)).await)
}

/// Runs until a signal ends it.
async fn run(settings: ProcessSettings) -> Result<ExitCode, Error> {
    let lifecycle = Lifecycle::new();
    let env = lifecycle.env();
    let grpc = Listener::bind_set("INVENTORY_GRPC_ADDR", settings.inventory.grpc_addr).await?;
    let admin = Listener::bind_set("ADMIN_ADDR", settings.admin_addr).await?;

    let store: Arc<dyn StockStore> = RedisStock::new(settings.stock, env.clone());
    let broker: Arc<dyn Broker> = RabbitMqBroker::new(&settings.broker, env.clone());
    let ledger = Peer::new("ledger", &settings.inventory.order_urls.unwrap_or_default(), env.clone())?;

    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let rpc_metrics = RpcMetrics::register(&mut registry);
    let backend = Backend {
        env: env.clone(),
        store: store.clone(),
        ledger: Arc::new(GrpcLedger::new(ledger)),
        default_stock: settings.inventory.default_stock,
        metrics: InventoryMetrics::register(&mut registry),
    };
    let inventory = Inventory::new(backend, broker.clone());
    let rpc = RpcServer::new(env.clone(), rpc_metrics, DESCRIPTORS).add(inventory.service());

    let health = readiness::keep(
        env.clone(),
        rpc.health(),
        &["", InventoryServiceServer::<InventoryGrpc>::NAME],
        inventory::check(&store),
        lifecycle.drain(),
    );
    let background: Vec<BoxFuture<'static, ()>> = vec![
        health.boxed(),
        inventory.reaper().run(lifecycle.stop()).boxed(),
        inventory.consumer().run(lifecycle.stop()).boxed(),
    ];

    tracing::info!(grpc = %grpc.addr(), admin = %admin.addr(), "inventory-service listens");
    let report = readiness::report(&lifecycle, vec![inventory::check(&store), queues::check(&broker)]);
    let admin_routes = admin::router(Arc::new(registry), report);
    let servers: Vec<BoxFuture<'static, ()>> = vec![
        serve(grpc, rpc.router(), Limits::internal(), env.clone(), lifecycle.drain()).boxed(),
        serve(admin, admin_routes, Limits::default(), env, lifecycle.drain()).boxed(),
    ];
    lifecycle.ready();
    Ok(lifecycle.run_until_signal(servers, background).await)
}
