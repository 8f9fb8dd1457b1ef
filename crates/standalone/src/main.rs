//! The `standalone` binary.

use std::{io::Write, process::ExitCode};

use service::{
    lifecycle::Lifecycle,
    settings::{EXIT_BAD_SETTINGS, Settings},
    telemetry::Telemetry,
};
use standalone::{
    settings::StandaloneSettings,
    stores::Stores,
    system::{Listeners, StartError, System},
};

const HELP: &str = "\
The order system in one process, on embedded stores.

Settings are environment variables:
  HTTP_ADDR                    HTTP/JSON                                    [127.0.0.1:8080]
  ORDER_GRPC_ADDR              order service                                [127.0.0.1:50051]
  INVENTORY_GRPC_ADDR          inventory service                            [127.0.0.1:50052]
  ADMIN_ADDR                   /metrics, /healthz, /readyz                  [127.0.0.1:9464]
  DATA_DIR                     ledger and queue; one process at a time      [./data]
  DEFAULT_STOCK                units an item starts with                    [100]
  RESERVATION_TTL_SECONDS      holds of orders under way, 1..86400          [30]
  ORDER_URL, INVENTORY_URL     gRPC services to ask, comma-separated        [this process]
  LOG_FORMAT                   text or json, on stderr                      [text]
  RUST_LOG                     what is logged, as in info,order=debug       [info]
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, as in http://127.0.0.1:4317 [nowhere]

Ctrl-C or SIGTERM finishes what is under way and stops; the second one stops at once.
Exit codes: 0 drained, 1 failed, 64 bad arguments, 78 bad settings.
";

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(done) = service::cli::answer("standalone", HELP) {
        return done;
    }
    service::open_files::raise_limit();
    let settings = match StandaloneSettings::read(Settings::from_env()) {
        Ok(settings) => settings,
        Err(bad) => return service::cli::fail(EXIT_BAD_SETTINGS, &bad),
    };
    let telemetry = Telemetry::start("order-system", settings.telemetry.clone());
    let code = match start(&settings).await {
        Ok(system) => system.run().await,
        Err(error) => service::cli::fail(1, &error),
    };
    telemetry.flush().await;
    code
}

async fn start(settings: &StandaloneSettings) -> Result<System, StartError> {
    let lifecycle = Lifecycle::new();
    let listeners = Listeners::bind(settings).await?;
    let stores = Stores::open(&settings.data_dir, &lifecycle.env()).await?;
    let announcement = announcement(settings, &listeners);
    let system = System::new(lifecycle, settings, listeners, stores)?;
    // The sockets are bound: what connects from now on is served.
    let mut stdout = std::io::stdout();
    // Nobody reading is no reason not to serve.
    let _ = stdout.write_all(announcement.as_bytes()).and_then(|()| stdout.flush());
    Ok(system)
}

fn announcement(settings: &StandaloneSettings, listeners: &Listeners) -> String {
    let http = listeners.http.addr();
    format!(
        "order system
  HTTP            http://{http}
  order gRPC      {}
  inventory gRPC  {}
  admin           http://{}/metrics
  data            {}
try:
  curl -i http://{http}/orders -H 'Content-Type: application/json' -d '{{\"item\":\"widget\",\"quantity\":1}}'
",
        listeners.order.addr(),
        listeners.inventory.addr(),
        listeners.admin.addr(),
        settings.data_dir.display(),
    )
}
