//! A process from its start to its end, whatever it does: signals, logs and traces around its work.

use std::{error::Error, process::ExitCode, time::Duration};

use crate::{
    cli,
    lifecycle::{DRAIN_DELAY_S_DEFAULT, DRAIN_DELAY_S_MAX, Serving},
    settings::Settings,
    signals::Signals,
    telemetry::{Telemetry, TelemetrySettings},
};

/// Why a process cannot do its work.
pub type Failed = Box<dyn Error + Send + Sync>;

/// What an operator sets for every process that serves.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
    /// `DRAIN_DELAY_SECONDS`: how long it goes on serving after it has said that it is not ready any more.
    pub drain_delay: Duration,
}

impl RunSettings {
    /// Reads all of them; what is bad is noted in `settings`.
    pub fn read(settings: &mut Settings) -> Self {
        let telemetry = TelemetrySettings::read(settings);
        let seconds = settings.parsed("DRAIN_DELAY_SECONDS", DRAIN_DELAY_S_DEFAULT);
        if seconds > DRAIN_DELAY_S_MAX {
            settings.bad("DRAIN_DELAY_SECONDS", format!("must be 0 to {DRAIN_DELAY_S_MAX}"));
        }
        Self { telemetry, drain_delay: Duration::from_secs(seconds) }
    }
}

/// Runs the work of a process on a runtime of its own. A second signal ends it at once, whatever it is about.
pub fn run<F: Future<Output = ExitCode>>(work: impl FnOnce(Signals) -> F) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(1, &error),
    };
    let code = runtime.block_on(async {
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return cli::fail(1, &error),
        };
        tokio::select! {
            biased;
            () = signals.second() => ExitCode::FAILURE,
            code = work(signals.clone()) => code,
        }
    });
    // What blocks, such as a lookup of a name, may do so for long yet.
    runtime.shutdown_background();
    code
}

/// Serves what `start` puts together, until a signal or a failure ends it. A signal that comes before is no failure.
pub async fn serve(
    name: &'static str,
    settings: RunSettings,
    signals: Signals,
    start: impl Future<Output = Result<Serving, Failed>>,
) -> ExitCode {
    let telemetry = begin(name, settings.telemetry);
    let code = match until_signal(name, &signals, start, ExitCode::SUCCESS).await {
        Ok(serving) => serving.run(&signals, settings.drain_delay).await,
        Err(code) => code,
    };
    telemetry.flush().await;
    code
}

/// Does what is done once. A signal breaks it off, and then it has failed.
pub async fn once(
    name: &'static str,
    settings: TelemetrySettings,
    signals: Signals,
    work: impl Future<Output = Result<(), Failed>>,
) -> ExitCode {
    let telemetry = begin(name, settings);
    let done = until_signal(name, &signals, work, ExitCode::FAILURE).await;
    telemetry.flush().await;
    done.err().unwrap_or(ExitCode::SUCCESS)
}

fn begin(name: &'static str, settings: TelemetrySettings) -> Telemetry {
    let telemetry = Telemetry::start(name, settings);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{name} starts");
    telemetry
}

/// The work's result, or the exit code of a process that does not go on.
async fn until_signal<T>(
    name: &'static str,
    signals: &Signals,
    work: impl Future<Output = Result<T, Failed>>,
    broken_off: ExitCode,
) -> Result<T, ExitCode> {
    tokio::select! {
        biased;
        signal = signals.first() => {
            tracing::info!(signal, "ending before it was done");
            Err(broken_off)
        }
        done = work => done.map_err(|error| {
            tracing::error!(error, "{name} failed");
            ExitCode::FAILURE
        }),
    }
}
