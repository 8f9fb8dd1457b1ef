use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Port;
use crate::http::{get, metric};

/// A service is ready within this, once what it depends on is there, on a machine that is busy with other tests.
pub const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// It drains within this.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How much of a log's end a failed test shows.
const LOG_LINES_SHOWN: usize = 200;

/// One service of ours as a process, at addresses that stay. It ends with this value, and with the thread that started it.
pub struct Process {
    /// Such as `order-service-1`.
    pub name: String,
    binary: PathBuf,
    /// What it is to do instead of serving.
    pub command: Option<&'static str>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    log: PathBuf,
    /// Of what it serves, and for operators.
    ports: [Port; 2],
}

impl Process {
    /// Of this binary, built with this one, at free ports. Does not start it.
    pub fn new(name: String, binary_name: &str, log: PathBuf) -> Self {
        let ports = [Port::claim(), Port::claim()];
        let environment = vec![("ADMIN_ADDR".to_owned(), local(&ports[1]).to_string())];
        Self { name, binary: binary(binary_name), command: None, environment, child: None, log, ports }
    }

    /// Where it serves.
    pub fn addr(&self) -> SocketAddr {
        local(&self.ports[0])
    }

    /// Where it tells how it is.
    pub fn admin(&self) -> SocketAddr {
        local(&self.ports[1])
    }

    /// Another setting, from the next start on; the last one of a name counts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, without waiting for anything.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be written");
        // setpriv becomes the service: the process id stays.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.binary).args(self.command).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().expect("setpriv, of util-linux, runs"));
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        child.kill().await.expect("it can be killed");
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id);
        signal(name, &id.unwrap_or_else(|| panic!("{} does not run", self.name)).to_string());
    }

    /// SIGSTOP: its connections stay, and nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Goes on where it was frozen.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        let ended = timeout(STOP_TIMEOUT, child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).expect("a status")
    }

    /// SIGTERM, and waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    /// Fails when it has ended by itself.
    pub fn assert_runs(&mut self) {
        let child = self.child.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name));
        let ended = child.try_wait().expect("a status");
        assert!(ended.is_none(), "{} has ended by itself: {ended:?}", self.name);
    }

    /// The status of `/healthz` or `/readyz` at its admin address, 0 when nothing answers.
    pub async fn health(&self, path: &str) -> u16 {
        get(self.admin(), path).await.map_or(0, |(status, _)| status)
    }

    /// Waits until its `/readyz` is 200.
    pub async fn until_ready(&mut self) {
        let what = format!("{} is ready", self.name);
        let ready = async || {
            self.assert_runs();
            (self.health("/readyz").await == 200).then_some(())
        };
        eventually(READY_TIMEOUT, &what, ready).await;
    }

    /// The sum of a metric over all label sets, 0 when there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(self.admin(), name).await
    }

    /// Whether it was started and has not ended since.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The end of what it logged.
    pub fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// The binary of that name that was built with this one.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this binary has a path");
    let folders = own.ancestors().skip(1).take(2);
    // A test's own binary is one folder deeper.
    let found = folders.map(|folder| folder.join(name)).find(|binary| binary.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing beside {}: build the workspace", own.display()))
}

/// Sends a signal to a process, or with a minus before the id to its group. The shell's own kill: small systems have no
/// other.
pub fn signal(name: &str, id: &str) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status();
    assert!(sent.expect("sh runs").success(), "SIG{name} to {id}");
}

/// Asks again and again until `probe` answers, and fails loudly when it does not within `limit`.
pub async fn eventually<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(POLL).await;
    }
}

/// The port of 127.0.0.1.
pub fn local(port: &Port) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()))
}
