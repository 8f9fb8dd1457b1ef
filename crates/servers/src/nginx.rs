use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::port::Port;
use crate::programs::{Directory, find};
use crate::server::{End, Plan, Server};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// An NGINX, run in the foreground on a configuration of the caller's.
#[derive(Debug)]
pub struct Nginx {
    server: Server,
    port: Port,
}

impl Nginx {
    /// Starts NGINX on the configuration's text, which listens at 127.0.0.1 and the port, and waits until that answers.
    ///
    /// Relative paths in it mean files in a temporary directory: `access_log access.log;`. It must set the
    /// `*_temp_path`s so, since their defaults belong to another user; `daemon`, `pid` and `error_log` are set already.
    pub async fn start(port: Port, configuration: &str) -> Self {
        Self::start_in(Directory::make("nginx"), port, configuration).await
    }

    pub(crate) async fn start_in(directory: Directory, port: Port, configuration: &str) -> Self {
        let file = directory.write("nginx.conf", configuration);
        let prefix = format!("{}/", directory.path().display());
        let arguments = ["-p", &prefix, "-c", &file.display().to_string(), "-e", "error.log"].map(str::to_owned);
        let own = ["-g".to_owned(), format!("daemon off; pid {prefix}nginx.pid;")];
        let plan = Plan {
            name: "NGINX",
            // Another version than the installed one: the configuration has to do with several.
            program: std::env::var_os("NGINX_BIN").map_or_else(|| find("nginx", "nginx"), PathBuf::from),
            arguments: arguments.into_iter().chain(own).collect(),
            environment: Vec::new(),
            end: End::Terminate,
            ready_limit: READY_LIMIT,
        };
        let nginx = Self { server: Server::new(plan, directory), port };
        nginx.start_again().await;
        nginx
    }

    /// The port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port, for the next NGINX in its place.
    pub async fn stop(self) -> Port {
        self.server.end(Signal::TERM).await;
        self.port
    }

    /// Ends it once the requests under way are answered.
    pub(crate) async fn drain(&self) {
        self.server.end(Signal::QUIT).await;
    }

    /// Kills the master and the workers, as a crash would.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Starts the killed NGINX again, with its port and configuration.
    pub async fn start_again(&self) {
        self.server.start(|| self.answers()).await;
    }

    /// Starts it again whenever it has ended by itself. Does not return.
    pub(crate) async fn keep(&self) {
        self.server.keep(|| self.answers()).await;
    }

    async fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port())).await.is_ok()
    }

    /// Replaces the configuration and has it read. Returns at once: new workers take over when they are up.
    pub fn reload(&self, configuration: &str) {
        self.server.directory().write("nginx.conf", configuration);
        self.server.signal_first(Signal::HUP);
    }

    /// Stops all its processes where they are: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets the paused processes go on.
    pub fn resume(&self) {
        self.server.resume();
    }

    /// A file that the configuration names by a relative path: `file("access.log")`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.server.directory().join(name)
    }
}
