//! What an operator sets.

use std::net::SocketAddr;

use broker::{rabbitmq::RabbitMqUrl, settings::BROKER};
use contracts::values::Ttl;
use http::Uri;
use service::{
    process::RunSettings,
    settings::{BadSettings, LoginSettings, ServerSettings, Settings},
};

use crate::ledger::postgres::PostgresUrl;

/// Where the ledger is, when it is not embedded.
pub const LEDGER: ServerSettings = ServerSettings {
    name: "Postgres",
    url: "DB_URL",
    scheme: "postgres",
    host: "POSTGRES_HOST",
    port: ("POSTGRES_PORT", 5432),
    login: Some(LoginSettings { user: ("POSTGRES_USER", "postgres"), password: "POSTGRES_PASSWORD" }),
    database: Some("POSTGRES_DB"),
};
/// The command that brings the schema up to date and ends.
pub const MIGRATE_COMMAND: &str = "migrate";
/// Where metrics and health of the process are, unless told otherwise.
pub const ADMIN_ADDR_DEFAULT: &str = "127.0.0.1:9466";

/// What `order-service --help` says.
pub const HELP: &str = "\
Places orders: keeps the ledger in Postgres and publishes its events to RabbitMQ.

Usage: order-service [migrate | healthcheck | --help | --version]

migrate brings the schema up to date as the role of DB_URL, and ends.
healthcheck asks the order service of the same ADMIN_ADDR whether it is ready, and ends.

Settings are environment variables:
  DB_URL                       Postgres, as in postgres://user:password@host:5432/database              [required]
    or POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB
  BROKER_URL                   RabbitMQ, as in amqp://user:password@host:5672/vhost                     [required]
    or BROKER_HOST, BROKER_PORT, BROKER_USER, BROKER_PASSWORD
  INVENTORY_URL                the inventory service's gRPC, as in http://127.0.0.1:50052; several with commas  [required]
  ORDER_GRPC_ADDR              where gRPC listens                                        [default: 127.0.0.1:50051]
  ADMIN_ADDR                   where /metrics, /healthz and /readyz listen               [default: 127.0.0.1:9466]
  MIGRATE                      false: only check the schema, which 'migrate' brought up to date    [default: true]
  RESERVATION_TTL_SECONDS      holds of orders under way, 1..86400                                   [default: 30]
  DRAIN_DELAY_SECONDS          how long it serves on after SIGTERM, not ready any more, 0..15         [default: 1]
  LOG_FORMAT                   text or json                                                        [default: text]
  RUST_LOG                     what is logged, as in info,order=debug                              [default: info]
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, as in http://127.0.0.1:4317                        [default: none]
A secret NAME may stand in a file named by NAME_FILE.

Exit codes: 0 drained after a signal, 1 failed, 64 called wrongly, 78 settings missing or bad.
";

/// The order service's settings, whatever its stores are.
#[derive(Debug, Clone)]
pub struct OrderSettings {
    /// `ORDER_GRPC_ADDR`.
    pub grpc_addr: SocketAddr,
    /// `INVENTORY_URL`; loopback when not set.
    pub inventory_urls: Option<Vec<Uri>>,
    /// `RESERVATION_TTL_SECONDS`: life of the holds of orders under way.
    pub hold_ttl: Ttl,
    /// `MIGRATE`: whether the schema is brought up to date at start, or only checked.
    pub migrate: bool,
}

impl OrderSettings {
    /// Reads them; what is bad is recorded in `settings`.
    pub fn read(settings: &mut Settings) -> Self {
        let seconds = settings.parsed("RESERVATION_TTL_SECONDS", 30);
        let hold_ttl = Ttl::parse_seconds(seconds).unwrap_or_else(|invalid| {
            settings.bad("RESERVATION_TTL_SECONDS", invalid.0);
            Ttl::DEFAULT
        });
        Self {
            grpc_addr: settings.addr("ORDER_GRPC_ADDR", "127.0.0.1:50051"),
            inventory_urls: settings.urls("INVENTORY_URL"),
            hold_ttl,
            migrate: settings.parsed("MIGRATE", true),
        }
    }
}

/// What a process of its own needs beside them.
#[derive(Debug)]
pub struct ProcessSettings {
    /// Logs, traces and the end.
    pub run: RunSettings,
    /// What does not depend on the stores.
    pub order: OrderSettings,
    /// `ADMIN_ADDR`.
    pub admin_addr: SocketAddr,
    /// `DB_URL`.
    pub ledger: PostgresUrl,
    /// `BROKER_URL`.
    pub broker: RabbitMqUrl,
}

impl ProcessSettings {
    /// Reads all of them, or says everything that is bad.
    pub fn read(mut settings: Settings) -> Result<Self, BadSettings> {
        let run = RunSettings::read(&mut settings);
        let order = OrderSettings::read(&mut settings);
        let admin_addr = settings.addr("ADMIN_ADDR", ADMIN_ADDR_DEFAULT);
        settings.required("INVENTORY_URL", "where the inventory service is, as in http://127.0.0.1:50052");
        let ledger = settings.server_required(&LEDGER, str::parse);
        let broker = settings.server_required(&BROKER, str::parse);
        let (ledger, broker) = settings.finish_with(ledger.zip(broker))?;
        Ok(Self { run, order, admin_addr, ledger, broker })
    }
}
