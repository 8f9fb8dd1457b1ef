//! The command `healthcheck` of every binary.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use servers::Port;
use system_tests::{System, system::binary};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

/// Every binary, and where it is asked when nothing is set.
const BINARIES: [(&str, &str); 4] = [
    ("standalone", "127.0.0.1:9464"),
    ("edge", "127.0.0.1:9465"),
    ("order-service", "127.0.0.1:9466"),
    ("inventory-service", "127.0.0.1:9467"),
];
/// What is promised to whoever waits for the answer.
const LIMIT: Duration = Duration::from_secs(2);
/// What a busy machine adds to any time.
const SLACK: Duration = Duration::from_secs(1);

/// Exit code and what was said on stdout and stderr.
async fn ask(binary_name: &str, settings: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(binary(binary_name));
    command.arg("healthcheck").env_clear().envs(settings.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output =
        tokio::time::timeout(LIMIT + SLACK, command.output()).await.expect("it ends in time").expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// Asks, and gives the one line on stderr that says why it is not well.
async fn complaint(binary_name: &str, addr: &str) -> String {
    let (code, said, why) = ask(binary_name, &[("ADMIN_ADDR", addr)]).await;
    assert_eq!((code, said.as_str(), why.lines().count()), (1, "", 1), "{why}");
    why
}

/// A listener that writes this to whoever connects, and then holds the connection.
async fn stub(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let serve = async |mut stream: TcpStream| {
        // The request has no body, and comes whole.
        let _ = stream.read(&mut [0; 1024]).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.read(&mut [0; 1024]).await
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It may have got enough.
            drop(serve(stream).await);
        }
    });
    addr
}

#[tokio::test]
async fn a_ready_process_is_healthy_whatever_else_is_set() {
    let system = System::start(&[]).await;
    let admin = system.addr("admin");
    let everywhere = format!("0.0.0.0:{}", admin.port());
    for (name, _) in BINARIES {
        for addr in [&admin.to_string(), &everywhere] {
            let bad = [("LOG_FORMAT", "xml"), ("DB_URL", "nonsense"), ("BROKER_PASSWORD_FILE", "/none")];
            let settings = [&[("ADMIN_ADDR", addr.as_str())][..], &bad].concat();
            let (code, said, why) = ask(name, &settings).await;
            assert_eq!((code, why.as_str()), (0, ""), "{name}");
            assert!(said.starts_with(&format!("http://{admin}/readyz: 200 ")), "{said}");
        }
    }
}

#[tokio::test]
async fn each_asks_at_its_own_usual_address() {
    for (name, usual) in BINARIES {
        // Whether something listens there is not for this test to say.
        let (_, said, why) = ask(name, &[]).await;
        assert!([said, why].concat().starts_with(&format!("http://{usual}/readyz: ")), "{name}");
    }
}

#[tokio::test]
async fn a_process_that_is_not_there_is_not_healthy() {
    let port = Port::claim();
    for (name, _) in BINARIES {
        let why = complaint(name, &format!("127.0.0.1:{}", port.number())).await;
        assert!(why.contains(&format!("127.0.0.1:{}/readyz: ", port.number())) && why.contains("refused"), "{why}");
    }
}

/// An order service without its Postgres, and where its health is asked for.
async fn order_service(postgres: &Port) -> (Child, SocketAddr) {
    let mut command = Command::new(binary("order-service"));
    command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.envs([("BROKER_URL", "amqp://127.0.0.1:1"), ("INVENTORY_URL", "http://127.0.0.1:1")]);
    command.envs([("ORDER_GRPC_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0")]);
    command.env("DB_URL", format!("postgres://127.0.0.1:{}/orders", postgres.number()));
    let mut child = command.spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let listens = async {
        while let Some(line) = lines.next_line().await.expect("UTF-8") {
            if let Some((_, rest)) = line.split_once("admin=").filter(|_| line.contains("listens")) {
                return rest.split(' ').next().and_then(|addr| addr.parse().ok()).expect("an address");
            }
        }
        panic!("it ended before it listened");
    };
    let addr = tokio::time::timeout(Duration::from_secs(20), listens).await.expect("it listens in time");
    // Whatever it logs later has somewhere to go.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, addr)
}

#[tokio::test]
async fn a_process_that_is_not_ready_is_not_healthy_and_says_why() {
    let postgres = Port::claim();
    let (_child, admin) = order_service(&postgres).await;
    let why = complaint("order-service", &admin.to_string()).await;
    for part in [" 503 ", "unavailable", r#""ledger":"failing""#, "refused"] {
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[tokio::test]
async fn who_does_not_answer_whole_in_time_is_not_healthy() {
    let heads_only = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nrea";
    for answer in ["", "HTTP/1.1 200 OK\r\n", heads_only] {
        let addr = stub(answer).await;
        let asked = Instant::now();
        let why = complaint("edge", &addr.to_string()).await;
        assert!(why.contains("no answer within 2000 ms"), "{why}");
        assert!(asked.elapsed() >= LIMIT, "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn whatever_is_answered_is_shown_in_one_short_line() {
    let long = format!("HTTP/1.1 500 No\r\ncontent-length: 100000\r\n\r\n{}", "a\n\u{1b}[2J".repeat(20_000));
    let addr = stub(Box::leak(long.into_boxed_str())).await;
    let why = complaint("edge", &addr.to_string()).await;
    assert!(why.contains(" 500 a") && why.len() < 1_200 && !why.contains('\u{1b}'), "{why}");
    let addr = stub("SSH-2.0-OpenSSH\r\n").await;
    complaint("edge", &addr.to_string()).await;
    let why = complaint("edge", "localhost").await;
    assert!(why.starts_with("ADMIN_ADDR: "), "{why}");
}
