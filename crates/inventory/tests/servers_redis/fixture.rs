//! Redis as a fixture of the suite: one server, a cluster, a pair with a Sentinel.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use contracts::values::{Item, ReservationId};
use inventory::stock::{
    Incarnation, StockStore,
    conformance::{Edit, StockFixture, item},
    redis::{RedisStock, keys::Spread, target::RedisTarget},
};
use servers::{Redis, RedisCluster, Sentinel};
use service::environment::{Env, RealEnvironment};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

/// How long a store may take to be there again, at most.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// Time, randomness and tasks of the machine.
pub fn env() -> Env {
    Arc::new(RealEnvironment::new(TaskTracker::new()))
}

/// A store that is connected to when it is first asked.
pub fn store(url: &str) -> Arc<RedisStock> {
    RedisStock::new(RedisTarget::parse(url).expect("a good URL"), env())
}

/// Waits until the condition holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + RECOVERY_MAX;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the store answers out of another life than this one.
async fn until_reborn(store: &RedisStock, before: &Incarnation) {
    let deadline = Instant::now() + RECOVERY_MAX;
    while store.probe(&item("widget")).await.map_or(true, |probe| probe.incarnation == *before) {
        assert!(Instant::now() < deadline, "waited too long for another life");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn life(store: &RedisStock) -> Incarnation {
    store.probe(&item("widget")).await.expect("the store answers").incarnation
}

/// An operator at redis-cli, with the options by which he signs in.
#[derive(Clone, Copy)]
pub struct Hand<'a> {
    pub redis: &'a Redis,
    pub login: &'static [&'static str],
}

impl<'a> From<&'a Redis> for Hand<'a> {
    fn from(redis: &'a Redis) -> Self {
        Self { redis, login: &[] }
    }
}

impl Hand<'_> {
    pub async fn cli(self, command: &[&str]) -> String {
        self.redis.cli(&[self.login, command].concat()).await
    }
}

/// Changes an item on the server that has it.
async fn edit_on(server: impl Into<Hand<'_>>, item: &Item, edit: Edit) {
    let server = server.into();
    let (_, keys) = Spread::OneServer.item(item.as_str());
    let [units, ledger, holds, due, ..] = keys.as_slice() else { panic!("an item has more keys") };
    match edit {
        Edit::Available(by) => {
            server.cli(&["INCRBY", units, &by.to_string()]).await;
        }
        Edit::Received(by) => add(server, ledger, "received", by).await,
        Edit::Held(by) => add(server, ledger, "held", by).await,
        Edit::Sold(by) => add(server, ledger, "sold", by).await,
        Edit::Counter(by) => add(server, ledger, "holds", by).await,
        Edit::DropHold(id) => drop_one(server, ["HDEL", holds], id).await,
        Edit::DropDue(id) => drop_one(server, ["ZREM", due], id).await,
    }
}

async fn add(server: Hand<'_>, ledger: &str, field: &str, by: i64) {
    server.cli(&["HINCRBY", ledger, field, &by.to_string()]).await;
}

async fn drop_one(server: Hand<'_>, [command, key]: [&str; 2], id: ReservationId) {
    assert_eq!(server.cli(&[command, key, &id.to_string()]).await.trim(), "1", "there is something to drop");
}

/// One server, whose next life is a restart that finds its data again.
pub struct SingleFixture {
    pub redis: Redis,
    pub store: Arc<RedisStock>,
    /// How its operator signs in.
    pub login: &'static [&'static str],
    /// What it reads at each start.
    pub files: Option<TempDir>,
}

impl SingleFixture {
    pub async fn start() -> Self {
        Self::start_with(&["--appendonly", "yes"]).await
    }

    pub async fn start_with(flags: &[&str]) -> Self {
        let redis = Redis::start_with(flags).await;
        let store = store(&redis.url());
        Self { redis, store, login: &[], files: None }
    }

    /// Its operator.
    pub fn hand(&self) -> Hand<'_> {
        Hand { redis: &self.redis, login: self.login }
    }
}

#[async_trait]
impl StockFixture for SingleFixture {
    fn store(&self) -> Arc<dyn StockStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        sleep(by).await;
    }

    async fn wipe(&self) {
        self.hand().cli(&["FLUSHALL"]).await;
    }

    async fn edit(&self, item: &Item, edit: Edit) {
        edit_on(self.hand(), item, edit).await;
    }

    async fn new_incarnation(&self) {
        if self.files.is_some() {
            // A Redis without redis/redis#14545 forgets most at a restart where `default` may do little.
            assert_eq!(self.hand().cli(&["DEBUG", "CHANGE-REPL-ID"]).await.trim(), "OK");
            return;
        }
        let before = life(&self.store).await;
        self.redis.kill().await;
        self.redis.start_again().await;
        until_reborn(&self.store, &before).await;
    }
}

/// Three masters. Their next life begins at a word, as at a failover: there are no replicas that could take over.
pub struct ClusterFixture {
    pub cluster: RedisCluster,
    pub store: Arc<RedisStock>,
}

impl ClusterFixture {
    pub async fn start() -> Self {
        let cluster = RedisCluster::start().await;
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let store = store(&format!("redis+cluster://{}", addresses.join(",")));
        Self { cluster, store }
    }

    /// The server that has this item.
    pub fn owner(&self, item: &Item) -> &Redis {
        let nodes = &self.cluster.nodes;
        &nodes[usize::from(Spread::Cluster.slot_of(item.as_str())) * nodes.len() / 16_384]
    }
}

#[async_trait]
impl StockFixture for ClusterFixture {
    fn store(&self) -> Arc<dyn StockStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        sleep(by).await;
    }

    async fn wipe(&self) {
        for node in &self.cluster.nodes {
            node.cli(&["FLUSHALL"]).await;
        }
    }

    async fn edit(&self, item: &Item, edit: Edit) {
        edit_on(self.owner(item), item, edit).await;
    }

    async fn new_incarnation(&self) {
        for node in &self.cluster.nodes {
            assert_eq!(node.cli(&["DEBUG", "CHANGE-REPL-ID"]).await.trim(), "OK");
        }
    }
}

/// A master and its replica, found through a Sentinel. The next life is a failover.
pub struct PairFixture {
    pub servers: [Redis; 2],
    pub sentinel: Sentinel,
    pub store: Arc<RedisStock>,
}

impl PairFixture {
    pub async fn start() -> Self {
        let master = Redis::start().await;
        let replica = master.replica().await;
        let sentinel = Sentinel::start(&master, "stock").await;
        let address = sentinel.url().replace("redis://", "");
        let store = store(&format!("redis+sentinel://{address}/stock"));
        Self { servers: [master, replica], sentinel, store }
    }

    /// The server that is the master now.
    pub async fn master(&self) -> &Redis {
        for server in &self.servers {
            if server.cli(&["ROLE"]).await.starts_with("master") {
                return server;
            }
        }
        panic!("none of the two is the master");
    }

    /// Waits until the replica has everything that the master has.
    pub async fn caught_up(&self) {
        let facts = async || self.master().await.cli(&["INFO", "replication"]).await;
        let offset = |facts: &str, name: &str, end: char| {
            let (_, rest) = facts.split_once(name)?;
            rest.split_once(end)?.0.parse::<u64>().ok()
        };
        let wanted = offset(&facts().await, "master_repl_offset:", '\r').expect("a master has an offset");
        let deadline = Instant::now() + RECOVERY_MAX;
        while offset(&facts().await, "state=online,offset=", ',').is_none_or(|has| has < wanted) {
            assert!(Instant::now() < deadline, "waited too long for the replica");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the master has a replica that is up to date, and the Sentinel is at rest.
    pub async fn followed(&self) -> bool {
        for server in &self.servers {
            let facts = server.cli(&["INFO", "replication"]).await;
            if facts.contains("role:master") && !facts.contains("state=online") {
                return false;
            }
        }
        let master = self.sentinel.cli(&["SENTINEL", "MASTER", "stock"]).await;
        !master.contains("failover_in_progress") && self.roles().await == 1
    }

    async fn roles(&self) -> usize {
        let mut masters = 0;
        for server in &self.servers {
            masters += usize::from(server.cli(&["ROLE"]).await.starts_with("master"));
        }
        masters
    }
}

#[async_trait]
impl StockFixture for PairFixture {
    fn store(&self) -> Arc<dyn StockStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        sleep(by).await;
    }

    async fn wipe(&self) {
        self.master().await.cli(&["FLUSHALL"]).await;
    }

    async fn edit(&self, item: &Item, edit: Edit) {
        edit_on(self.master().await, item, edit).await;
    }

    async fn new_incarnation(&self) {
        let before = life(&self.store).await;
        self.caught_up().await;
        assert_eq!(self.sentinel.cli(&["SENTINEL", "FAILOVER", "stock"]).await.trim(), "OK");
        until_reborn(&self.store, &before).await;
    }
}
