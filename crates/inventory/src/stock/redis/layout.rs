//! Which server has which slots: as set, as Sentinels say, or as the nodes of a cluster say.

use std::collections::BTreeSet;

use deadpool_redis::redis::{Cmd, ConnectionInfo, Value, cmd, from_redis_value};
use futures::future::join_all;
use service::environment::Env;
use std::time::Duration;

use super::{
    keys::SLOTS,
    node::{Unfit, ask_once},
    target::{ADDRESSES_MAX, RedisTarget, host_of, moved_to},
};

/// How long a Sentinel or a cluster node may take to say where the servers are, in milliseconds. All are asked at once.
pub const LAYOUT_TIMEOUT_MS: u64 = 300;

/// A run of slots and who may have them.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The first slot.
    pub first: u16,
    /// The last slot.
    pub last: u16,
    /// Where its master may be, likeliest first.
    pub candidates: Vec<ConnectionInfo>,
}

fn all_slots(candidates: Vec<ConnectionInfo>) -> Vec<Shard> {
    vec![Shard { first: 0, last: SLOTS - 1, candidates }]
}

/// Where the servers are now. `known` are addresses of a cluster's nodes beside those that were set.
pub async fn layout(env: &Env, target: &RedisTarget, known: &[ConnectionInfo]) -> Result<Vec<Shard>, Unfit> {
    match target {
        RedisTarget::Single(info) => Ok(all_slots(vec![info.clone()])),
        RedisTarget::Sentinel { sentinels, name, server } => {
            let question = cmd("SENTINEL").arg("get-master-addr-by-name").arg(name).take();
            let answers = ask_each(env, sentinels.clone(), &question).await?;
            masters(server, name, &answers).map(all_slots)
        }
        RedisTarget::Cluster(seeds) => {
            let mut seen = BTreeSet::new();
            let mut infos: Vec<ConnectionInfo> = known.iter().chain(seeds).cloned().collect();
            infos.retain(|info| seen.insert(info.addr().to_string()));
            infos.truncate(ADDRESSES_MAX);
            let epochs = ask_each(env, infos.clone(), &cmd("CLUSTER").arg("INFO").take()).await?;
            let (info, _) = epochs
                .into_iter()
                .max_by_key(|(_, answer)| cluster_epoch(answer))
                .ok_or_else(|| Unfit("no node of the cluster answers".to_owned()))?;
            let slots = ask_each(env, vec![info], &cmd("CLUSTER").arg("SLOTS").take()).await?;
            slots
                .iter()
                .find_map(|(info, answer)| shards(info, answer))
                .ok_or_else(|| Unfit("a node of the cluster does not say who has the slots".to_owned()))
        }
    }
}

type Answers = Vec<(ConnectionInfo, Value)>;

/// Asks all of them at once; fails only if none answers.
async fn ask_each(env: &Env, infos: Vec<ConnectionInfo>, question: &Cmd) -> Result<Answers, Unfit> {
    let limit = Duration::from_millis(LAYOUT_TIMEOUT_MS);
    let asked = infos.into_iter().map(async |info| {
        let answer = match env.timeout(limit, ask_once(info.clone(), question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{}: {error}", info.addr())),
            Err(timed_out) => Err(format!("{}: {timed_out}", info.addr())),
        };
        (info, answer)
    });
    let (mut answers, mut causes) = (Vec::new(), Vec::new());
    for (info, answer) in join_all(asked).await {
        match answer {
            Ok(answer) => answers.push((info, answer)),
            Err(cause) => causes.push(cause),
        }
    }
    if answers.is_empty() { Err(Unfit(causes.join("; "))) } else { Ok(answers) }
}

/// The masters that Sentinels name, most votes first: one of them may be behind.
fn masters(server: &ConnectionInfo, name: &str, answers: &Answers) -> Result<Vec<ConnectionInfo>, Unfit> {
    let named: Vec<(String, u16)> =
        answers.iter().filter_map(|(_, answer)| from_redis_value(answer.clone()).ok()).collect();
    let mut distinct: Vec<_> = named.iter().collect::<BTreeSet<_>>().into_iter().collect();
    distinct.sort_by_key(|address| std::cmp::Reverse(named.iter().filter(|other| other == address).count()));
    if distinct.is_empty() {
        return Err(Unfit(format!("no Sentinel knows a master of {name}")));
    }
    Ok(distinct.into_iter().map(|(host, port)| moved_to(server, host, *port)).collect())
}

/// How new a node's view of the cluster is: first whether it can work at all, then the epoch.
fn cluster_epoch(info: &Value) -> (bool, u64) {
    let text: String = from_redis_value(info.clone()).unwrap_or_default();
    let fact = |name: &str| text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    let epoch = fact("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    (fact("cluster_state") == Some("ok"), epoch)
}

/// `CLUSTER SLOTS`, as `[[first, last, [host, port, ...], replica...], ...]`.
fn shards(asked: &ConnectionInfo, answer: &Value) -> Option<Vec<Shard>> {
    let Value::Array(ranges) = answer else { return None };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else { return None };
            let [host, Value::Int(port), ..] = master.as_slice() else { return None };
            let host: Option<String> = from_redis_value(host.clone()).ok()?;
            // A node that does not know its own name means: the one that you have asked.
            let host = host.filter(|host| !host.is_empty() && host != "?");
            let host = host.as_deref().unwrap_or(host_of(asked));
            let candidates = vec![moved_to(asked, host, u16::try_from(*port).ok()?)];
            Some(Shard { first: u16::try_from(*first).ok()?, last: u16::try_from(*last).ok()?, candidates })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(url: &str) -> ConnectionInfo {
        let Ok(RedisTarget::Single(info)) = RedisTarget::parse(url) else { panic!("{url}") };
        info
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn the_master_of_most_sentinels_comes_first() {
        let server = info("redis://:secret@server");
        let says = |host: &str| (info("redis://s"), Value::Array(vec![text(host), text("7")]));
        let silent = (info("redis://s"), Value::Nil);
        let found = masters(&server, "m", &vec![says("old"), says("new"), silent.clone(), says("new")]).expect("named");
        let addresses: Vec<String> = found.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(addresses, ["new:7", "old:7"]);
        assert_eq!(found[0].redis_settings().password(), Some("secret"));
        assert!(masters(&server, "m", &vec![silent]).is_err());
    }

    #[test]
    fn slots_are_read_as_nodes_say_them() {
        let node = |host: Value| Value::Array(vec![host, Value::Int(7), text("id"), Value::Array(vec![])]);
        let range = |first, last, host| Value::Array(vec![Value::Int(first), Value::Int(last), node(host)]);
        let answer = Value::Array(vec![range(0, 99, text("a")), range(100, 16_383, Value::Nil)]);
        let found = shards(&info("redis://asked"), &answer).expect("well-formed");
        assert_eq!(
            (found[0].first, found[0].last, found[0].candidates[0].addr().to_string()),
            (0, 99, "a:7".to_owned())
        );
        assert_eq!((found[1].first, found[1].candidates[0].addr().to_string()), (100, "asked:7".to_owned()));
        assert!(shards(&info("redis://asked"), &Value::Array(vec![Value::Int(1)])).is_none());
    }

    #[test]
    fn the_newest_view_of_the_cluster_wins() {
        let ok = cluster_epoch(&text("cluster_state:ok\r\ncluster_current_epoch:3\r\n"));
        assert!(ok > cluster_epoch(&text("cluster_state:ok\r\ncluster_current_epoch:2\r\n")));
        assert!(ok > cluster_epoch(&text("cluster_state:fail\r\ncluster_current_epoch:9\r\n")));
    }
}
