//! How each program ends: it is not ready any more but serves on, drains, and hands over its last traces; a second
//! signal ends it at once, whatever it is about. Without real servers: what a program answers does not matter here.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use servers::Port;
use service::telemetry::FLUSH_TIMEOUT_MS;
use system_tests::{Client, System, collector::Sink, eventually, gateway::local, raw, stack::Process};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

const PROGRAMS: [&str; 4] = ["standalone", "edge", "order-service", "inventory-service"];
/// What a program that has nothing to wait for needs to end, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Anything else that should come soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running one of them.
struct Program {
    process: Process,
    files: TempDir,
}

impl Program {
    /// One that serves, or has a command; on embedded stores or on servers that are not there; `settings` come on top.
    fn launch(name: &str, command: Option<&'static str>, settings: &[(&str, &str)]) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let mut process = Process::new(name.to_owned(), name, files.path().join("log"));
        let (addr, data) = (process.addr().to_string(), files.path().display().to_string());
        let (url, free) = ("http://127.0.0.1:1", "127.0.0.1:0");
        let own: &[(&str, &str)] = match name {
            "standalone" => {
                &[("HTTP_ADDR", &addr), ("ORDER_GRPC_ADDR", free), ("INVENTORY_GRPC_ADDR", free), ("DATA_DIR", &data)]
            }
            "edge" => &[("HTTP_ADDR", &addr), ("ORDER_URL", url), ("INVENTORY_URL", url)],
            "order-service" => {
                let stores = [("DB_URL", "postgres://nobody@127.0.0.1:1/x"), ("BROKER_URL", "amqp://127.0.0.1:1")];
                &[&[("ORDER_GRPC_ADDR", &*addr), ("INVENTORY_URL", url)], &stores[..]].concat()
            }
            _ => {
                let stores = [("REDIS_URL", "redis://127.0.0.1:1"), ("BROKER_URL", "amqp://127.0.0.1:1")];
                &[&[("INVENTORY_GRPC_ADDR", &*addr), ("ORDER_URL", url)], &stores[..]].concat()
            }
        };
        for (name, value) in own.iter().chain(settings) {
            process.set(name, value);
        }
        process.command = command;
        process.start();
        Self { process, files }
    }

    /// The same, once it serves.
    async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let program = Self::launch(name, None, settings);
        let serves = async || (program.process.health("/healthz").await == 200).then_some(());
        eventually(PATIENCE, "it serves", serves).await;
        program
    }

    fn serves_http(&self) -> bool {
        ["standalone", "edge"].contains(&&*self.process.name)
    }

    /// A request, and the name of its span.
    async fn ask(&self) -> &'static str {
        if self.serves_http() {
            assert_eq!(Client::new(self.process.addr()).get("/problems/INTERNAL").await.status, 200);
            return "GET /problems/{reason}";
        }
        let mut health = health(self.process.addr());
        health.check(HealthCheckRequest::default()).await.expect("answered");
        "grpc.health.v1.Health/Check"
    }

    /// A request whose body is missing, but whose head was taken: the server has asked to go on.
    async fn half_a_request(&self) -> TcpStream {
        let (path, content) = match &*self.process.name {
            "order-service" => ("/orders.v1.OrderService/CreateOrder", "application/grpc-web+proto"),
            "inventory-service" => ("/inventory.v1.InventoryService/Reserve", "application/grpc-web+proto"),
            _ => ("/orders", "application/json"),
        };
        let mut stream = raw::connect(self.process.addr()).await;
        let lines = format!("Content-Type: {content}\r\nContent-Length: 30\r\nExpect: 100-continue\r\n");
        raw::write(&mut stream, &raw::post(path, &lines, b"")).await;
        assert_eq!(raw::read(&mut stream).await.expect("an interim answer").status, 100);
        stream
    }

    /// Waits until it has logged this.
    async fn has_logged(&self, text: &str) {
        let logged = async || self.process.log_end().contains(text).then_some(());
        eventually(PATIENCE, &format!("{} logs: {text}", self.process.name), logged).await;
    }

    /// Sends a signal, after which it has to end so soon and with this exit code.
    async fn ends(mut self, signal: &str, limit: Duration, code: i32) -> String {
        let since = Instant::now();
        self.process.signal(signal);
        let status = self.process.wait().await;
        let (took, log) = (since.elapsed(), self.process.log_end());
        assert_eq!(status.code(), Some(code), "{}:\n{log}", self.process.name);
        assert!(took < limit, "{} ended after {took:?}:\n{log}", self.process.name);
        drop(self.files);
        log
    }
}

fn health(addr: SocketAddr) -> HealthClient<tonic::transport::Channel> {
    HealthClient::new(Endpoint::from_shared(format!("http://{addr}")).expect("a URL").connect_lazy())
}

/// All that is told of a service that serves now, to the end of the connection.
async fn watch(addr: SocketAddr) -> JoinHandle<Vec<ServingStatus>> {
    let question = HealthCheckRequest { service: "orders.v1.OrderService".to_owned() };
    let mut told = health(addr).watch(question).await.expect("open").into_inner();
    let first = told.message().await.expect("open").expect("one");
    assert_eq!(first.status(), ServingStatus::Serving);
    tokio::spawn(told.map(|told| told.map_or(ServingStatus::Unknown, |told| told.status())).collect())
}

/// Takes connections, and never says a word.
fn black_hole() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

#[tokio::test]
async fn readiness_falls_first_and_requests_are_served_on_for_the_delay() {
    const DELAY: Duration = Duration::from_secs(2);
    let services = System::start(&[]).await;
    let (order, inventory, port) = (services.url("order gRPC"), services.url("inventory gRPC"), Port::claim());
    let grpc = local(&port).to_string();
    for (name, settings) in [
        ("edge", [("ORDER_URL", &*order), ("INVENTORY_URL", &inventory), ("DRAIN_DELAY_SECONDS", "2")]),
        ("standalone", [("ORDER_GRPC_ADDR", &grpc), ("RUST_LOG", "info"), ("DRAIN_DELAY_SECONDS", "2")]),
    ] {
        let mut program = Program::start(name, &settings).await;
        program.process.until_ready().await;
        let http = Client::new(program.process.addr());
        let answer = http.get("/inventory/widget").await;
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, ""));
        let watch = if name == "standalone" { Some(watch(local(&port)).await) } else { None };

        let since = Instant::now();
        program.process.signal("TERM");
        let fell = async || (program.process.health("/readyz").await == 503).then_some(());
        eventually(DELAY, "readiness falls", fell).await;
        http.get("/readyz").await.problem(503, "UNAVAILABLE");
        let mut served = 0;
        while let Ok(answer) = http.try_send(http::Method::GET, "/inventory/widget", &[], "").await {
            assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
            served += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status = program.process.wait().await;
        let took = since.elapsed();
        assert!(status.success() && served > 10, "{name}: {status}, {served} served");
        assert!((DELAY..DELAY + AT_ONCE).contains(&took), "{name} ended after {took:?}");
        if let Some(watch) = watch {
            let told = watch.await.expect("no panic");
            assert_eq!(told, [ServingStatus::NotServing, ServingStatus::Unknown], "{name}");
        }
    }
}

#[tokio::test]
async fn a_second_signal_ends_every_program_at_once_in_every_stage() {
    let (_silent, collector) = black_hole();
    let collector = format!("http://{collector}");
    join_all(PROGRAMS.map(async |name| {
        let program = Program::start(name, &[("DRAIN_DELAY_SECONDS", "15")]).await;
        program.process.signal("TERM");
        program.has_logged("not ready any more").await;
        program.ends("TERM", AT_ONCE, 1).await;

        let program = Program::start(name, &[]).await;
        let _held = program.half_a_request().await;
        program.process.signal("INT");
        let refused = async || TcpStream::connect(program.process.addr()).await.is_err().then_some(());
        eventually(PATIENCE, "it no longer listens", refused).await;
        assert_eq!(program.process.health("/readyz").await, 503, "{name} still tells how it is");
        let log = program.ends("TERM", AT_ONCE, 1).await;
        assert!(log.contains("second signal") && !log.contains("drained"), "{log}");

        let program = Program::start(name, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)]).await;
        program.ask().await;
        program.process.signal("INT");
        program.has_logged("drained").await;
        program.ends("INT", AT_ONCE, 1).await;
    }))
    .await;
}

/// While it waits for a server, no second one is needed.
#[tokio::test]
async fn a_signal_before_it_is_ready_ends_a_program_at_once() {
    let (_silent, server) = black_hole();
    let (postgres, broker) = (format!("postgres://nobody@{server}/x"), format!("amqp://{server}"));
    // What was to be done once has not been done.
    for (name, command, setting, code) in [
        ("order-service", None, ("DB_URL", &postgres), 0),
        ("order-service", Some("migrate"), ("DB_URL", &postgres), 1),
        ("inventory-service", Some("replay-dead-letters"), ("BROKER_URL", &broker), 1),
    ] {
        let program = Program::launch(name, command, &[(setting.0, setting.1), ("DRAIN_DELAY_SECONDS", "0")]);
        program.has_logged("starts").await;
        program.ends("TERM", AT_ONCE, code).await;
    }
}

#[tokio::test]
async fn the_last_requests_are_traced() {
    join_all(PROGRAMS.map(async |name| {
        let (sink, url) = Sink::start().await;
        let program = Program::start(name, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
        program.ask().await;
        program.process.signal("TERM");
        program.has_logged("not ready any more").await;
        let span = program.ask().await;
        let mut program = program;
        assert!(program.process.wait().await.success());
        let spans = sink.spans();
        let count = spans.iter().filter(|found| found.name == span).count();
        assert_eq!(count, 2, "{name}: {:?}", spans.iter().map(|found| &found.name).collect::<Vec<_>>());
        assert!(program.process.log_end().ends_with("drained"), "{}", program.process.log_end());
    }))
    .await;
}

#[tokio::test]
async fn a_collector_that_is_dead_or_hangs_does_not_hold_up_the_end() {
    let (_silent, hangs) = black_hole();
    let dead = local(&Port::claim());
    for collector in [hangs, dead].map(|addr| format!("http://{addr}")) {
        join_all(PROGRAMS.map(async |name| {
            let program = Program::start(name, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)]).await;
            program.ask().await;
            let limit = Duration::from_millis(FLUSH_TIMEOUT_MS) + AT_ONCE;
            let log = program.ends("INT", limit, 0).await;
            // The second is what the exporter says of a collector that refuses.
            assert!(log.contains("the last spans were not exported") || log.contains("ExportError"), "{log}");
        }))
        .await;
    }
}
