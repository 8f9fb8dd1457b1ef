//! The order service and a Postgres that asks for passwords: a wrong one is told plainly and at once.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    fs,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use servers::Postgres;
use system_tests::{Client, eventually, system::binary};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Whatever needs no waiting is done within this, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Longer than `migrate` waits for a Postgres that does not answer.
const MIGRATE_MAX: Duration = Duration::from_mins(1);
/// Time for a service that lacks its database to try again several times.
const SEVERAL_TRIES: Duration = Duration::from_secs(4);
const REFUSED: &str = "Postgres refuses the password of user \"shop\": if POSTGRES_PASSWORD was changed after the \
                       database was made, change it there too (ALTER ROLE \"shop\" PASSWORD '...') or put the old one \
                       back";

/// A server with a database of `shop`, whose password is `right`, and a user who is never let in.
async fn server() -> Postgres {
    let server = Postgres::start().await;
    for statement in [
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE shop LOGIN CREATEROLE PASSWORD 'right'",
        "CREATE ROLE stranger LOGIN",
        "CREATE DATABASE shop OWNER shop",
    ] {
        server.sql("postgres", statement).await;
    }
    let rules = "host all postgres all trust\nhost all stranger all reject\nhost all all all scram-sha-256\n";
    fs::write(server.data_dir().join("pg_hba.conf"), rules).expect("written");
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    server
}

fn order_service(server: &Postgres, login: [&str; 2], command: Option<&str>) -> Command {
    let mut process = Command::new(binary("order-service"));
    process.args(command).env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let port = server.port().to_string();
    process.envs([("POSTGRES_HOST", "127.0.0.1"), ("POSTGRES_PORT", &port), ("POSTGRES_DB", "shop")]);
    process.envs([("POSTGRES_USER", login[0]), ("POSTGRES_PASSWORD", login[1]), ("MIGRATE", "false")]);
    process.envs([("BROKER_URL", "amqp://127.0.0.1:1"), ("INVENTORY_URL", "http://127.0.0.1:1")]);
    process.envs([("ORDER_GRPC_ADDR", "127.0.0.1:0"), ("ADMIN_ADDR", "127.0.0.1:0")]);
    process
}

/// Exit code and what was logged.
async fn migrate(server: &Postgres, login: [&str; 2], limit: Duration) -> (i32, String) {
    let output = order_service(server, login, Some("migrate")).output();
    let output = tokio::time::timeout(limit, output).await.expect("it ends in time").expect("it runs");
    (output.status.code().expect("no signal"), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[tokio::test]
async fn migrate_says_at_once_that_a_password_is_refused_and_what_to_do() {
    let server = server().await;
    let (code, log) = migrate(&server, ["shop", "hunter2"], AT_ONCE).await;
    assert!(code == 1 && log.lines().count() == 2 && log.contains("starts") && log.contains(REFUSED), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    let (code, log) = migrate(&server, ["stranger", "any"], AT_ONCE).await;
    assert!(code == 1 && log.contains("Postgres refuses user \"stranger\": ") && log.contains("pg_hba.conf"), "{log}");
    assert!(log.contains("POSTGRES_USER"), "{log}");
    let (code, log) = migrate(&server, ["shop", "right"], MIGRATE_MAX).await;
    assert_eq!(code, 0, "{log}");
    // As after a change of `.env` alone, and then in the database too.
    assert_eq!(migrate(&server, ["shop", "newer"], AT_ONCE).await.0, 1);
    server.sql("postgres", "ALTER ROLE shop PASSWORD 'newer'").await;
    let (code, log) = migrate(&server, ["shop", "newer"], AT_ONCE).await;
    assert_eq!(code, 0, "{log}");
}

#[tokio::test]
async fn migrate_waits_for_a_postgres_that_does_not_answer_yet() {
    let server = server().await;
    server.kill().await;
    let migrating = migrate(&server, ["shop", "right"], MIGRATE_MAX);
    let later = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.start_again().await;
    };
    let ((code, log), ()) = tokio::join!(migrating, later);
    assert!(code == 0 && log.contains("migrating the ledger's schema is interrupted"), "{log}");
    assert!(log.lines().count() <= 4, "it logs the change, not every try: {log}");
}

/// A service that runs, and what it has logged.
struct Running {
    _child: Child,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Running {
    async fn start(mut process: Command) -> Self {
        let mut child = process.spawn().expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().expect("whole").push(line);
            }
        });
        let listens = async || {
            let log = log.lock().expect("whole");
            let line = log.iter().find(|line| line.contains("order-service listens"))?;
            line.split_once("admin=")?.1.split(' ').next()?.parse().ok()
        };
        let admin = eventually(Duration::from_secs(20), "it listens", listens).await;
        Self { _child: child, admin, log }
    }

    /// How often this was logged.
    fn logged(&self, text: &str) -> usize {
        // Quotes inside quotes are escaped there.
        let log = self.log.lock().expect("whole");
        log.iter().filter(|line| line.replace('\\', "").contains(text)).count()
    }
}

#[tokio::test]
async fn a_service_whose_password_is_refused_names_that_as_the_cause_and_goes_on_trying() {
    let server = server().await;
    assert_eq!(migrate(&server, ["shop", "right"], MIGRATE_MAX).await.0, 0);
    let service = Running::start(order_service(&server, ["shop", "newer"], None)).await;
    let http = Client::new(service.admin);
    let named = async || {
        let answer = http.get("/readyz").await;
        assert_eq!(answer.status, 503);
        (answer.json()["causes"]["ledger"] == format!("ledger: {REFUSED}")).then_some(())
    };
    eventually(AT_ONCE, "the cause is told", named).await;
    eventually(AT_ONCE, "the cause is logged", async || (service.logged(REFUSED) > 0).then_some(())).await;
    tokio::time::sleep(SEVERAL_TRIES).await;
    // By the health of the ledger, by who prepares it, and by who would publish its events.
    let logged = service.logged(REFUSED);
    assert!((1..=3).contains(&logged), "once each: {:?}", service.log);

    let changed = Instant::now();
    server.sql("postgres", "ALTER ROLE shop PASSWORD 'newer'").await;
    let ready = async || (http.get("/readyz").await.status == 200).then_some(());
    eventually(Duration::from_secs(10), "it is ready", ready).await;
    assert!(changed.elapsed() < AT_ONCE, "{:?}", changed.elapsed());
    assert_eq!(service.logged(REFUSED), logged);

    // While it runs: those who are connected stay, and whoever connects anew is refused.
    server.sql("postgres", "ALTER ROLE shop PASSWORD 'newest'").await;
    let dropped = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'";
    server.sql("postgres", dropped).await;
    let down = format!("ledger: down: {REFUSED}");
    let named = async || (http.get("/readyz").await.json()["causes"]["ledger"] == down).then_some(());
    eventually(AT_ONCE, "the cause is told", named).await;
    server.sql("postgres", "ALTER ROLE shop PASSWORD 'newer'").await;
    eventually(Duration::from_secs(10), "it is ready", ready).await;
}
