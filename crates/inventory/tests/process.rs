//! The service as a process of its own.

use std::process::Command;

fn run(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inventory-service"));
    let output = command.env_clear().envs(settings.iter().copied()).output().expect("it starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn what_is_missing_is_listed_at_once() {
    let (code, text) = run(&[("DEFAULT_STOCK", "-1")]);
    assert_eq!(code, Some(78));
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    assert_eq!(names, ["DEFAULT_STOCK", "ORDER_URL", "REDIS_URL", "BROKER_URL"], "{text}");
}

#[test]
fn a_server_set_badly_is_told_without_its_password() {
    let urls = [("REDIS_URL", "redis://:hunter2@"), ("BROKER_HOST", "a b"), ("ORDER_URL", "http://127.0.0.1:1")];
    let (code, text) = run(&urls);
    assert_eq!(code, Some(78));
    assert!(text.lines().count() == 2 && !text.contains("hunter2"), "{text}");
    assert!(text.contains("REDIS_URL: ") && text.contains("BROKER_HOST: "), "{text}");
}
