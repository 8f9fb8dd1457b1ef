//! What an operator sets.

use std::net::SocketAddr;

use broker::{rabbitmq::RabbitMqUrl, settings::BROKER};
use contracts::values::INITIAL_STOCK_MAX;
use http::Uri;
use service::{
    process::RunSettings,
    settings::{BadSettings, LoginSettings, ServerSettings, Settings},
};

use crate::stock::redis::target::{REDIS_PORT, RedisTarget};

/// Where the stock store is, when it is not embedded.
pub const STOCK: ServerSettings = ServerSettings {
    name: "Redis",
    url: "REDIS_URL",
    scheme: "redis",
    host: "REDIS_HOST",
    port: ("REDIS_PORT", REDIS_PORT),
    login: Some(LoginSettings { user: ("REDIS_USER", ""), password: "REDIS_PASSWORD" }),
    database: None,
};
/// The command that publishes dead letters again and ends.
pub const REPLAY_COMMAND: &str = "replay-dead-letters";
/// Where metrics and health of the process are, unless told otherwise.
pub const ADMIN_ADDR_DEFAULT: &str = "127.0.0.1:9467";

/// What `inventory-service --help` says.
pub const HELP: &str = "\
Holds, releases and counts stock in Redis, and consumes the events of RabbitMQ.

Usage: inventory-service [replay-dead-letters | healthcheck | --help | --version]

replay-dead-letters publishes the events that could not be handled again, and ends. It needs BROKER_URL alone.
healthcheck asks the inventory service of the same ADMIN_ADDR whether it is ready, and ends.

Settings are environment variables:
  REDIS_URL                    Redis, as in redis://host:6379; see README.md for Sentinel and Cluster  [required]
    or REDIS_HOST, REDIS_PORT, REDIS_USER, REDIS_PASSWORD
  BROKER_URL                   RabbitMQ, as in amqp://user:password@host:5672/vhost                     [required]
    or BROKER_HOST, BROKER_PORT, BROKER_USER, BROKER_PASSWORD
  ORDER_URL                    the order service's gRPC, as in http://127.0.0.1:50051; several with commas  [required]
  INVENTORY_GRPC_ADDR          where gRPC listens                                        [default: 127.0.0.1:50052]
  ADMIN_ADDR                   where /metrics, /healthz, /readyz and /audit listen       [default: 127.0.0.1:9467]
  DEFAULT_STOCK                units an item starts with                                            [default: 100]
  DRAIN_DELAY_SECONDS          how long it serves on after SIGTERM, not ready any more, 0..15         [default: 1]
  LOG_FORMAT                   text or json                                                        [default: text]
  RUST_LOG                     what is logged, as in info,inventory=debug                          [default: info]
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, as in http://127.0.0.1:4317                        [default: none]
A secret NAME may stand in a file named by NAME_FILE.

Exit codes: 0 drained after a signal, 1 failed, 64 called wrongly, 78 settings missing or bad.
";

/// The inventory service's settings, whatever its stores are.
#[derive(Debug, Clone)]
pub struct InventorySettings {
    /// `INVENTORY_GRPC_ADDR`.
    pub grpc_addr: SocketAddr,
    /// `ORDER_URL`: where the ledger is served; loopback when not set.
    pub order_urls: Option<Vec<Uri>>,
    /// `DEFAULT_STOCK`: units of an item that the ledger has never heard of.
    pub default_stock: i64,
}

impl InventorySettings {
    /// Reads them; what is bad is recorded in `settings`.
    pub fn read(settings: &mut Settings) -> Self {
        let mut default_stock = settings.parsed("DEFAULT_STOCK", 100);
        if !(0..=INITIAL_STOCK_MAX).contains(&default_stock) {
            settings.bad("DEFAULT_STOCK", format!("must be 0 to {INITIAL_STOCK_MAX}"));
            default_stock = 0;
        }
        Self {
            grpc_addr: settings.addr("INVENTORY_GRPC_ADDR", "127.0.0.1:50052"),
            order_urls: settings.urls("ORDER_URL"),
            default_stock,
        }
    }
}

/// What a process of its own needs beside them.
#[derive(Debug)]
pub struct ProcessSettings {
    /// Logs, traces and the end.
    pub run: RunSettings,
    /// What does not depend on the stores.
    pub inventory: InventorySettings,
    /// `ADMIN_ADDR`.
    pub admin_addr: SocketAddr,
    /// `REDIS_URL`.
    pub stock: RedisTarget,
    /// `BROKER_URL`.
    pub broker: RabbitMqUrl,
}

impl ProcessSettings {
    /// Reads all of them, or says everything that is bad.
    pub fn read(mut settings: Settings) -> Result<Self, BadSettings> {
        let run = RunSettings::read(&mut settings);
        let inventory = InventorySettings::read(&mut settings);
        let admin_addr = settings.addr("ADMIN_ADDR", ADMIN_ADDR_DEFAULT);
        settings.required("ORDER_URL", "where the order service serves the ledger, as in http://127.0.0.1:50051");
        let stock = settings.server_required(&STOCK, RedisTarget::parse);
        let broker = settings.server_required(&BROKER, str::parse);
        let (stock, broker) = settings.finish_with(stock.zip(broker))?;
        Ok(Self { run, inventory, admin_addr, stock, broker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_stock_has_a_range() {
        for (text, good) in [("0", true), ("1000000000", true), ("-1", false), ("1000000001", false), ("x", false)] {
            let mut settings = Settings::from_pairs([("DEFAULT_STOCK", text)]);
            InventorySettings::read(&mut settings);
            assert_eq!(settings.finish().is_ok(), good, "{text}");
        }
    }
}
