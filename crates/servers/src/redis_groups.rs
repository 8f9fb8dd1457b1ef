use std::path::Path;

use futures::future::join_all;

use crate::port::Port;
use crate::programs::Directory;
use crate::redis::{Redis, cli, start_process, wait_for};
use crate::server::Server;

/// The hash slots of a cluster.
const SLOTS: usize = 16_384;
const MASTERS: usize = 3;

/// A Redis Cluster of three masters, with a third of the slots each and no replicas.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters, in the order of their slots.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the masters, and waits until each sees the cluster whole.
    pub async fn start() -> Self {
        let nodes = join_all((0..MASTERS).map(|_| Redis::start_cluster_node())).await;
        for (number, node) in nodes.iter().enumerate() {
            let (from, past) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS);
            // Epochs of their own: nodes that meet with the same one must first agree on others.
            let done = node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
            assert_eq!(done, "OK");
            let done = node.cli(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &(past - 1).to_string()]).await;
            assert_eq!(done, "OK");
            let bus = node.bus_port().expect("a cluster node has a bus").to_string();
            assert_eq!(nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus]).await, "OK");
        }
        let cluster = Self { nodes };
        cluster.wait_until_whole().await;
        cluster
    }

    /// Waits until every node sees all the slots served, for example after a node was started again.
    pub async fn wait_until_whole(&self) {
        for node in &self.nodes {
            node.wait_for("the cluster", &["CLUSTER", "INFO"], &["cluster_state:ok", "cluster_slots_ok:16384"]).await;
        }
    }

    /// The masters' URLs.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }
}

/// Milliseconds. As they are built in, Sentinel connects anew once a second, so that right after a failover it takes the
/// new master for down too; and it takes 18 s to make a master that came back a replica. Five pings are how old its
/// picture of a replica may be that it promotes, and while the master is down it looks once a second.
const QUICKER_PERIODS: [&str; 8] =
    ["PING-PERIOD", "300", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "100", "TILT-PERIOD", "1000"];
/// Two pings, and a step of Sentinel's own clock.
const DOWN_AFTER_MS: u32 = 700;

/// One Sentinel, which alone decides on a failover, 0.7 s after its master last answered.
#[derive(Debug)]
pub struct Sentinel {
    server: Server,
    port: Port,
}

impl Sentinel {
    /// Starts a Sentinel that watches the master under the name, and waits until it knows the replicas the master has.
    pub async fn start(master: &Redis, name: &str) -> Self {
        let port = Port::claim();
        let settings = format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}\nsentinel failover-timeout {name} 2000\n",
            port.number(),
            master.port(),
        );
        let server =
            start_process("Redis Sentinel", &settings, &["--sentinel"], Directory::make("sentinel"), &port).await;
        let quicker = [&["SENTINEL", "DEBUG"], &QUICKER_PERIODS[..]].concat();
        assert_eq!(cli(port.number(), &quicker).await, "OK");
        let replicas = master.cli(&["INFO", "replication"]).await;
        let replicas = replicas.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
        let replicas = replicas.expect("INFO replication counts the replicas").trim();
        let known = [format!("status=ok,address=127.0.0.1:{},slaves={replicas},", master.port())];
        wait_for(port.number(), "the replicas", &["INFO", "sentinel"], &known.each_ref().map(String::as_str)).await;
        Self { server, port }
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
    }

    /// What `redis-cli` prints for the command, also when that is an error.
    pub async fn cli(&self, command: &[&str]) -> String {
        cli(self.port.number(), command).await
    }

    /// Where its configuration and its log are.
    pub fn directory(&self) -> &Path {
        self.server.directory().path()
    }
}
