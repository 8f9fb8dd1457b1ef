//! Starting with bad settings: all of them are told at once, nothing is bound, nothing is written.

use std::net::TcpListener;

use system_tests::system::{binary, run_to_end};
use tempfile::TempDir;

#[tokio::test]
async fn every_bad_setting_is_listed_at_once() {
    let data = TempDir::new().expect("a temporary directory");
    let dir = data.path().join("new");
    let bad = [
        ("HTTP_ADDR", "8080"),
        ("ORDER_GRPC_ADDR", "localhost:1"),
        ("DEFAULT_STOCK", "-1"),
        ("RESERVATION_TTL_SECONDS", "0"),
        ("DRAIN_DELAY_SECONDS", "16"),
        ("LOG_FORMAT", "xml"),
        ("ORDER_URL", "ftp://x"),
        ("DB_URL", "mysql://user:hunter2@db/orders"),
        ("REDIS_URL", "http://user:hunter2@redis"),
        ("BROKER_URL", "http://user:hunter2@broker"),
        ("MIGRATE", "maybe"),
    ];
    let exit = run_to_end(&dir, &bad).await;
    assert_eq!(exit.status.code(), Some(78), "{}", exit.stderr);
    for (name, _) in bad {
        let lines = exit.stderr.lines().filter(|line| line.starts_with(&format!("{name}: "))).count();
        assert_eq!(lines, 1, "{name} in {}", exit.stderr);
    }
    assert!(!exit.stderr.contains("hunter2"), "a secret was printed");
    assert!(!dir.exists(), "nothing is written");
}

#[tokio::test]
async fn an_address_in_use_is_told_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let data = TempDir::new().expect("a temporary directory");
    let exit = run_to_end(data.path(), &[("INVENTORY_GRPC_ADDR", &addr)]).await;
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stderr.contains(&format!("INVENTORY_GRPC_ADDR {addr}")), "{}", exit.stderr);
}

#[tokio::test]
async fn a_data_directory_is_used_by_one_process_at_a_time() {
    let system = system_tests::System::start(&[]).await;
    let exit = run_to_end(system.data_dir(), &[]).await;
    assert_eq!(exit.status.code(), Some(1));
    assert!(exit.stderr.contains("in use by another process"), "{}", exit.stderr);
}

#[test]
fn every_binary_explains_itself_and_the_separate_services_say_what_they_lack() {
    let run = |name: &str, argument: Option<&str>| {
        let output = std::process::Command::new(binary(name)).env_clear().args(argument).output().expect("it runs");
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8"))
    };
    for name in ["standalone", "edge", "order-service", "inventory-service"] {
        assert_eq!(run(name, Some("--help")).0, Some(0), "{name}");
        assert!(run(name, Some("--version")).1.contains(env!("CARGO_PKG_VERSION")), "{name}");
        assert_eq!(run(name, Some("--nonsense")).0, Some(64), "{name}");
    }
    for (name, required) in [
        ("edge", ["ORDER_URL", "INVENTORY_URL"]),
        ("order-service", ["DB_URL", "BROKER_URL"]),
        ("inventory-service", ["REDIS_URL", "BROKER_URL"]),
    ] {
        let (code, text) = run(name, None);
        assert_eq!(code, Some(78), "{name}: {text}");
        for setting in required {
            assert!(text.contains(setting), "{name}: {text}");
        }
    }
}
