//! The clients in `examples/` do what they say, against a running system: users copy them.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use system_tests::{System, system::binary};
use tokio::process::Command;

/// A client is done within this, on a machine that is busy.
const CLIENT_TIMEOUT: Duration = Duration::from_mins(1);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Runs a program in the folder, with the pinned tools before all others.
async fn run(folder: &str, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let tools = root().join(".tools");
    assert!(tools.join("api/stamp").is_file(), "the tools of examples/ are missing: run `./justw api-tools`");
    let path = std::env::var("PATH").expect("a PATH");
    let path = ["api/bin", "bin"].map(|bin| tools.join(bin).display().to_string()).join(":") + ":" + &path;
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(root().join(folder)).env("PATH", path).kill_on_drop(true);
    let output = tokio::time::timeout(CLIENT_TIMEOUT, command.output()).await.expect("it ends in time");
    output.unwrap_or_else(|error| panic!("{} does not run: {error}", program.as_ref().display()))
}

/// Generates the code that the TypeScript client stands on.
async fn generate() {
    let generated = run("examples/typescript", "npm", &["run", "--silent", "generate"]).await;
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));
}

/// Runs every client against the system, one after the other: name and outcome.
async fn clients(system: &System) -> Vec<(&'static str, Output)> {
    let (edge, orders, inventory) = (system.url("HTTP"), system.url("order gRPC"), system.url("inventory gRPC"));
    let http = [edge.as_str()];
    let urls = [orders.as_str(), inventory.as_str()];
    let addresses = urls.map(|url| url.trim_start_matches("http://"));
    let npm = ["start", "--silent", "--", urls[0], urls[1]];
    vec![
        ("curl", run("examples/shell", "./curl.sh", &http).await),
        ("grpcurl", run("examples/shell", "./grpcurl.sh", &addresses).await),
        ("requests", run("examples/python", "./place_order_requests.py", &http).await),
        ("grpcio", run("examples/python", "./place_order_grpc.py", &addresses).await),
        ("connect-web", run("examples/typescript", "npm", &npm).await),
        ("tonic", run("examples/rust", binary("example"), &urls).await),
    ]
}

#[tokio::test]
async fn every_client_orders_repeats_reads_the_stock_and_shows_a_refusal() {
    generate().await;
    let system = System::start(&[]).await;
    for (sold, (name, output)) in (1..).zip(clients(&system).await) {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = stdout.lines().collect();
        let id = lines[0].strip_prefix("ordered ").unwrap_or_else(|| panic!("{name}: {stdout}"));
        let stock = format!("in stock: {}", 100 - sold);
        assert_eq!(lines[1..], ["repeated: the same order", &stock, "refused: INSUFFICIENT_STOCK"], "{name}");
        let order = system.http.get(&format!("/orders/{id}")).await;
        assert_eq!(order.status, 200, "{name}: {id}");
    }
}

#[tokio::test]
async fn a_client_whose_order_is_refused_fails() {
    generate().await;
    let system = System::start(&[("DEFAULT_STOCK", "0")]).await;
    for (name, output) in clients(&system).await {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && !stdout.contains("repeated"), "{name}: {stdout}");
    }
}

#[tokio::test]
async fn the_typescript_client_has_no_type_error() {
    generate().await;
    let checked = run("examples/typescript", "npm", &["run", "--silent", "check"]).await;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
