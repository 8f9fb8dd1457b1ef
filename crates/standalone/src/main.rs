//! The `standalone` binary.

use std::{io::Write, process::ExitCode};

use service::{
    cli, healthcheck,
    lifecycle::{Lifecycle, Serving},
    process::{self, Failed},
    settings::{EXIT_BAD_SETTINGS, Settings},
    signals::Signals,
};
use standalone::{
    settings::{ADMIN_ADDR_DEFAULT, StandaloneSettings},
    stores::Stores,
    system::{self, Listeners},
};

const HELP: &str = "\
The order system in one process. Its stores are embedded, or those servers whose settings are set.

Usage: standalone [healthcheck | --help | --version]

healthcheck asks the process of the same ADMIN_ADDR whether it is ready, and ends.

Settings are environment variables:
  HTTP_ADDR                    HTTP/JSON                                    [127.0.0.1:8080]
  ORDER_GRPC_ADDR              order service                                [127.0.0.1:50051]
  INVENTORY_GRPC_ADDR          inventory service                            [127.0.0.1:50052]
  ADMIN_ADDR                   /metrics, /healthz, /readyz                  [127.0.0.1:9464]
  DATA_DIR                     embedded ledger and queue, of one process    [./data]
  DB_URL                       Postgres, or POSTGRES_HOST and so on         [embedded]
  REDIS_URL                    Redis, or REDIS_HOST and so on               [embedded]
  BROKER_URL                   RabbitMQ, or BROKER_HOST and so on           [embedded]
  MIGRATE                      false: only check the schema in Postgres     [true]
  DEFAULT_STOCK                units an item starts with                    [100]
  RESERVATION_TTL_SECONDS      holds of orders under way, 1..86400          [30]
  ORDER_URL, INVENTORY_URL     gRPC services to ask, comma-separated        [this process]
  DRAIN_DELAY_SECONDS          serving on after SIGTERM, not ready, 0..15   [1]
  LOG_FORMAT                   text or json, on stderr                      [text]
  RUST_LOG                     what is logged, as in info,order=debug       [info]
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, as in http://127.0.0.1:4317 [nowhere]

A secret NAME may stand in a file named by NAME_FILE. README.md has all settings of the servers.
Ctrl-C or SIGTERM finishes what is under way and stops; the second one stops at once.
Exit codes: 0 drained, 1 failed, 64 bad arguments, 78 bad settings.
";

fn main() -> ExitCode {
    match cli::command("standalone", HELP, &[healthcheck::COMMAND]) {
        Ok(None) => process::run(serve_until_signal),
        Ok(Some(_)) => healthcheck::run(ADMIN_ADDR_DEFAULT),
        Err(done) => done,
    }
}

async fn serve_until_signal(signals: Signals) -> ExitCode {
    service::tls::install();
    service::open_files::raise_limit();
    match StandaloneSettings::read(Settings::from_env()) {
        Ok(settings) => process::serve("order-system", settings.run.clone(), signals, start(&settings)).await,
        Err(bad) => cli::fail(EXIT_BAD_SETTINGS, &bad),
    }
}

async fn start(settings: &StandaloneSettings) -> Result<Serving, Failed> {
    let lifecycle = Lifecycle::new();
    let listeners = Listeners::bind(settings).await?;
    let stores = Stores::open(settings, &lifecycle.env()).await?;
    let announcement = announcement(settings, &listeners);
    let system = system::assemble(lifecycle, settings, listeners, stores)?;
    // The sockets are bound: what connects from now on is served.
    let mut stdout = std::io::stdout();
    // Nobody reading is no reason not to serve.
    let _ = stdout.write_all(announcement.as_bytes()).and_then(|()| stdout.flush());
    Ok(system)
}

fn announcement(settings: &StandaloneSettings, listeners: &Listeners) -> String {
    let http = listeners.http.addr();
    let stores = Stores::described(settings).map(|(name, store)| format!("  {name:14}  {store}\n")).concat();
    format!(
        "order system
  HTTP            http://{http}
  order gRPC      {}
  inventory gRPC  {}
  admin           http://{}/metrics
{stores}try:
  curl -i http://{http}/orders -H 'Content-Type: application/json' -d '{{\"item\":\"widget\",\"quantity\":1}}'
",
        listeners.order.addr(),
        listeners.inventory.addr(),
        listeners.admin.addr(),
    )
}
