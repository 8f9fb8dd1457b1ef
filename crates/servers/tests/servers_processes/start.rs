//! Every server starts, answers, keeps its port and what it holds over a kill, stands still while paused, and leaves
//! nothing behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::leftovers::{processes_in, shared_memory_of, until};
use servers::{Nginx, Port, Postgres, RabbitMq, Redis, RedisCluster, Sentinel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Children that lost their server need a moment to see it.
async fn nothing_is_left(directory: &Path) {
    until(async || processes_in(directory).is_empty() && !directory.exists()).await;
}

async fn stands_still(asked: impl Future<Output = String>) {
    assert!(timeout(Duration::from_millis(500), asked).await.is_err(), "it answers while paused");
}

#[tokio::test]
async fn postgres_recovers_what_it_confirmed() {
    let postgres = Postgres::start().await;
    let directory = postgres.data_dir().parent().unwrap().to_owned();
    let url = postgres.database().await;
    let database = url.rsplit_once('/').unwrap().1;
    assert_ne!(url, postgres.database().await);
    postgres.sql(database, "CREATE TABLE orders AS SELECT 7 AS number").await;
    postgres.kill().await;
    assert_eq!(processes_in(&directory), [] as [PathBuf; 0]);
    postgres.start_again().await;
    assert_eq!(postgres.sql(database, "SELECT number FROM orders").await, "7");
    postgres.pause();
    stands_still(postgres.sql(database, "SELECT 1")).await;
    postgres.resume();
    assert_eq!(postgres.sql(database, "SELECT 1").await, "1");
    assert_eq!(postgres.sql(database, "SHOW synchronous_commit").await, "on");
    let memory = shared_memory_of(&postgres.data_dir());
    assert!(memory.is_there());
    postgres.kill().await;
    drop(postgres);
    nothing_is_left(&directory).await;
    assert!(!memory.is_there());
}

#[tokio::test]
async fn redis_keeps_its_port_and_with_appendonly_its_keys() {
    let redis = Redis::start_with(&["--appendonly", "yes"]).await;
    let directory = redis.directory().to_owned();
    assert_eq!(redis.cli(&["SET", "widget", "7"]).await, "OK");
    redis.kill().await;
    assert_eq!(processes_in(&directory), [] as [PathBuf; 0]);
    redis.start_again().await;
    assert_eq!(redis.cli(&["GET", "widget"]).await, "7");
    redis.pause();
    stands_still(redis.cli(&["PING"])).await;
    redis.resume();
    assert_eq!(redis.cli(&["PING"]).await, "PONG");
    drop(redis);
    nothing_is_left(&directory).await;
}

#[tokio::test]
async fn sentinel_makes_a_replica_the_master() {
    let master = Redis::start().await;
    let replica = master.replica().await;
    let sentinel = Sentinel::start(&master, "stock").await;
    assert_eq!(master.cli(&["SET", "widget", "7"]).await, "OK");
    until(async || replica.cli(&["GET", "widget"]).await == "7").await;
    master.kill().await;
    let promoted = format!("127.0.0.1\n{}", replica.port());
    until(async || sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "stock"]).await == promoted).await;
    assert!(replica.cli(&["INFO", "replication"]).await.contains("role:master"));
    assert_eq!(replica.cli(&["GET", "widget"]).await, "7");
    master.start_again().await;
    until(async || master.cli(&["INFO", "replication"]).await.contains("master_link_status:up")).await;
}

#[tokio::test]
async fn a_redis_cluster_is_whole_again_after_a_kill() {
    let cluster = RedisCluster::start().await;
    for (number, node) in cluster.nodes.iter().enumerate() {
        node.cli(&["-c", "SET", &format!("item {number}"), "7"]).await;
    }
    cluster.nodes[1].kill().await;
    cluster.nodes[1].start_again().await;
    cluster.wait_until_whole().await;
    assert_eq!(cluster.nodes[2].cli(&["-c", "SET", "widget", "7"]).await, "OK");
    assert_eq!(cluster.nodes[0].cli(&["-c", "GET", "widget"]).await, "7");
}

#[tokio::test]
async fn rabbitmq_keeps_its_virtual_hosts() {
    let rabbitmq = RabbitMq::start().await;
    let directory = rabbitmq.directory().to_owned();
    rabbitmq.prepare_vhosts(2).await;
    let mut urls = [rabbitmq.vhost().await, rabbitmq.vhost().await, rabbitmq.vhost().await];
    urls.sort_unstable();
    assert!(urls[0] != urls[1] && urls[1] != urls[2], "{urls:?}");
    let before = rabbitmq.ctl(&["list_permissions", "--vhost", "prepared-2"]).await;
    assert!(before.contains("guest"), "{before}");
    rabbitmq.kill().await;
    assert_eq!(processes_in(&directory), [] as [PathBuf; 0]);
    rabbitmq.start_again().await;
    assert_eq!(rabbitmq.ctl(&["list_permissions", "--vhost", "prepared-2"]).await, before);
    drop(rabbitmq);
    nothing_is_left(&directory).await;
}

#[tokio::test]
async fn nginx_answers_reads_a_new_configuration_and_stops() {
    let configuration = |port: u16, answer: &str| {
        format!(
            "events {{}} http {{ access_log access.log; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;\n\
             uwsgi_temp_path t; scgi_temp_path t; server {{ listen 127.0.0.1:{port}; return 200 {answer}; }} }}"
        )
    };
    let port = Port::claim();
    let number = port.number();
    let nginx = Nginx::start(port, &configuration(number, "one")).await;
    let directory = nginx.file("");
    assert!(get(number).await.ends_with("one"));
    nginx.reload(&configuration(number, "two"));
    until(async || get(number).await.ends_with("two")).await;
    nginx.kill().await;
    nginx.start_again().await;
    assert!(get(number).await.ends_with("two"));
    assert!(std::fs::read_to_string(nginx.file("access.log")).unwrap().contains("GET / "));
    assert_eq!(nginx.stop().await.number(), number);
    nothing_is_left(&directory).await;
}

async fn get(port: u16) -> String {
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    ask.await.expect("NGINX answers")
}

#[tokio::test]
async fn what_tests_share_is_handed_to_each_once() {
    let postgres = Postgres::shared().await;
    let databases = [postgres.database().await, postgres.database().await];
    assert_ne!(databases[0], databases[1]);
    assert_eq!(postgres.sql(databases[0].rsplit_once('/').unwrap().1, "SELECT 1").await, "1");
    let rabbitmq = RabbitMq::shared().await;
    let vhosts = [rabbitmq.vhost().await, rabbitmq.vhost().await];
    assert_ne!(vhosts[0], vhosts[1]);
    assert!(rabbitmq.ctl(&["list_vhosts"]).await.contains(vhosts[0].rsplit_once('/').unwrap().1));
}
