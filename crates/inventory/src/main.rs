//! The inventory service as a process of its own.

use std::process::ExitCode;

use inventory::settings::{BROKER_SETTINGS, InventorySettings, STOCK_SETTINGS};
use service::settings::{EXIT_BAD_SETTINGS, Settings};

/// On its own the service needs a stock store and a broker that other processes reach, and this version has an adapter
/// for neither: so all it can do is to say so, beside whatever else is wrong.
fn main() -> ExitCode {
    let mut settings = Settings::from_env();
    InventorySettings::read(&mut settings);
    if settings.text("ORDER_URL").is_none() {
        settings.bad("ORDER_URL", "is required: where the order service serves the ledger");
    }
    outside(&mut settings, STOCK_SETTINGS, "Redis");
    outside(&mut settings, BROKER_SETTINGS, "RabbitMQ");
    if let Err(bad) = settings.finish() {
        report(&bad.to_string());
    }
    ExitCode::from(EXIT_BAD_SETTINGS)
}

fn outside(settings: &mut Settings, names: [&'static str; 2], server: &str) {
    match names.into_iter().find(|name| settings.secret(name).is_some()) {
        Some(name) => settings.bad(name, format!("this version has no {server} adapter; run the all-in-one")),
        None => settings.bad(names[0], format!("is required: where {server} is")),
    }
}

#[expect(clippy::print_stderr, reason = "no telemetry runs yet")]
fn report(text: &str) {
    eprintln!("{text}");
}
