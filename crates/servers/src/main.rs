//! `servers run -- COMMAND ARGUMENTS…` runs the command with one Postgres and one RabbitMQ for all its tests, which find
//! them by `Postgres::shared` and `RabbitMq::shared`, and ends with the command's exit code.
//! `servers stack up` and `servers stack down` start and end the whole order system on real servers: see `Stack`.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for on the real clock")]

use std::io::Write as _;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use servers::{
    POSTGRES_URL_VARIABLE, Postgres, RABBITMQ_DIRECTORY_VARIABLE, RABBITMQ_URL_VARIABLE, RabbitMq, stack::Stack,
};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// More than one run's tests ask for. When they are used up, each further one is made when it is asked for.
const VHOSTS_PREPARED: usize = 100;
/// How long the command may take to end when it is asked to. nextest gives its tests 10 s.
const COMMAND_END_LIMIT: Duration = Duration::from_secs(20);
/// The exit code after Ctrl-C or SIGTERM.
const STOPPED: u8 = 130;

/// The exit code for arguments that are not understood (`EX_USAGE` of sysexits.h).
const MISUSED: u8 = 64;
const USAGE: &str = "\
usage: servers stack up      start Postgres, Redis, RabbitMQ, two of each service, and NGINX at 127.0.0.1:8080
       servers stack down    end all of it; the data stays
       servers run -- COMMAND ARGUMENTS…    run a command with a Postgres and a RabbitMQ for tests

The stack reads these environment variables:
  STACK_DIR           where data and logs are                            [default: ./data/stack]
  STACK_PORTS_FROM    take 18 ports in a row from this one, instead of the usual ones
and hands these to the services: DEFAULT_STOCK, RESERVATION_TTL_SECONDS, DRAIN_DELAY_SECONDS, RUST_LOG, LOG_FORMAT,
OTEL_EXPORTER_OTLP_ENDPOINT.";

// One thread, which ends with the process: the servers end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", "--", command, ref arguments @ ..] => run(command, arguments).await,
        ["stack", command @ ("up" | "down" | "serve")] => stack(command).await.unwrap_or_else(|why| {
            complain(&why);
            ExitCode::FAILURE
        }),
        _ => {
            complain(USAGE);
            ExitCode::from(MISUSED)
        }
    }
}

async fn stack(command: &str) -> Result<ExitCode, String> {
    let stack = Stack::from_env()?;
    let done = match command {
        "up" => stack.up(asked_to_stop()).await?,
        "down" => stack.down().await?,
        _ => {
            // What goes wrong at the start is told to whoever wants the stack up.
            std::panic::set_hook(Box::new(|panic| complain(panic.payload_as_str().unwrap_or("it failed"))));
            stack.serve(asked_to_stop()).await?;
            String::new()
        }
    };
    // Nobody reading is no failure.
    std::io::stdout().write_all(done.as_bytes()).ok();
    Ok(ExitCode::SUCCESS)
}

async fn run(command: &str, arguments: &[&str]) -> ExitCode {
    let mut asked_to_stop = pin!(asked_to_stop());
    let (postgres, rabbitmq) = tokio::select! {
        biased;
        started = start() => started,
        () = &mut asked_to_stop => return ExitCode::from(STOPPED),
    };
    // The command too ends with this process, since its servers do.
    let mut child = Command::new("setpriv");
    child.args(["--pdeathsig", "TERM", command]).args(arguments).kill_on_drop(true);
    child.env(POSTGRES_URL_VARIABLE, format!("postgres://postgres@127.0.0.1:{}", postgres.port()));
    child.env(RABBITMQ_URL_VARIABLE, format!("amqp://guest:guest@127.0.0.1:{}", rabbitmq.port()));
    child.env(RABBITMQ_DIRECTORY_VARIABLE, rabbitmq.directory());
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(error) => {
            complain(&format!("cannot run setpriv, of util-linux: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let status = tokio::select! {
        biased;
        status = child.wait() => status,
        () = &mut asked_to_stop => {
            let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            process.map(|process| kill_process(process, Signal::TERM));
            drop(tokio::time::timeout(COMMAND_END_LIMIT, child.wait()).await);
            return ExitCode::from(STOPPED);
        }
    };
    let code = status.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

async fn start() -> (Postgres, RabbitMq) {
    let rabbitmq = async {
        let started = RabbitMq::start().await;
        started.prepare_vhosts(VHOSTS_PREPARED).await;
        started
    };
    tokio::join!(Postgres::start(), rabbitmq)
}

async fn asked_to_stop() {
    let listen = |kind| signal(kind).expect("a signal handler can be set");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::print_stderr, reason = "it is for who runs the command")]
fn complain(text: &str) {
    eprintln!("{text}");
}
