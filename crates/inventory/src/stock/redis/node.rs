//! One Redis server, by a few connections that are kept. Many calls share a connection at once; none checks it out, and
//! what is sent is never sent again by itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use deadpool_redis::{
    Connection, Manager, Pool,
    redis::{
        AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisError, Value,
        aio::{ConnectionLike, MultiplexedConnection},
    },
};
use futures::future::try_join_all;

use super::scripts::SCRIPTS;

/// Connections to a server. One would do for most loads; with more a long answer holds up fewer calls.
pub const LANES_PER_SERVER: usize = 4;
/// Oldest version of Redis; Valkey calls itself 7 or newer.
pub const REDIS_VERSION_MIN: u64 = 7;

/// What is wrong with a server, in words for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

impl From<RedisError> for Unfit {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

/// A server that was fit to be used when it was connected to.
pub struct Node {
    info: ConnectionInfo,
    address: String,
    lanes: Vec<Connection>,
    turn: AtomicUsize,
    lost: AtomicBool,
}

impl Node {
    /// Connects, and checks that it is a master that never evicts; whether it takes writes now is not asked. In few round
    /// trips, however far away it is. The caller bounds the time.
    pub async fn connect(info: ConnectionInfo) -> Result<Self, Unfit> {
        let address = info.addr().to_string();
        let manager = Manager::new_with_config(info.clone(), patient())?;
        let pool = Pool::builder(manager).max_size(LANES_PER_SERVER).build().map_err(|e| Unfit(e.to_string()))?;
        let lanes = try_join_all((0..LANES_PER_SERVER).map(|_| pool.get())).await.map_err(|e| Unfit(e.to_string()))?;
        let node = Self { info, address, lanes, turn: AtomicUsize::new(0), lost: AtomicBool::new(false) };
        node.check().await?;
        node.teach().await?;
        Ok(node)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it is and how to sign in.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Not to be used any more: it failed, hangs, or is no master now.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether it was lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Sends a command, once.
    pub async fn send(&self, cmd: &Cmd) -> Result<Value, RedisError> {
        self.lane().req_packed_command(cmd).await?.extract_error()
    }

    /// Sends many, once. Each has its own answer, which may be a [`Value::ServerError`].
    pub async fn send_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.lane().req_packed_commands(pipeline, 0, pipeline.len()).await
    }

    /// Whether it may be used as a stock store.
    pub async fn check(&self) -> Result<(), Unfit> {
        let mut questions = Pipeline::new();
        for section in ["server", "replication", "memory", "persistence"] {
            questions.cmd("INFO").arg(section);
        }
        let facts: Vec<String> = questions.query_async(&mut self.lane()).await?;
        fit(&facts.concat())
    }

    /// So that scripts are known by their names.
    async fn teach(&self) -> Result<(), Unfit> {
        let mut lessons = Pipeline::new();
        for script in SCRIPTS.all() {
            lessons.cmd("SCRIPT").arg("LOAD").arg(&script.text);
        }
        let names: Vec<String> = lessons.query_async(&mut self.lane()).await?;
        assert_eq!(names, SCRIPTS.all().map(|script| script.sha.as_str()), "Redis names scripts by their SHA-1");
        Ok(())
    }

    fn lane(&self) -> MultiplexedConnection {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        MultiplexedConnection::clone(&self.lanes[turn])
    }
}

/// Without time limits of the library's: whoever sends has one.
fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// Asks a Sentinel or a cluster node something, on a connection of its own. The caller bounds the time.
pub async fn ask_once(info: ConnectionInfo, question: &Cmd) -> Result<Value, RedisError> {
    let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&patient()).await?;
    connection.req_packed_command(question).await?.extract_error()
}

/// The law on what `INFO` says.
fn fit(facts: &str) -> Result<(), Unfit> {
    let fact = |name: &str| {
        facts.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':')).unwrap_or("unknown")
    };
    let version = fact("redis_version");
    if version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u64| major < REDIS_VERSION_MIN)
    {
        return Err(Unfit(format!("version {version} is too old: Redis {REDIS_VERSION_MIN} or newer, or Valkey")));
    }
    if fact("loading") != "0" {
        return Err(Unfit("it is loading its data".to_owned()));
    }
    match fact("role") {
        "master" => {}
        role => return Err(Unfit(format!("it is no master, but a {role}"))),
    }
    match fact("maxmemory_policy") {
        "noeviction" => Ok(()),
        policy => Err(Unfit(format!("maxmemory-policy is {policy}: set noeviction, or holds are thrown away"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "# Server\r\nredis_version:7.0.15\r\nloading:0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n";

    #[test]
    fn only_a_master_of_a_new_version_that_evicts_nothing_is_fit() {
        assert!(fit(GOOD).is_ok());
        for (good, bad, word) in [
            ("7.0.15", "6.2.14", "6.2.14"),
            ("redis_version", "version", "unknown"),
            ("role:master", "role:slave", "slave"),
            ("noeviction", "allkeys-lru", "allkeys-lru"),
            ("loading:0", "loading:1", "loading"),
            ("loading:0", "", "loading"),
        ] {
            let error = fit(&GOOD.replace(good, bad)).expect_err(bad);
            assert!(error.0.contains(word), "{error}");
        }
    }
}
