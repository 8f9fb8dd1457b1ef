//! The all-in-one as a process.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use servers::STOP_TIMEOUT;
pub use servers::{binary, metric, signal};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use crate::Client;

/// The process says that it is ready within this, on a machine that is busy with other tests.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A running all-in-one. It is killed when dropped.
pub struct System {
    child: Child,
    settings: Vec<(String, String)>,
    data: TempDir,
    addresses: HashMap<String, SocketAddr>,
    /// HTTP client of the edge.
    pub http: Client,
}

impl System {
    /// Starts one on free ports with an empty data directory; `settings` come on top.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        // A test's clients have as many connections as the system.
        service::open_files::raise_limit();
        let data = TempDir::new().expect("a temporary directory");
        let settings = owned(settings);
        let (child, addresses) = spawn(data.path(), &settings).await;
        let http = Client::new(addresses["HTTP"]);
        Self { child, settings, data, addresses, http }
    }

    /// `HTTP`, `order gRPC`, `inventory gRPC` or `admin`.
    pub fn addr(&self, port: &str) -> SocketAddr {
        self.addresses[port]
    }

    /// The same as a URL.
    pub fn url(&self, port: &str) -> String {
        format!("http://{}", self.addr(port))
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Starts it again on the same data, on new ports.
    pub async fn start_again(&mut self) {
        (self.child, self.addresses) = spawn(self.data.path(), &self.settings).await;
        self.http = Client::new(self.addresses["HTTP"]);
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        signal("TERM", &self.child.id().expect("it runs").to_string());
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.expect("it ends in time").expect("a status")
    }

    /// The sum of a metric over all label sets, 0 when there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(self.addr("admin"), name).await
    }

    /// A counter's sum over all label sets.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are small whole numbers")]
    pub async fn count(&self, name: &str) -> u64 {
        self.metric(name).await as u64
    }
}

/// What a process has in memory, in MiB: `VmRSS` now, `VmHWM` at most so far.
pub fn memory_mib(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).expect("Linux");
    value.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The all-in-one, ready to be spawned, on free ports.
pub fn command(data_dir: &Path, settings: &[(String, String)]) -> Command {
    let mut command = Command::new(binary("standalone"));
    command.env_clear().env("DATA_DIR", data_dir).kill_on_drop(true).stdin(Stdio::null());
    for name in ["HTTP_ADDR", "ORDER_GRPC_ADDR", "INVENTORY_GRPC_ADDR", "ADMIN_ADDR"] {
        command.env(name, "127.0.0.1:0");
    }
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs one that is expected to end by itself.
pub async fn run_to_end(data_dir: &Path, settings: &[(&str, &str)]) -> Exit {
    let settings = owned(settings);
    let mut child = command(data_dir, &settings).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("piped");
    let work = async {
        pipe.read_to_string(&mut stderr).await.expect("UTF-8");
        child.wait().await.expect("a status")
    };
    let status = tokio::time::timeout(STOP_TIMEOUT, work).await.expect("it ends in time");
    Exit { status, stderr }
}

async fn spawn(data_dir: &Path, settings: &[(String, String)]) -> (Child, HashMap<String, SocketAddr>) {
    let mut child = command(data_dir, settings).stdout(Stdio::piped()).spawn().expect("it runs");
    let stdout = child.stdout.take().expect("piped");
    let addresses = tokio::time::timeout(START_TIMEOUT, announced(BufReader::new(stdout)));
    let addresses = addresses.await.expect("it is ready in time");
    (child, addresses)
}

/// Reads what it listens on, until the line that gives a command to try.
async fn announced(mut stdout: BufReader<tokio::process::ChildStdout>) -> HashMap<String, SocketAddr> {
    let mut addresses = HashMap::new();
    let mut line = String::new();
    loop {
        line.clear();
        let bytes = stdout.read_line(&mut line).await.expect("UTF-8");
        assert!(bytes > 0, "it ended before it was ready");
        if line.trim_start().starts_with("curl ") {
            break;
        }
        for port in ["HTTP", "order gRPC", "inventory gRPC", "admin"] {
            if let Some(rest) = line.trim().strip_prefix(port) {
                let addr = rest.trim().trim_start_matches("http://").split('/').next().expect("an address");
                addresses.insert(port.to_owned(), addr.parse().expect("an address"));
            }
        }
    }
    // Whatever it prints later has somewhere to go.
    tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
    addresses
}
