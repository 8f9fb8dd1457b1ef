use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::port::Port;
use crate::programs::{Directory, find, output, unprivileged};
use crate::server::{End, Plan, Server};

pub(crate) const PACKAGE: &str = "redis-server";
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(30);
const FLAGS_FOR_TESTS: [&str; 8] = [
    "--appendonly",
    "no",
    "--enable-debug-command",
    "local",
    "--repl-diskless-sync-delay",
    "0",
    "--repl-ping-replica-period",
    "1",
];

/// A Redis that keeps nothing over a restart, unless it is started with `--appendonly yes`: what it answered then
/// survives its death.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: Port,
    // The cluster bus has a port of its own.
    bus: Option<Port>,
}

impl Redis {
    /// Starts a server of the caller's own.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more settings: `["--maxmemory", "4mb"]`. They go to its configuration file, which survives
    /// a restart together with what `CONFIG REWRITE` and Sentinel change in it.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_as(flags, None).await
    }

    /// Starts a replica of this server, and waits until it holds what this one holds.
    pub async fn replica(&self) -> Self {
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &self.port().to_string()]).await;
        replica.wait_for("the link to its master", &["INFO", "replication"], &["master_link_status:up"]).await;
        replica
    }

    pub(crate) async fn start_cluster_node() -> Self {
        let bus = Port::claim();
        let number = bus.number().to_string();
        // The time-out is short for a failover, and long enough for a busy machine.
        let flags = ["--cluster-enabled", "yes", "--cluster-port", &number, "--cluster-node-timeout", "2000"];
        Self::start_as(&flags, Some(bus)).await
    }

    async fn start_as(flags: &[&str], bus: Option<Port>) -> Self {
        let flags = [&FLAGS_FOR_TESTS[..], flags].concat();
        Self::start_in(Directory::make("redis"), Port::claim(), bus, &flags).await
    }

    /// Starts one on the data in the directory, if `--appendonly yes` is among the settings.
    pub(crate) async fn start_in(directory: Directory, port: Port, bus: Option<Port>, flags: &[&str]) -> Self {
        let path = directory.path().display();
        let mut settings = format!("port {}\nbind 127.0.0.1\ndir {path}\nsave \"\"\n", port.number());
        for flag in flags {
            match flag.strip_prefix("--") {
                Some(name) => write!(settings, "\n{name}"),
                None => write!(settings, " \"{flag}\""),
            }
            .expect("a string takes all");
        }
        settings.push('\n');
        let server = start_process("Redis", &settings, &[], directory, &port).await;
        Self { server, port, bus }
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The port at 127.0.0.1, the same after each start.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn bus_port(&self) -> Option<u16> {
        self.bus.as_ref().map(Port::number)
    }

    /// Ends the server, with everything written.
    pub(crate) async fn stop(&self) {
        self.server.end(Signal::TERM).await;
    }

    /// Kills the server, as a crash would.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Starts the killed server again with its port, and waits until it has loaded what it kept.
    pub async fn start_again(&self) {
        self.server.start(|| answers(self.port())).await;
    }

    /// Starts it again whenever it has ended by itself. Does not return.
    pub(crate) async fn keep(&self) {
        self.server.keep(|| answers(self.port())).await;
    }

    /// Stops the process where it is: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets the paused process go on.
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Where its configuration, its data and its log are.
    pub fn directory(&self) -> &Path {
        self.server.directory().path()
    }

    /// What `redis-cli` prints for the command, also when that is an error.
    pub async fn cli(&self, command: &[&str]) -> String {
        cli(self.port(), command).await
    }

    /// Asks until the answer holds all the texts.
    pub(crate) async fn wait_for(&self, what: &str, command: &[&str], texts: &[&str]) {
        wait_for(self.port(), what, command, texts).await;
    }
}

/// Starts redis-server on the settings, as their owner, since it rewrites them itself.
pub(crate) async fn start_process(
    name: &'static str,
    settings: &str,
    more: &[&str],
    directory: Directory,
    port: &Port,
) -> Server {
    let file = directory.write("redis.conf", settings).display().to_string();
    let plan = Plan {
        name,
        program: find("redis-server", PACKAGE),
        arguments: [file.as_str()].iter().chain(more).map(ToString::to_string).collect(),
        environment: Vec::new(),
        end: End::Kill,
        ready_limit: READY_LIMIT,
    };
    let server = Server::new(plan, directory);
    server.start(|| answers(port.number())).await;
    server
}

/// Whether a Redis serves commands at the port: while it loads its data, it does not.
async fn answers(port: u16) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    matches!(ask.await, Ok(answer) if &answer == b"+PONG" || &answer == b"-NOAU")
}

pub(crate) async fn cli(port: u16, command: &[&str]) -> String {
    let mut cli = unprivileged(&find("redis-cli", "redis-tools"), &std::env::temp_dir(), "KILL");
    cli.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(command);
    output(cli).await
}

pub(crate) async fn wait_for(port: u16, what: &str, command: &[&str], texts: &[&str]) {
    let deadline = tokio::time::Instant::now() + READY_LIMIT;
    loop {
        let answer = cli(port, command).await;
        if texts.iter().all(|text| answer.contains(text)) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "Redis at {port} waits for {what}:\n{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
