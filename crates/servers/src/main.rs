//! `servers run -- COMMAND ARGUMENTS…` runs the command with one Postgres and one RabbitMQ for all its tests, which find
//! them by `Postgres::shared` and `RabbitMq::shared`, and ends with the command's exit code.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for on the real clock")]

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use servers::{POSTGRES_URL_VARIABLE, Postgres, RABBITMQ_DIRECTORY_VARIABLE, RABBITMQ_URL_VARIABLE, RabbitMq};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// More than one run's tests ask for. When they are used up, each further one is made when it is asked for.
const VHOSTS_PREPARED: usize = 100;
/// How long the command may take to end when it is asked to. nextest gives its tests 10 s.
const COMMAND_END_LIMIT: Duration = Duration::from_secs(20);
/// The exit code after Ctrl-C or SIGTERM.
const STOPPED: u8 = 130;

// One thread, which ends with the process: the servers end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["run", "--", command, ref arguments @ ..] = arguments[..] else {
        complain("usage: servers run -- COMMAND ARGUMENTS…");
        return ExitCode::from(2);
    };
    run(command, arguments).await
}

async fn run(command: &str, arguments: &[&str]) -> ExitCode {
    let mut asked_to_stop = pin!(asked_to_stop());
    let (postgres, rabbitmq) = tokio::select! {
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
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::print_stderr, reason = "it is for who runs the command")]
fn complain(text: &str) {
    eprintln!("{text}");
}
