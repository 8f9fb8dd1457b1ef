//! What is done to Redis and its replica.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use servers::{Redis, eventually};
use service::manual::Dice;

use super::{Blow, pass};
use crate::load::PLENTIFUL;
use crate::one_of;
use crate::proxy::Mode;
use crate::system::{REDIS, System, at};

/// A primary that comes back has what its successor has within this.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// Gives what was hit, or how.
pub(super) async fn hit(blow: Blow, system: &System, dice: &mut Dice) -> String {
    let [redis, _] = &system.redis;
    let item = *one_of(dice, &PLENTIFUL);
    let key = |part: &str| format!("{{{item}}}:{part}");
    match blow {
        Blow::Freeze => {
            redis.pause();
            pass(dice, 800, 3_000).await;
            redis.resume();
        }
        Blow::Kill => drop(restart(system, dice, |_| String::new()).await),
        Blow::Truncate => return restart(system, dice, |dice| truncate(redis, dice)).await,
        Blow::Flush => drop(redis.cli(&["FLUSHALL"]).await),
        Blow::DeleteItem => {
            let keys = ["ledger", "holds", "due", "restocks"].map(key);
            redis.cli(&[&["DEL", item][..], &keys.each_ref().map(String::as_str)].concat()).await;
            return item.to_owned();
        }
        Blow::Edit => {
            let (ledger, holds, due) = (key("ledger"), key("holds"), key("due"));
            let edits: [&[&str]; 8] = [
                &["SET", item, "5000000"],
                &["DEL", item],
                &["SET", item, "many"],
                &["HSET", &ledger, "sold", "0"],
                &["HINCRBY", &ledger, "received", "100"],
                &["HINCRBY", &ledger, "held", "-1"],
                &["DEL", &due],
                &["DEL", &ledger, &holds],
            ];
            let edit = one_of(dice, &edits);
            redis.cli(edit).await;
            return edit.join(" ");
        }
        Blow::FailOver => return fail_over(system, dice).await,
        Blow::SplitBrain => return split(system, dice).await,
        other => panic!("{other:?} does not hit the stock store"),
    }
    String::new()
}

/// Kills it, does something to what it kept, and starts it again.
async fn restart(system: &System, dice: &mut Dice, meanwhile: impl FnOnce(&mut Dice) -> String) -> String {
    let [redis, _] = &system.redis;
    redis.kill().await;
    system.set_dead(REDIS, true);
    let done = meanwhile(dice);
    pass(dice, 100, 1_000).await;
    redis.start_again().await;
    system.set_dead(REDIS, false);
    done
}

/// Cuts a part off the end of the log of its changes, in the middle of a command most of the time.
fn truncate(redis: &Redis, dice: &mut Dice) -> String {
    let newest = newest_log(redis);
    let file = File::options().write(true).open(&newest).expect("Redis has written it");
    let length = file.metadata().expect("it is there").len();
    let lost = dice.below(length / 2 + 1);
    file.set_len(length - lost).expect("it can be cut");
    format!("{lost} of {length} bytes lost")
}

fn newest_log(redis: &Redis) -> PathBuf {
    let number = |path: &PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".incr.aof")?;
        name.rsplit('.').next()?.parse().ok()
    };
    let files = fs::read_dir(redis.directory().join("appendonlydir")).expect("Redis keeps a log");
    let files = files.flatten().map(|entry| entry.path());
    files.filter(|path| number(path).is_some()).max_by_key(number).expect("Redis keeps a log")
}

async fn promote(redis: &Redis) {
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]).await, "OK");
}

/// The replica lags, is promoted, serves a while, and gives back: to the old primary with what that had then, or with
/// what the replica has now.
async fn fail_over(system: &System, dice: &mut Dice) -> String {
    let [primary, replica] = &system.redis;
    let (kills, syncs) = (dice.below(2) == 0, dice.below(2) == 0);
    lag(system, dice).await;
    if kills {
        primary.kill().await;
    }
    promote(replica).await;
    system.links_to(REDIS).for_each(|link| link.point_at(at(replica.port())));
    pass(dice, 800, 2_500).await;
    if kills {
        primary.start_again().await;
    }
    if syncs {
        primary.cli(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]).await;
        let has_all =
            async || primary.cli(&["INFO", "replication"]).await.contains("master_link_status:up").then_some(());
        eventually(SYNC_LIMIT, "the old primary has what its successor has", has_all).await;
        promote(primary).await;
    }
    system.links_to(REDIS).for_each(|link| link.point_at(at(primary.port())));
    follow_again(system).await;
    format!(
        "the old primary {}, back {}",
        if kills { "killed" } else { "alive" },
        if syncs { "synced" } else { "as it was" }
    )
}

/// The replica lags and is promoted for one inventory service; the other one does not hear of it.
async fn split(system: &System, dice: &mut Dice) -> String {
    let [primary, replica] = &system.redis;
    lag(system, dice).await;
    promote(replica).await;
    let moved = format!("inventory-service-{}", 1 + dice.below(2));
    let link = system.links_to(REDIS).find(|link| link.from == moved).expect("it has one");
    link.point_at(at(replica.port()));
    pass(dice, 1_000, 3_000).await;
    link.point_at(at(primary.port()));
    follow_again(system).await;
    format!("{moved} alone was moved")
}

/// From now on the replica hears nothing, while the primary goes on.
async fn lag(system: &System, dice: &mut Dice) {
    system.replica_follows().await;
    system.replication.set(Mode::BlackHole);
    pass(dice, 300, 1_500).await;
}

async fn follow_again(system: &System) {
    let [_, replica] = &system.redis;
    system.replication.set(Mode::Pass);
    let port = system.replication.addr().port().to_string();
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
}
