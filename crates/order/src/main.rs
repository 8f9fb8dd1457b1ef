//! The order service as a process of its own. It needs a ledger and a broker that processes can share, and this version
//! has an adapter for neither: all it can do is to say so, beside whatever else is wrong.

use std::process::ExitCode;

use order::settings::{BROKER_SETTINGS, LEDGER_SETTINGS, OrderSettings};
use service::{
    cli,
    settings::{EXIT_BAD_SETTINGS, Settings},
    telemetry::TelemetrySettings,
};

const HELP: &str = "\
The order service as a process of its own, on a ledger and a broker that other processes share.

This version has embedded stores only, which processes cannot share: run standalone, which has all three services.
";

fn main() -> ExitCode {
    if let Some(done) = cli::answer("order-service", HELP) {
        return done;
    }
    let mut settings = Settings::from_env();
    OrderSettings::read(&mut settings);
    TelemetrySettings::read(&mut settings);
    if settings.text("INVENTORY_URL").is_none() {
        settings.bad("INVENTORY_URL", "is required: where the inventory service is");
    }
    settings.no_adapter(LEDGER_SETTINGS, "Postgres");
    settings.no_adapter(BROKER_SETTINGS, "RabbitMQ");
    let bad = settings.finish().expect_err("two were recorded as bad above");
    cli::fail(EXIT_BAD_SETTINGS, &bad)
}
