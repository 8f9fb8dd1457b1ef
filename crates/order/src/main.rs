//! The `order-service` binary.

use std::process::ExitCode;

use order::settings::{BROKER_SETTINGS, LEDGER_SETTINGS, OrderSettings};
use service::{
    cli,
    settings::{EXIT_BAD_SETTINGS, Settings},
    telemetry::TelemetrySettings,
};

const HELP: &str = "\
The order service as a process of its own, on a ledger and a broker that other processes share.

This version has embedded stores only, which processes cannot share: run `standalone`, which has all three services.
";

fn main() -> ExitCode {
    if let Some(done) = cli::answer("order-service", HELP) {
        return done;
    }
    let mut settings = Settings::from_env();
    OrderSettings::read(&mut settings);
    TelemetrySettings::read(&mut settings);
    for ([url, host], what) in [(LEDGER_SETTINGS, "ledger"), (BROKER_SETTINGS, "broker")] {
        let given = [url, host].into_iter().find(|name| settings.text(name).is_some());
        let why = match given {
            Some(_) => format!("this version has no {what} that processes can share; run `standalone`"),
            None => format!("is required, or {host}: a separate process needs a {what} that others share"),
        };
        settings.bad(given.unwrap_or(url), why);
    }
    let bad = settings.finish().expect_err("a ledger was recorded as bad above");
    cli::fail(EXIT_BAD_SETTINGS, &bad)
}
