//! What an operator of the all-in-one sets.

use std::path::PathBuf;

use broker::{rabbitmq::RabbitMqUrl, settings::BROKER};
use edge::settings::EdgeSettings;
use inventory::{
    settings::{InventorySettings, STOCK},
    stock::redis::target::RedisTarget,
};
use order::{
    ledger::postgres::PostgresUrl,
    settings::{LEDGER, OrderSettings},
};
use service::{
    process::RunSettings,
    settings::{BadSettings, Settings},
};

/// Where metrics and health of the process are, unless told otherwise.
pub const ADMIN_ADDR_DEFAULT: &str = "127.0.0.1:9464";

/// Everything.
#[derive(Debug)]
pub struct StandaloneSettings {
    /// `DATA_DIR`.
    pub data_dir: PathBuf,
    /// `DB_URL`: Postgres; embedded when not set.
    pub ledger: Option<PostgresUrl>,
    /// `REDIS_URL`: Redis; embedded when not set.
    pub stock: Option<RedisTarget>,
    /// `BROKER_URL`: RabbitMQ; embedded when not set.
    pub broker: Option<RabbitMqUrl>,
    /// Logs, traces and the end.
    pub run: RunSettings,
    /// The edge's, and `ADMIN_ADDR`.
    pub edge: EdgeSettings,
    /// The order service's.
    pub order: OrderSettings,
    /// The inventory service's.
    pub inventory: InventorySettings,
}

impl StandaloneSettings {
    /// Reads all of them, or says everything that is bad.
    pub fn read(mut settings: Settings) -> Result<Self, BadSettings> {
        let this = Self {
            data_dir: settings.text("DATA_DIR").unwrap_or_else(|| "./data".to_owned()).into(),
            ledger: settings.server(&LEDGER, str::parse),
            stock: settings.server(&STOCK, RedisTarget::parse),
            broker: settings.server(&BROKER, str::parse),
            run: RunSettings::read(&mut settings),
            edge: EdgeSettings::read(&mut settings, ADMIN_ADDR_DEFAULT),
            order: OrderSettings::read(&mut settings),
            inventory: InventorySettings::read(&mut settings),
        };
        settings.finish()?;
        Ok(this)
    }
}
