//! NGINX as the gateway, with the repository's configuration, and edges as processes of their own behind it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
pub use servers::local;
use servers::{Nginx, Port, STOP_TIMEOUT, gateway_config};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    Client, System, eventually,
    system::{binary, signal},
};

/// An edge listens within this, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The gateway writes its log after the answer, and is not waited for longer than this.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// A running edge, which keeps its port while it is down. It is killed when dropped.
pub struct Edge {
    child: Child,
    port: Port,
    services: [(&'static str, String); 2],
}

impl Edge {
    /// Starts one that asks this system's services.
    pub async fn start(system: &System) -> Self {
        Self::start_between(system.url("order gRPC"), system.url("inventory gRPC")).await
    }

    /// Starts one that asks these services.
    pub async fn start_between(order_url: String, inventory_url: String) -> Self {
        let services = [("ORDER_URL", order_url), ("INVENTORY_URL", inventory_url)];
        let port = Port::claim();
        let child = spawn(&port, &services).await;
        Self { child, port, services }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        local(&self.port)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// SIGTERM, and waits until it has drained.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.expect("it ends in time");
        let status = ended.expect("a status");
        assert!(status.success(), "{status:?}");
    }

    /// Starts it again on its port, and waits until it listens.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.port, &self.services).await;
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(name, &self.child.id().expect("it runs").to_string());
    }
}

async fn spawn(port: &Port, services: &[(&'static str, String)]) -> Child {
    let mut command = Command::new(binary("edge"));
    command.env_clear().kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("HTTP_ADDR", local(port).to_string()).env("ADMIN_ADDR", "127.0.0.1:0").env("RUST_LOG", "error");
    command.envs(services.iter().map(|(name, value)| (name, value)));
    let child = command.spawn().expect("it runs");
    let listens = async || TcpStream::connect(local(port)).await.ok();
    eventually(START_LIMIT, "the edge listens", listens).await;
    child
}

/// A running NGINX in front of some edges. It ends when dropped.
pub struct Gateway {
    nginx: Nginx,
    /// HTTP client of it.
    pub http: Client,
}

impl Gateway {
    /// Starts one in front of these.
    pub async fn start(edges: &[SocketAddr]) -> Self {
        Self::start_changed(edges, |configuration| configuration).await
    }

    /// The same, with a change of its configuration.
    pub async fn start_changed(edges: &[SocketAddr], change: impl Fn(String) -> String) -> Self {
        service::open_files::raise_limit();
        let port = Port::claim();
        let addr = local(&port);
        let nginx = Nginx::start(port, &change(gateway_config(addr, edges))).await;
        Self { nginx, http: Client::new(addr) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.nginx.port()))
    }

    /// The lines of its access log, once there are so many. Each must be a JSON object.
    pub async fn access_log(&self, lines: usize) -> Vec<Value> {
        let path = self.nginx.file("access.log");
        let log = async || {
            let log = std::fs::read(&path).unwrap_or_default();
            // The last line may be under way.
            let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &log[..end]);
            let found: Vec<_> = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            (found.len() >= lines).then(|| found.into_iter().map(json_object).collect())
        };
        eventually(LOG_LIMIT, "the gateway's access log is written", log).await
    }
}

fn json_object(line: &[u8]) -> Value {
    let text = String::from_utf8_lossy(line);
    let value: Value = serde_json::from_slice(line).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
    assert!(value.is_object(), "{text}");
    value
}
