//! What becomes of a server's ids: the same on real servers and on the simulated ones.

use std::{sync::Arc, time::Duration};

use deadpool_redis::redis::{Value, from_redis_value};
use simulation::redis::Redis;
use tokio::time::{Instant, sleep};

/// How long a replica may take to have what its master has.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether it is a master, its `master_replid` and its `run_id`.
type Life = (bool, String, String);

/// Which of the two ids an event changed.
#[derive(Debug, PartialEq, Eq)]
struct Changed {
    event: &'static str,
    replid: bool,
    run_id: bool,
}

fn changed(event: &'static str, before: &Life, after: &Life) -> Changed {
    assert!(before.0 && after.0, "{event}: a master before and after");
    Changed { event, replid: before.1 != after.1, run_id: before.2 != after.2 }
}

fn life(replication: &str, server: &str) -> Life {
    let fact = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.trim_end().strip_prefix(name));
        line.expect("INFO says so").to_owned()
    };
    (fact(replication, "role:") == "master", fact(replication, "master_replid:"), fact(server, "run_id:"))
}

async fn real(server: &servers::Redis) -> Life {
    life(&server.cli(&["INFO", "replication"]).await, &server.cli(&["INFO", "server"]).await)
}

fn simulated(redis: &Redis, server: usize) -> Life {
    let info = |section| from_redis_value::<String>(redis.command(server, &["INFO", section])).expect("a text");
    life(&info("replication"), &info("server"))
}

async fn follow(follower: &servers::Redis, master: &servers::Redis) {
    follower.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let deadline = Instant::now() + SYNC_TIMEOUT;
    while !follower.cli(&["INFO", "replication"]).await.contains("master_link_status:up") {
        assert!(Instant::now() < deadline, "it does not follow");
        sleep(Duration::from_millis(20)).await;
    }
}

const SCRIPT: &str = "return 7";

async fn on_real_servers() -> Vec<Changed> {
    let mut events = Vec::new();
    let first = servers::Redis::start_with(&["--appendonly", "yes"]).await;
    first.cli(&["SET", "widget", "1"]).await;
    let before = real(&first).await;
    first.cli(&["FLUSHALL"]).await;
    events.push(changed("wiped", &before, &real(&first).await));

    first.cli(&["SET", "widget", "2"]).await;
    first.kill().await;
    first.start_again().await;
    assert_eq!(first.cli(&["GET", "widget"]).await.trim(), "2", "the data is there still");
    let again = real(&first).await;
    events.push(changed("restarted", &before, &again));

    let script = first.cli(&["SCRIPT", "LOAD", SCRIPT]).await;
    let second = first.replica().await;
    let refused = second.cli(&["SET", "widget", "3"]).await;
    let refused_script = second.cli(&["EVAL", "#!lua\nreturn 1", "0"]).await;
    assert!(refused.starts_with("READONLY") && refused_script.starts_with("READONLY"), "{refused} {refused_script}");
    second.cli(&["REPLICAOF", "NO", "ONE"]).await;
    let over = real(&second).await;
    events.push(changed("failed over", &real(&first).await, &over));

    follow(&first, &second).await;
    first.cli(&["REPLICAOF", "NO", "ONE"]).await;
    let back = real(&first).await;
    events.push(changed("failed back", &over, &back));
    events.push(changed("failed over and back", &again, &back));
    assert_eq!(first.cli(&["SCRIPT", "EXISTS", script.trim()]).await.trim(), "1", "its scripts are there still");
    events
}

fn on_simulated_servers() -> Vec<Changed> {
    let mut events = Vec::new();
    let redis = Redis::new(1, Arc::new(|| 0));
    let before = simulated(&redis, 0);
    redis.wipe(false);
    events.push(changed("wiped", &before, &simulated(&redis, 0)));

    redis.command(0, &["SET", "widget", "2"]);
    redis.restart();
    assert_eq!(redis.command(0, &["GET", "widget"]), Value::BulkString(b"2".into()));
    let again = simulated(&redis, 0);
    events.push(changed("restarted", &before, &again));

    redis.fail_over(true, 0);
    let over = simulated(&redis, 1);
    events.push(changed("failed over", &simulated(&redis, 0), &over));
    redis.fail_back();
    let back = simulated(&redis, 0);
    events.push(changed("failed back", &over, &back));
    events.push(changed("failed over and back", &again, &back));
    events
}

#[tokio::test]
async fn a_server_s_ids_change_as_those_of_the_simulated_one() {
    let expected = [
        ("wiped", false, false),
        ("restarted", true, true),
        ("failed over", true, true),
        ("failed back", true, true),
        ("failed over and back", true, false),
    ]
    .map(|(event, replid, run_id)| Changed { event, replid, run_id });
    assert_eq!(on_real_servers().await, expected);
    assert_eq!(on_simulated_servers(), expected);
}
