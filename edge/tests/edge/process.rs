//! The binary.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
};

use contracts::Reason;

use crate::support::client::send;

fn edge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command.env_clear();
    command
}

/// Leaves nothing behind when a test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_and_version_are_told() {
    let (code, out, _) = text(&edge().arg("--help").output().expect("it runs"));
    assert_eq!(code, Some(0));
    for setting in ["ORDER_URL", "INVENTORY_URL", "HTTP_ADDR", "127.0.0.1:8080", "ADMIN_ADDR", "127.0.0.1:9465"] {
        assert!(out.contains(setting), "{out}");
    }
    let (code, out, _) = text(&edge().arg("--version").output().expect("it runs"));
    assert_eq!((code, &*out), (Some(0), &*format!("edge {}\n", env!("CARGO_PKG_VERSION"))));
    assert_eq!(text(&edge().arg("--nonsense").output().expect("it runs")).0, Some(64));
}

#[test]
fn every_bad_setting_is_told_at_once() {
    let (code, _, err) = text(&edge().output().expect("it runs"));
    assert_eq!(code, Some(78));
    assert!(err.contains("ORDER_URL") && err.contains("INVENTORY_URL"), "{err}");
    let mut command = edge();
    command.envs([("ORDER_URL", "nonsense"), ("HTTP_ADDR", "localhost"), ("LOG_FORMAT", "xml")]);
    let (code, _, err) = text(&command.output().expect("it runs"));
    assert_eq!(code, Some(78));
    for name in ["ORDER_URL", "INVENTORY_URL", "HTTP_ADDR", "LOG_FORMAT"] {
        assert_eq!(err.matches(name).count(), 1, "{name}: {err}");
    }
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_end() {
    let mut command = edge();
    let peer = "http://127.0.0.1:1";
    let listen = "127.0.0.1:0";
    command.envs([("ORDER_URL", peer), ("INVENTORY_URL", peer), ("HTTP_ADDR", listen), ("ADMIN_ADDR", listen)]);
    let mut process = Killed(command.stderr(Stdio::piped()).spawn().expect("it runs"));
    let mut lines = BufReader::new(process.0.stderr.take().expect("piped")).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("edge listens"))).expect("it listens");
    let addr = |name: &str| -> SocketAddr {
        let (_, rest) = line.split_once(&format!("{name}=")).expect(name);
        rest.split(' ').next().and_then(|text| text.parse().ok()).expect(name)
    };

    let get =
        async |addr, path: &str| send(addr, format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes()).await;
    assert_eq!(get(addr("http"), "/healthz").await.status, 200);
    get(addr("http"), "/readyz").await.problem(Reason::Unavailable);
    assert_eq!(get(addr("admin"), "/readyz").await.status, 503);
    let metrics = String::from_utf8(get(addr("admin"), "/metrics").await.body).expect("text");
    assert!(metrics.contains("http_server_request_duration_seconds_count"), "{metrics}");

    let told = Command::new("sh").args(["-c", &format!("kill {}", process.0.id())]).status().expect("sh runs");
    assert!(told.success());
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert_eq!(process.0.wait().expect("it ends").code(), Some(0), "{rest:#?}");
}
