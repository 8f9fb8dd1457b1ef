//! Redis is away, hangs, forgets, is full, or is not one that can be used.

use std::time::Duration;

use contracts::values::{Epoch, Lease};
use futures::future::join_all;
use inventory::stock::{
    ConfirmReply, LoadReply, ReleaseReply, ReserveReply, StockReply, StockStore,
    conformance::{Stage, StockFixture, id, item},
    redis::{
        node::LANES_PER_SERVER,
        router::{CONNECT_TIMEOUT_MS, RESPONSE_TIMEOUT_MS},
    },
};
use servers::Redis;
use tokio::time::Instant;

use crate::{
    fixture::{SingleFixture, store, until},
    proxy::Proxy,
};

/// Within what a call to a server that is known to be down has to fail.
const AT_ONCE: Duration = Duration::from_millis(200);

async fn answers(store: &dyn StockStore) -> bool {
    store.ping().await.is_ok() && store.available(&item("widget")).await.is_ok()
}

/// Calls fail, each at once.
async fn fails_at_once(store: &dyn StockStore) {
    for _ in 0..20 {
        let began = Instant::now();
        assert!(store.available(&item("widget")).await.is_err());
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there_yet_is_found_when_it_comes() {
    let redis = Redis::start().await;
    redis.kill().await;
    let store = store(&redis.url());
    assert!(store.ping().await.is_err());
    fails_at_once(&*store).await;
    redis.start_again().await;
    let began = Instant::now();
    until("the store answers", async || answers(&*store).await).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_redis_that_dies_costs_an_error_at_once_and_comes_back_by_itself() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 10, 0).await;
    for _ in 0..3 {
        fixture.redis.kill().await;
        fails_at_once(&*fixture.store).await;
        fixture.redis.start_again().await;
        until("the store answers", async || answers(&*fixture.store).await).await;
    }
    assert_eq!(stage.available().await, StockReply::NotOpen, "it is another life");
}

#[tokio::test]
async fn a_redis_that_hangs_costs_one_wait_and_comes_back_by_itself() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 10, 0).await;
    fixture.redis.pause();
    let began = Instant::now();
    let calls = join_all((0..100).map(|_| stage.store.available(&stage.item))).await;
    assert!(calls.iter().all(Result::is_err));
    let most = Duration::from_millis(RESPONSE_TIMEOUT_MS) + AT_ONCE;
    assert!(began.elapsed() < most, "all of them wait for the same answer: {:?}", began.elapsed());
    let until_hung_again = Instant::now() + Duration::from_millis(2 * CONNECT_TIMEOUT_MS);
    while Instant::now() < until_hung_again {
        fails_at_once(&*fixture.store).await;
    }
    fixture.redis.resume();
    until("the store answers", async || answers(&*fixture.store).await).await;
    assert_eq!(stage.available().await, StockReply::Available(10), "it is the same life");
}

#[tokio::test]
async fn connections_that_are_replaced_are_closed() {
    let fixture = SingleFixture::start().await;
    Stage::open(&fixture, 10, 0).await;
    for _ in 0..5 {
        fixture.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        until("the store answers", async || answers(&*fixture.store).await).await;
    }
    join_all((0..200).map(|_| fixture.store.ping())).await;
    let clients = fixture.redis.cli(&["CLIENT", "LIST"]).await;
    let ours = clients.lines().filter(|line| line.starts_with("id=") && !line.contains("cmd=client"));
    assert_eq!(ours.count(), LANES_PER_SERVER, "{clients}");
}

#[tokio::test]
async fn a_load_whose_answer_is_lost_is_sent_once() {
    let redis = Redis::start().await;
    // Only the load is ever sent as a text.
    let proxy = Proxy::losing(&redis, "opens an item under a lease").await;
    let store = store(&proxy.url());
    let item = item("widget");
    let probe = store.probe(&item).await.expect("only loads are lost");
    let lease = |epoch| Lease { item: item.clone(), epoch: Epoch(epoch), received: 10, sold: 0 };
    store.load(&lease(1), &probe.incarnation).await.expect_err("the answer is lost");
    assert_eq!(redis.cli(&["GET", "widget"]).await.trim(), "10", "although it was done");
    redis.cli(&["FLUSHALL"]).await;
    until("the store answers", async || answers(&*store).await).await;
    tokio::time::sleep(Duration::from_millis(RESPONSE_TIMEOUT_MS)).await;
    assert_eq!(proxy.count(), 1);
    assert_eq!(store.available(&item).await.expect("it answers"), StockReply::NotOpen, "the wiped item stays wiped");
    proxy.mend();
    assert_eq!(store.load(&lease(2), &probe.incarnation).await.expect("it answers"), LoadReply::Loaded);
    assert_eq!(proxy.count(), 2);
}

#[tokio::test]
async fn a_load_to_a_redis_that_hangs_is_sent_once() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::new(&fixture);
    let probe = stage.store.probe(&stage.item).await.expect("it answers");
    let lease = Lease { item: stage.item.clone(), epoch: Epoch(1), received: 10, sold: 0 };
    fixture.redis.pause();
    stage.store.load(&lease, &probe.incarnation).await.expect_err("nothing answers");
    fixture.redis.resume();
    until("it was done after all", async || fixture.redis.cli(&["GET", "widget"]).await.trim() == "10").await;
    fixture.wipe().await;
    until("the store answers", async || answers(&*fixture.store).await).await;
    assert_eq!(stage.available().await, StockReply::NotOpen, "and not again");
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_sent_again() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 10, 0).await;
    for number in 1..=3 {
        assert_eq!(fixture.redis.cli(&["SCRIPT", "FLUSH"]).await.trim(), "OK");
        let stamp = stage.held(id(number), 1).await;
        assert_eq!(fixture.redis.cli(&["SCRIPT", "FLUSH"]).await.trim(), "OK");
        assert_eq!(stage.due().await, []);
        assert_eq!(stage.confirm(id(number), &stamp).await, ConfirmReply::Confirmed);
    }
    assert_eq!(stage.numbers().await, (10, 7, 0, 3, 0));
}

#[tokio::test]
async fn a_redis_that_evicts_is_refused() {
    let redis = Redis::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let store = store(&redis.url());
    let error = store.ping().await.expect_err("it would throw holds away").to_string();
    assert!(error.contains("maxmemory-policy is allkeys-lru: set noeviction"), "{error}");
    assert!(store.available(&item("widget")).await.is_err());
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    until("the store answers", async || answers(&*store).await).await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    assert!(store.ping().await.is_err(), "seen while it runs, too");
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Redis::start().await;
    let replica = master.replica().await;
    let store = store(&replica.url());
    let error = store.ping().await.expect_err("nothing can be written there").to_string();
    assert!(error.contains("no master"), "{error}");
    assert!(store.probe(&item("widget")).await.is_err(), "no lease is asked for");
    assert!(store.available(&item("widget")).await.is_err());
}

#[tokio::test]
async fn a_master_that_becomes_a_replica_changes_nothing_and_is_left() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 10, 0).await;
    let stamp = stage.held(id(1), 3).await;
    let other = Redis::start().await;
    fixture.redis.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    let refused = stage.store.reserve(&stage.request(id(2), 1)).await;
    assert!(matches!(refused, Err(_) | Ok(ReserveReply::NotOpen)), "{refused:?}");
    assert!(stage.store.probe(&stage.item).await.is_err(), "no lease is asked for");
    assert!(stage.store.ping().await.is_err());
    assert!(stage.store.confirm(id(1), &stamp).await.is_err());
}

#[tokio::test]
async fn a_full_redis_takes_no_holds_but_settles_those_it_has() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 10, 0).await;
    let (sold, freed) = (stage.held(id(1), 3).await, stage.held(id(2), 2).await);
    let probe = stage.store.probe(&stage.item).await.expect("it answers");
    fixture.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let before = stage.counts().await;
    assert!(stage.store.ping().await.is_err());
    for request in [stage.request(id(3), 1), stage.client_request(id(3), 1)] {
        let error = stage.store.reserve(&request).await.expect_err("there is no room").to_string();
        assert!(error.contains("OOM"), "{error}");
    }
    let lease = Lease { item: stage.item.clone(), epoch: Epoch(6), received: 9, sold: 0 };
    assert!(stage.store.load(&lease, &probe.incarnation).await.is_err());
    assert_eq!(stage.counts().await, before, "nothing is half written");
    fixture.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    until("it is connected to, full as it is", async || stage.store.available(&stage.item).await.is_ok()).await;
    assert_eq!(stage.available().await, StockReply::Available(5));
    assert_eq!(stage.confirm(id(1), &sold).await, ConfirmReply::Confirmed);
    assert_eq!(stage.release_marked(id(2), &freed).await, ReleaseReply::Released);
    assert_eq!(stage.numbers().await, (10, 7, 0, 3, 0));
}

/// It is not ready, and no lease is asked for that could not be loaded; why, in the server's words.
async fn takes_no_writes(fixture: &SingleFixture, why: &str) {
    let stage = Stage::new(fixture);
    let not_ready = stage.store.ping().await.expect_err(why).to_string();
    let not_probed = stage.store.probe(&stage.item).await.expect_err(why).to_string();
    assert!(not_ready.contains(why) && not_probed.contains(why), "{not_ready}\n{not_probed}");
    assert!(not_ready.contains(&fixture.redis.port().to_string()), "{not_ready}");
    assert!(stage.available().await == StockReply::Available(10), "what is there can be read");
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_not_ready_and_no_lease_is_asked_for() {
    let flags = ["--save", "3600 1", "--enable-protected-configs", "yes"];
    let fixture = SingleFixture::start_with(&flags).await;
    let set = async |name, value| assert_eq!(fixture.redis.cli(&["CONFIG", "SET", name, value]).await.trim(), "OK");
    Stage::open(&fixture, 10, 0).await;
    for (name, refusing, taking, why) in
        [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")]
    {
        set(name, refusing).await;
        takes_no_writes(&fixture, why).await;
        set(name, taking).await;
        fixture.store.ping().await.expect("it takes writes again");
        fixture.store.probe(&item("widget")).await.expect("it takes writes again");
    }
    // Nothing can be saved there.
    set("dir", "/proc").await;
    fixture.redis.cli(&["BGSAVE"]).await;
    let failed = async || fixture.redis.cli(&["INFO", "persistence"]).await.contains("rdb_last_bgsave_status:err");
    until("saving failed", failed).await;
    takes_no_writes(&fixture, "MISCONF").await;
}

#[tokio::test]
async fn asking_whether_writes_are_taken_writes_nothing() {
    let fixture = SingleFixture::start_with(&["--save", "3600 1000000"]).await;
    let stage = Stage::open(&fixture, 10, 0).await;
    let changes = async || {
        let facts = fixture.redis.cli(&["INFO", "persistence"]).await;
        facts.lines().find(|line| line.starts_with("rdb_changes_since_last_save")).expect("it counts").to_owned()
    };
    let before = (changes().await, fixture.redis.cli(&["DEBUG", "DIGEST"]).await);
    for item in [&stage.item, &item("never-seen")] {
        stage.store.probe(item).await.expect("it answers");
        stage.store.ping().await.expect("it answers");
    }
    assert_eq!((changes().await, fixture.redis.cli(&["DEBUG", "DIGEST"]).await), before);
}

#[tokio::test]
async fn a_redis_far_away_is_connected_to() {
    let redis = Redis::start().await;
    let proxy = Proxy::far(&redis, Duration::from_millis(30)).await;
    let store = store(&proxy.url());
    until("the store answers", async || answers(&*store).await).await;
}
