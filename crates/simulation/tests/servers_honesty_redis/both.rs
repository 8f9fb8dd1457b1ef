//! A real and a simulated Redis side by side, and what they hold.

use std::{collections::BTreeMap, sync::Arc};

use contracts::values::Lease;
use deadpool_redis::redis::{Client, Cmd, Value, aio::MultiplexedConnection, from_redis_value};
use futures::FutureExt;
use inventory::stock::{
    Incarnation, LoadReply, StockError, StockStore,
    redis::{RedisStock, keys::Spread, target::RedisTarget},
};
use service::environment::{Env, RealEnvironment};
use simulation::redis::{Delivery, Redis, SimWire, data::Data};
use tokio_util::task::TaskTracker;

/// How far apart the two may be in what they take from the clock.
pub const TIME_TOLERANCE_MICROS: i64 = 60_000_000;

/// All keys of the real server: each with its type, its life and its parts.
const DUMP: &str = "
local parts_of = {
  string = function(key) return { redis.call('GET', key) } end,
  hash = function(key) return redis.call('HGETALL', key) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
}
local keys = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  table.insert(keys, { key, kind, redis.call('PTTL', key), parts_of[kind](key) })
end
return keys
";

/// A key's type, its parts in an order of their own, and its life in milliseconds.
type Stored = (&'static str, Vec<(String, String)>, i64);

/// The same store over both.
pub struct Both {
    _server: servers::Redis,
    connection: MultiplexedConnection,
    real: Arc<RedisStock>,
    simulated: Arc<RedisStock>,
    /// The simulated servers.
    pub redis: Arc<Redis>,
}

impl Both {
    pub async fn start() -> Self {
        let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
        let server = servers::Redis::start().await;
        let client = Client::open(server.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("connected");
        let real = RedisStock::new(RedisTarget::parse(&server.url()).expect("a URL"), env.clone());
        let clock = env.clone();
        let redis = Redis::new(1, Arc::new(move || clock.now().0));
        let pause = Arc::new(|_| std::future::ready(()).boxed());
        let wire = SimWire::new(Arc::clone(&redis), env.clone(), pause, Arc::new(|_, _| Delivery::Pass));
        let simulated = RedisStock::over(wire, Spread::OneServer, env);
        Self { _server: server, connection, real, simulated, redis }
    }

    /// What both answer: the real one, then the simulated one.
    pub async fn ask<T>(
        &self,
        ask: impl AsyncFn(&dyn StockStore) -> Result<T, StockError>,
    ) -> (Result<T, StockError>, Result<T, StockError>) {
        (ask(&*self.real).await, ask(&*self.simulated).await)
    }

    /// A load into a life, by the name that each has for it.
    pub async fn load(
        &self,
        lease: &Lease,
        (real, simulated): &(Incarnation, Incarnation),
    ) -> (Result<LoadReply, StockError>, Result<LoadReply, StockError>) {
        (self.real.load(lease, real).await, self.simulated.load(lease, simulated).await)
    }

    /// What the simulated server has.
    pub fn dump(&self) -> BTreeMap<String, (Data, Option<i64>)> {
        self.redis.dump(self.redis.primary())
    }

    async fn real_command(&mut self, words: &[&str]) -> Value {
        let command = words.iter().fold(Cmd::new(), |mut command, word| command.arg(*word).take());
        self.connection.send_packed_command(&command).await.expect("Redis answers")
    }

    /// A hand's command, which both answer alike.
    pub async fn command(&mut self, words: &[&str]) {
        let simulated = self.redis.command(self.redis.primary(), words);
        let real = self.real_command(words).await;
        assert_eq!(real, simulated, "{words:?}");
    }

    pub async fn forget_scripts(&mut self) {
        self.real_command(&["SCRIPT", "FLUSH"]).await;
        self.redis.flush_scripts();
    }

    /// All that is stored is the same. Lives have other names, who wrote a hint is random, and clocks differ a little.
    pub async fn compare_dumps(&mut self, lives: &[(Incarnation, Incarnation)]) {
        let real = self.real_dump().await;
        let simulated = self.simulated_dump();
        assert_eq!(real.keys().collect::<Vec<_>>(), simulated.keys().collect::<Vec<_>>());
        for ((key, (kind, parts, life)), (simulated_kind, simulated_parts, simulated_life)) in
            real.iter().zip(simulated.values())
        {
            assert_eq!((kind, parts.len()), (simulated_kind, simulated_parts.len()), "{key}");
            let gap_ms = (life - simulated_life).abs();
            assert!(
                life.is_negative() == simulated_life.is_negative() && gap_ms < TIME_TOLERANCE_MICROS / 1_000,
                "{key}"
            );
            for ((name, text), (simulated_name, simulated_text)) in parts.iter().zip(simulated_parts) {
                let same_life = lives.iter().any(|(real, simulated)| real.0 == *text && simulated.0 == *simulated_text);
                let same = alike(text, simulated_text) || name == "writer" || same_life;
                assert!(same && name == simulated_name, "{key}: {parts:?} and {simulated_parts:?}");
            }
        }
    }

    async fn real_dump(&mut self) -> BTreeMap<String, Stored> {
        let value = self.real_command(&["EVAL", DUMP, "0"]).await;
        let all: Vec<(String, String, i64, Vec<String>)> = from_redis_value(value).expect("as the script says");
        let stored = all.into_iter().map(|(key, kind, life, parts)| {
            let pairs = parts.chunks(2).map(|pair| (pair[0].clone(), pair[pair.len() - 1].clone()));
            let alone = parts.iter().map(|part| (String::new(), part.clone()));
            let (kind, mut parts): (_, Vec<_>) = match kind.as_str() {
                "hash" => ("hash", pairs.collect()),
                "zset" => ("zset", pairs.collect()),
                "set" => ("set", alone.collect()),
                "list" => ("list", alone.collect()),
                _ => ("string", alone.collect()),
            };
            parts.sort();
            (key, (kind, parts, life))
        });
        stored.collect()
    }

    fn simulated_dump(&self) -> BTreeMap<String, Stored> {
        let now_ms = self.redis.now_micros() / 1_000;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("no bytes but text");
        let alone = |bytes: &[u8]| (String::new(), text(bytes));
        let stored = self.dump().into_iter().map(|(key, (data, until_ms))| {
            let (kind, mut parts): (_, Vec<_>) = match data {
                Data::String(value) => ("string", vec![alone(&value)]),
                Data::Hash(hash) => ("hash", hash.iter().map(|(field, value)| (text(field), text(value))).collect()),
                Data::Set(set) => ("set", set.iter().map(|member| alone(member)).collect()),
                Data::List(list) => ("list", list.iter().map(|value| alone(value)).collect()),
                Data::SortedSet(set) => {
                    ("zset", set.members().iter().map(|(score, name)| (text(name), score.to_string())).collect())
                }
            };
            parts.sort();
            (key, (kind, parts, until_ms.map_or(-1, |until| until - now_ms)))
        });
        stored.collect()
    }
}

/// The same text, but for moments of the clock.
pub fn alike(one: &str, other: &str) -> bool {
    let moment = |text: &str| text.parse::<i64>().ok().filter(|micros| *micros > 1_500_000_000_000_000);
    let (one, other): (Vec<_>, Vec<_>) = (one.split(':').collect(), other.split(':').collect());
    one.len() == other.len()
        && one.iter().zip(&other).all(|(one, other)| match (moment(one), moment(other)) {
            (Some(one), Some(other)) => (one - other).abs() < TIME_TOLERANCE_MICROS,
            _ => one == other,
        })
}
