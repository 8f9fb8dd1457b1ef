use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::port::Port;
use crate::programs::{Directory, find, output, unprivileged};
use crate::server::{End, Plan, Server};

const PACKAGE: &str = "prometheus";
const FILE: &str = "prometheus.yml";
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A Prometheus on a configuration of the caller's. It keeps what it scraped for as long as this value lives.
#[derive(Debug)]
pub struct Prometheus {
    _server: Server,
    port: Port,
}

impl Prometheus {
    /// Starts it on the configuration's text, listening at 127.0.0.1 and the port, and waits until it answers queries.
    pub async fn start(port: Port, configuration: &str) -> Self {
        let directory = Directory::make("prometheus");
        let file = directory.write(FILE, configuration);
        let plan = Plan {
            name: "Prometheus",
            program: find("prometheus", PACKAGE),
            arguments: vec![
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                format!("--web.listen-address=127.0.0.1:{}", port.number()),
            ],
            environment: Vec::new(),
            end: End::Kill,
            ready_limit: READY_LIMIT,
        };
        let server = Server::new(plan, directory);
        server.start(|| is_ready(port.number())).await;
        Self { _server: server, port }
    }

    /// The port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What `promtool` says about the configuration's text, which it must find nothing to complain about.
    pub async fn check(configuration: &str) -> String {
        let directory = Directory::make("promtool");
        let file = directory.write(FILE, configuration);
        let mut promtool = unprivileged(&find("promtool", PACKAGE), directory.path(), "KILL");
        promtool.args(["check", "config", "--lint=all", "--lint-fatal"]).arg(file);
        output(promtool).await
    }
}

async fn is_ready(port: u16) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    matches!(ask.await, Ok(answer) if answer.ends_with(b" 200"))
}
