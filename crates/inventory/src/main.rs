//! The inventory service as a process of its own. It needs a stock store and a broker that processes can share, and this
//! version has an adapter for neither: all it can do is to say so, beside whatever else is wrong.

use std::process::ExitCode;

use inventory::settings::{BROKER_SETTINGS, InventorySettings, STOCK_SETTINGS};
use service::{
    cli,
    settings::{EXIT_BAD_SETTINGS, Settings},
    telemetry::TelemetrySettings,
};

const HELP: &str = "\
The inventory service as a process of its own, on a stock store and a broker that other processes share.

This version has embedded stores only, which processes cannot share: run standalone, which has all three services.
";

fn main() -> ExitCode {
    if let Some(done) = cli::answer("inventory-service", HELP) {
        return done;
    }
    let mut settings = Settings::from_env();
    InventorySettings::read(&mut settings);
    TelemetrySettings::read(&mut settings);
    if settings.text("ORDER_URL").is_none() {
        settings.bad("ORDER_URL", "is required: where the order service serves the ledger");
    }
    settings.no_adapter(STOCK_SETTINGS, "Redis");
    settings.no_adapter(BROKER_SETTINGS, "RabbitMQ");
    let bad = settings.finish().expect_err("two were recorded as bad above");
    cli::fail(EXIT_BAD_SETTINGS, &bad)
}
