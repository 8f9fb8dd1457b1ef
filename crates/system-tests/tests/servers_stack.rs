//! `just stack up` and `just stack down`: the whole system in the background, on ports and in a directory of its own.
#![expect(clippy::print_stdout, reason = "a failed test shows what went before")]

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::Duration,
};

use servers::Port;
use system_tests::{
    Client, eventually,
    system::{binary, signal},
};
use tempfile::TempDir;

/// As many as the stack needs; NGINX has the first.
const PORTS: u16 = 18;
/// A service that was killed is back within this, on a machine that is busy with other tests.
const RESTART_LIMIT: Duration = Duration::from_secs(20);

/// A directory and ports for one stack, which is down when this is dropped.
struct Stack {
    directory: TempDir,
    ports: Vec<Port>,
    settings: &'static [(&'static str, &'static str)],
}

/// How a command ended and what it printed.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Stack {
    fn new(settings: &'static [(&'static str, &'static str)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        // The servers run as another user, who must be able to pass.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
        Self { directory, ports: Port::claim_row(PORTS), settings }
    }

    fn run(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new(binary("servers"));
        command.arg("stack").args(arguments).stdin(Stdio::null());
        command.env("STACK_DIR", self.directory.path()).env("STACK_PORTS_FROM", self.ports[0].number().to_string());
        let done = command.envs(self.settings.iter().copied()).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Done { code: done.status.code(), stdout: text(done.stdout), stderr: text(done.stderr) }
    }

    fn http(&self) -> Client {
        Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[0].number())))
    }

    /// Numbers and names of the processes that work in the directory; the dead ones that nobody waited for work nowhere.
    fn processes(&self) -> Vec<(String, String)> {
        let all = fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path());
        let here = |path: &std::path::PathBuf| {
            fs::read_link(path.join("cwd")).is_ok_and(|folder| folder.starts_with(self.directory.path()))
        };
        let named = all.filter(here).filter_map(|path| {
            let name = fs::read_to_string(path.join("comm")).ok()?;
            Some((path.file_name().and_then(OsStr::to_str)?.to_owned(), name.trim().to_owned()))
        });
        named.collect()
    }

    fn processes_of(&self, program: &str) -> Vec<String> {
        let all = self.processes().into_iter();
        all.filter(|(_, name)| name == program).map(|(number, _)| number).collect()
    }

    /// SIGKILL to the oldest of them, and waits for its end.
    async fn kill(&self, program: &str) {
        let all = self.processes_of(program);
        let oldest = all.iter().min_by_key(|number| number.parse::<u32>().expect("a number")).expect("it runs");
        signal("KILL", oldest);
        let ended = async || (!self.processes_of(program).contains(oldest)).then_some(());
        eventually(RESTART_LIMIT, "a killed process ends", ended).await;
    }

    /// How many are told in the log.
    fn deaths(&self) -> usize {
        let log = fs::read_to_string(self.directory.path().join("stack.log")).expect("the log");
        log.matches("it is started again").count()
    }

    /// The status of an order through the gateway, 0 when nobody answers.
    async fn order(&self) -> u16 {
        let headers = [("content-type", "application/json")];
        let body = r#"{"item":"gadget","quantity":1}"#;
        let answer = self.http().try_send(http::Method::POST, "/orders", &headers, body).await;
        // Shown when the test fails.
        println!("{answer:?}");
        answer.map_or(0, |answer| answer.status.as_u16())
    }

    #[track_caller]
    fn assert_nothing_runs(&self) {
        assert_eq!(self.processes(), []);
        for port in &self.ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("nobody listens");
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.directory.path().join("stack.log")).unwrap_or_default());
        }
        self.run(&["down"]);
    }
}

/// The printed command line that begins so.
fn printed<'a>(text: &'a str, program: &str) -> &'a str {
    let line = text.lines().map(str::trim).find(|line| line.starts_with(program));
    line.unwrap_or_else(|| panic!("no {program} in:\n{text}"))
}

/// Runs it, and gives what it printed itself.
fn run_printed(text: &str, program: &str) -> String {
    let done = sh(printed(text, program));
    assert!(done.status.success(), "{program}: {done:?}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

fn sh(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().expect("sh runs")
}

#[tokio::test]
async fn it_takes_orders_survives_a_kill_and_keeps_its_data() {
    let stack = Stack::new(&[("DEFAULT_STOCK", "1000000")]);
    let down = stack.run(&["down"]);
    assert_eq!((down.code, down.stdout.as_str()), (Some(0), "The stack is down already.\n"), "{down:?}");

    let up = stack.run(&["up"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let answer = run_printed(&up.stdout, "curl ");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let order: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let id = order["id"].as_str().expect("an id");
    assert!(run_printed(&up.stdout, "psql ").contains(id));
    let altered = up.stdout.replace("SELECT * FROM orders;", "CREATE TABLE mine ()");
    let refused = sh(printed(&altered, "psql "));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("permission denied"), "{refused:?}");
    assert_eq!(run_printed(&up.stdout, "redis-cli ").trim(), "999999");

    stack.kill("order-service").await;
    let orders = async || {
        let status = stack.order().await;
        // Nothing else is answered while a service is down.
        assert!([201, 503].contains(&status), "{status}");
        (status == 201 && stack.processes_of("order-service").len() == 2).then_some(())
    };
    eventually(RESTART_LIMIT, "the order service is started again", orders).await;
    for (server, deaths) in [("nginx", 2), ("redis-server", 3), ("postgres", 4)] {
        let before = stack.processes_of(server);
        stack.kill(server).await;
        let seen = async || (stack.deaths() == deaths).then_some(());
        eventually(RESTART_LIMIT, "its death is seen, once", seen).await;
        // Its children may answer for a moment more.
        let others = async || {
            let now = stack.processes_of(server);
            (!now.is_empty() && now.iter().all(|number| !before.contains(number))).then_some(())
        };
        eventually(RESTART_LIMIT, "others have taken their place", others).await;
        let orders = async || (stack.order().await == 201).then_some(());
        eventually(RESTART_LIMIT, "orders are taken again", orders).await;
    }

    let again = stack.run(&["up"]);
    assert_eq!((again.code, again.stdout), (Some(0), format!("The stack is up already.\n{}", up.stdout)));
    let down = stack.run(&["down"]);
    assert_eq!(down.code, Some(0), "{down:?}");
    stack.assert_nothing_runs();

    let up = stack.run(&["up"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let kept = stack.http().get(&format!("/orders/{id}")).await;
    assert_eq!((kept.status.as_u16(), kept.json()), (200, order));
    signal("KILL", &fs::read_to_string(stack.directory.path().join("lock")).expect("the supervisor's number"));
    let nothing_runs = async || stack.processes().is_empty().then_some(());
    eventually(RESTART_LIMIT, "all ends with the supervisor", nothing_runs).await;
}

#[test]
fn what_keeps_it_from_starting_is_told_and_nothing_stays() {
    let stack = Stack::new(&[("LOG_FORMAT", "pictures")]);
    let failed = stack.run(&["up"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(failed.stderr.contains("LOG_FORMAT"), "{failed:?}");
    stack.assert_nothing_runs();

    let number = stack.ports[14].number();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).expect("it is claimed");
    let taken = stack.run(&["up"]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stderr.contains(&format!("127.0.0.1:{number}, for Redis")), "{taken:?}");
    assert_eq!(stack.processes(), []);
    drop(listener);

    fs::set_permissions(stack.directory.path(), Permissions::from_mode(0o600)).expect("it is ours");
    let closed = stack.run(&["up"]);
    assert_eq!(closed.code, Some(1), "{closed:?}");
    assert!(closed.stderr.contains("set STACK_DIR"), "{closed:?}");

    for misused in [&["sideways"][..], &[], &["up", "down"]] {
        let refused = stack.run(misused);
        assert_eq!(refused.code, Some(64), "{refused:?}");
        assert!(refused.stderr.contains("usage: servers stack up"), "{refused:?}");
    }
    fs::set_permissions(stack.directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
}
