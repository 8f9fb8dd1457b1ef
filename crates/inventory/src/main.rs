//! The inventory service as a process of its own.

use std::{process::ExitCode, sync::Arc};

use broker::{Broker, queues, rabbitmq::RabbitMqBroker, replay, settings::BROKER};
use contracts::{DESCRIPTORS, inventory::v1::inventory_service_server::InventoryServiceServer};
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use inventory::{
    Inventory, audit,
    backend::Backend,
    grpc::InventoryGrpc,
    ledger::grpc::GrpcLedger,
    metrics::{AuditMetrics, InventoryMetrics},
    settings::{ADMIN_ADDR_DEFAULT, HELP, ProcessSettings, REPLAY_COMMAND},
    stock::{StockStore, redis::RedisStock},
};
use prometheus_client::registry::Registry;
use service::{
    admin, cli, healthcheck,
    lifecycle::{Lifecycle, Serving},
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

fn main() -> ExitCode {
    match cli::command("inventory-service", HELP, &[REPLAY_COMMAND, healthcheck::COMMAND]) {
        Ok(Some(healthcheck::COMMAND)) => healthcheck::run(ADMIN_ADDR_DEFAULT),
        Ok(command) => process::run(|signals| work(command, signals)),
        Err(done) => done,
    }
}

async fn work(command: Option<&str>, signals: Signals) -> ExitCode {
    service::tls::install();
    service::open_files::raise_limit();
    let done = if command.is_some() { replay_dead_letters(signals).await } else { serve_until_signal(signals).await };
    done.unwrap_or_else(|bad| cli::fail(EXIT_BAD_SETTINGS, &bad))
}

/// Gives the events that could not be handled another chance, once.
async fn replay_dead_letters(signals: Signals) -> Result<ExitCode, BadSettings> {
    let mut settings = Settings::from_env();
    let telemetry = TelemetrySettings::read(&mut settings);
    let broker = settings.server_required(&BROKER, str::parse);
    let broker = settings.finish_with(broker)?;
    let work = async {
        let env = Lifecycle::new().env();
        let broker = RabbitMqBroker::new(&broker, env.clone());
        let replayed = replay::replay(&env, &*broker, &queues::order_created(), u64::MAX).await?;
        tracing::info!(moved = replayed.moved, left = replayed.left, "dead letters replayed");
        Ok(())
    };
    Ok(process::once("inventory-service", telemetry, signals, work).await)
}

async fn serve_until_signal(signals: Signals) -> Result<ExitCode, BadSettings> {
    let settings = ProcessSettings::read(Settings::from_env())?;
    Ok(process::serve("inventory-service", settings.run.clone(), signals, start(settings)).await)
}

async fn start(settings: ProcessSettings) -> Result<Serving, Failed> {
    let lifecycle = Lifecycle::new();
    let env = lifecycle.env();
    let grpc = Listener::bind_set("INVENTORY_GRPC_ADDR", settings.inventory.grpc_addr).await?;
    let admin = Listener::bind_set("ADMIN_ADDR", settings.admin_addr).await?;

    let store: Arc<dyn StockStore> = RedisStock::new(settings.stock, env.clone());
    let broker: Arc<dyn Broker> = RabbitMqBroker::new(&settings.broker, env.clone());

    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let rpc_metrics = RpcMetrics::register(&mut registry);
    let client_metrics = RpcClientMetrics::register(&mut registry);
    let ledger_urls = settings.inventory.order_urls.unwrap_or_default();
    let ledger = Peer::new("ledger", &ledger_urls, env.clone(), &client_metrics)?;
    let ledger = Arc::new(GrpcLedger::new(ledger));
    let backend = Backend {
        env: env.clone(),
        store: store.clone(),
        ledger: ledger.clone(),
        default_stock: settings.inventory.default_stock,
        metrics: InventoryMetrics::register(&mut registry),
    };
    let inventory = Inventory::new(backend, broker.clone());
    let auditor = inventory.auditor(ledger, AuditMetrics::register(&mut registry, env.now()));
    let rpc = RpcServer::new(env.clone(), rpc_metrics, DESCRIPTORS).add(inventory.service());

    let health = readiness::keep(
        env.clone(),
        rpc.health(),
        &["", InventoryServiceServer::<InventoryGrpc>::NAME],
        inventory::check(&store),
        lifecycle.leaving(),
    );
    let background: Vec<BoxFuture<'static, ()>> = vec![
        health.boxed(),
        inventory.reaper().run(lifecycle.stop()).boxed(),
        inventory.consumer().run(lifecycle.stop()).boxed(),
        auditor.clone().run(lifecycle.stop()).boxed(),
    ];

    tracing::info!(grpc = %grpc.addr(), admin = %admin.addr(), "inventory-service listens");
    let report = readiness::report(&lifecycle, vec![inventory::check(&store), queues::check(&broker)]);
    let admin_routes = admin::router(Arc::new(registry), report).merge(audit::router(auditor));
    let servers = vec![(grpc, rpc.router(), Limits::internal()), (admin, admin_routes, Limits::default())];
    Ok(Serving { lifecycle, servers, background, close: future::ready(()).boxed() })
}
