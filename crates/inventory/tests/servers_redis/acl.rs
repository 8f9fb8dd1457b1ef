//! What Compose's Redis lets whom do: `redis/users.acl` and `redis/redis.conf`, on a real server.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use inventory::{
    settings::STOCK,
    stock::{
        ConfirmReply, LoadReply, StockReply, StockStore,
        conformance::{Stage, id},
        redis::{RedisStock, scripts::SCRIPTS, target::RedisTarget},
    },
};
use servers::Redis;
use service::settings::Settings;
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command};

use crate::fixture::{SingleFixture, env, until};

/// Holds what a URL, a shell and a rule could stumble over.
const PASSWORD: &str = "p@ss/w:%41 é";
/// Of [`PASSWORD`].
const PASSWORD_SHA256: &str = "00a9fae76565daa3d04b84ed910c83fd0ad6c75e4e4b279998b2a4b62f293076";
/// The tests' own user, who may do everything.
const OPERATOR_RULE: &str = "user operator on nopass ~* &* +@all\n";
const OPERATOR: &[&str] = &["--no-auth-warning", "--user", "operator", "--pass", "any"];
/// The service beside its scripts.
const COMMANDS_OF_ITS_OWN: [&str; 8] =
    ["eval", "evalsha", "script|load", "info", "time", "hget", "zrangebylex", "zrangebyscore"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../redis")
}

fn shipped(name: &str) -> String {
    let file = folder().join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The rules with the password's hash, in a folder where the server's user can read them.
fn users() -> TempDir {
    let rules = shipped("users.acl");
    assert_eq!(rules.matches("SHA256_OF_PASSWORD").count(), 1);
    let rules = rules.replace("SHA256_OF_PASSWORD", PASSWORD_SHA256);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users.acl");
    fs::write(&file, [&rules, OPERATOR_RULE].concat()).expect("written");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("opened");
    folder
}

/// A server of the shipped configuration, but for the places of a container.
async fn start(users: &TempDir) -> Redis {
    let file = users.path().join("users.acl").display().to_string();
    let conf = shipped("redis.conf");
    let mut flags = Vec::new();
    for line in conf.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(' ').expect("a name and a value") {
            ("bind" | "dir", _) => {}
            ("aclfile", _) => flags.extend(["--aclfile".to_owned(), file.clone()]),
            (name, value) => flags.extend([format!("--{name}"), value.trim_matches('"').to_owned()]),
        }
    }
    Redis::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Where it is, as an operator of the inventory service says it.
fn target(redis: &Redis, login: &[(&str, &str)]) -> RedisTarget {
    let port = redis.port().to_string();
    let place = [("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", port.as_str())];
    let mut settings = Settings::from_pairs([&place, login].concat());
    let target = settings.server_required(&STOCK, RedisTarget::parse);
    settings.finish_with(target).expect("good settings")
}

const LOGIN: [(&str, &str); 2] = [("REDIS_USER", "inventory-service"), ("REDIS_PASSWORD", PASSWORD)];

impl SingleFixture {
    /// As Compose runs it, with the store as the service's user.
    async fn start_restricted() -> Self {
        let users = users();
        let redis = start(&users).await;
        let store = RedisStock::new(target(&redis, &LOGIN), env());
        Self { redis, store, login: OPERATOR, files: Some(users) }
    }
}

mod as_the_service_s_user {
    use super::*;

    inventory::stock_conformance!(one_fixture_per_file: SingleFixture::start_restricted().await);
}

#[tokio::test]
async fn whatever_a_restart_keeps_is_not_open_and_is_lent_anew() {
    let fixture = SingleFixture::start_restricted().await;
    let stage = Stage::open(&fixture, 100, 0).await;
    let old = stage.held(id(1), 30).await;
    fixture.redis.kill().await;
    fixture.redis.start_again().await;
    until("the store answers", async || stage.store.probe(&stage.item).await.is_ok()).await;
    assert_eq!(stage.available().await, StockReply::NotOpen);
    assert_eq!(stage.confirm(id(1), &old).await, ConfirmReply::NotOpen);
    assert_eq!(stage.load(6, 100, 0).await, LoadReply::Loaded);
    assert_eq!(stage.held(id(1), 30).await, stage.stamp(6, 1));
}

#[tokio::test]
async fn started_as_compose_does_it_finds_everything_again() {
    let fixture = SingleFixture::start_restricted().await;
    let redis = &fixture.redis;
    // What Redis may lose of its last second is another matter.
    assert_eq!(fixture.hand().cli(&["CONFIG", "SET", "appendfsync", "always"]).await, "OK");
    let stage = Stage::open(&fixture, 10, 0).await;
    stage.held(id(1), 3).await;
    // Twice: the second finds what the first has prepared.
    redis.kill().await;
    for _ in 0..2 {
        let mut start = Command::new("sh");
        start.arg(folder().join("start")).arg("redis-server").arg(redis.directory().join("redis.conf"));
        let log = fs::File::create(fixture.files.as_ref().expect("it has rules").path().join("log")).expect("made");
        let mut server = start.stdout(log).kill_on_drop(true).spawn().expect("sh runs");
        let listens = async || {
            TcpStream::connect(("127.0.0.1", redis.port())).await.is_ok() && redis.cli(&["PING"]).await == "PONG"
        };
        until("it listens", listens).await;
        assert_eq!(redis.cli(&["GET", "widget"]).await, "7");
        let left = fixture.hand().cli(&["HGET", "{widget}:ledger", "held"]).await;
        assert_eq!(left, "3");
        server.kill().await.expect("it can be killed");
    }
}

/// What redis-cli prints for the command of a user.
async fn said(redis: &Redis, login: &[&str], command: &[&str]) -> String {
    redis.cli(&[login, command].concat()).await
}

async fn refused(redis: &Redis, login: &[&str], commands: &[&[&str]]) {
    for command in commands {
        let answer = said(redis, login, command).await;
        assert!(answer.contains("NOPERM") || answer.contains("no permissions"), "{command:?}: {answer}");
    }
}

#[tokio::test]
async fn everybody_may_look_and_nobody_may_touch() {
    let users = users();
    let redis = start(&users).await;
    let operator = async |command: &[&str]| said(&redis, OPERATOR, command).await;
    assert_eq!(operator(&["SET", "widget", "7"]).await, "OK");
    assert_eq!(said(&redis, &[], &["PING"]).await, "PONG");
    assert_eq!(said(&redis, &[], &["GET", "widget"]).await, "7");
    let no_rights: [&[&str]; 14] = [
        &["SET", "widget", "8"],
        &["DEL", "widget"],
        &["EVAL", "return 1", "0"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["HGETALL", "{widget}:ledger"],
        &["ACL", "LIST"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["DEBUG", "SLEEP", "0"],
        &["SHUTDOWN", "NOSAVE"],
        &["INFO"],
    ];
    refused(&redis, &[], &no_rights).await;

    let service: &[&str] = &["--no-auth-warning", "--user", "inventory-service", "--pass", PASSWORD];
    assert_eq!(said(&redis, service, &["GET", "widget"]).await, "7");
    let no_operator: [&[&str]; 17] = [
        &["FLUSHALL"],
        &["FLUSHDB"],
        &["DEL", "widget"],
        &["RENAME", "widget", "gadget"],
        &["CONFIG", "GET", "*"],
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
        &["SHUTDOWN", "NOSAVE"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["ACL", "LIST"],
        &["ACL", "SETUSER", "inventory-service", "+@all"],
        &["SCRIPT", "FLUSH"],
        &["DEBUG", "SLEEP", "0"],
        &["REPLICAOF", "127.0.0.1", "1"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["PUBLISH", "a", "b"],
        &["MODULE", "LIST"],
    ];
    refused(&redis, service, &no_operator).await;
    let in_a_script = said(&redis, service, &["EVAL", "return redis.call('FLUSHALL')", "0"]).await;
    // Redis 8 says it in other words.
    let words = ["can't run this command", "no permissions"];
    assert!(words.iter().any(|words| in_a_script.contains(words)), "{in_a_script}");
    assert_eq!(operator(&["GET", "widget"]).await, "7");
    assert_eq!(operator(&["CONFIG", "GET", "maxmemory-policy"]).await, "maxmemory-policy\nnoeviction");
}

#[tokio::test]
async fn only_the_right_password_is_let_in_and_a_password_alone_is_that_of_the_default_user() {
    let users = users();
    let redis = start(&users).await;
    let refused_as = async |login: &[(&str, &str)], word: &str| {
        let refused = RedisStock::new(target(&redis, login), env()).ping().await.expect_err(word).to_string();
        assert!(refused.contains(word) && !refused.contains(PASSWORD), "{refused}");
    };
    RedisStock::new(target(&redis, &LOGIN), env()).ping().await.expect("it is let in");
    refused_as(&[("REDIS_USER", "inventory-service"), ("REDIS_PASSWORD", "guessed")], "authentication failed").await;
    // Without a login it is the user who may only look.
    refused_as(&[], "no permissions").await;
    let done = said(&redis, OPERATOR, &["ACL", "SETUSER", "default", "resetpass", ">secret", "+@all"]).await;
    assert_eq!(done, "OK");
    refused_as(&[], "Authentication required").await;
    RedisStock::new(target(&redis, &[("REDIS_PASSWORD", "secret")]), env()).ping().await.expect("it is let in");
}

/// The commands that the rules of a user add to none.
fn granted(user: &str) -> BTreeSet<String> {
    let rules = shipped("users.acl");
    let rules = rules.lines().find_map(|line| line.strip_prefix(&format!("user {user} "))).expect("it has rules");
    let (before, commands) = rules.split_once(" -@all ").expect("at first it may do nothing");
    assert!(!before.contains(['+', '@']), "{rules}");
    commands.split(' ').map(|rule| rule.strip_prefix('+').expect("only what is added follows").to_owned()).collect()
}

#[test]
fn the_service_may_do_what_it_does_and_no_more() {
    let mut needed: BTreeSet<String> = COMMANDS_OF_ITS_OWN.map(str::to_owned).into();
    for script in SCRIPTS.all() {
        for call in ["redis.call('", "redis.pcall('", "read('"] {
            let called = script.text.split(call).skip(1).filter_map(|rest| rest.split('\'').next());
            needed.extend(called.map(str::to_lowercase));
        }
    }
    assert_eq!(granted("inventory-service"), needed, "its rules (left) and what it calls (right)");
    assert_eq!(granted("default"), ["get", "ping"].map(str::to_owned).into());
}
