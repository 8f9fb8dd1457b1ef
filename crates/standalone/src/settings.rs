//! What an operator of the all-in-one sets.

use std::path::PathBuf;

use edge::settings::EdgeSettings;
use inventory::settings::InventorySettings;
use order::settings::OrderSettings;
use service::{
    settings::{BadSettings, Settings},
    telemetry::TelemetrySettings,
};

/// Settings that name a real server. This version has embedded stores only, and says so instead of ignoring them.
const SERVER_SETTINGS: [&str; 6] = ["DB_URL", "POSTGRES_HOST", "REDIS_URL", "REDIS_HOST", "BROKER_URL", "BROKER_HOST"];

/// Everything.
#[derive(Debug)]
pub struct StandaloneSettings {
    /// `DATA_DIR`.
    pub data_dir: PathBuf,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
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
        for name in SERVER_SETTINGS {
            for name in [name.to_owned(), format!("{name}_FILE")] {
                if settings.text(&name).is_some() {
                    settings.bad(&name, "this version has embedded stores only; leave it unset");
                }
            }
        }
        let this = Self {
            data_dir: settings.text("DATA_DIR").unwrap_or_else(|| "./data".to_owned()).into(),
            telemetry: TelemetrySettings::read(&mut settings),
            edge: EdgeSettings::read(&mut settings, "127.0.0.1:9464"),
            order: OrderSettings::read(&mut settings),
            inventory: InventorySettings::read(&mut settings),
        };
        settings.finish()?;
        Ok(this)
    }
}
