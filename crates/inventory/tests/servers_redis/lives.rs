//! Failover, failback, restart: data of another life never counts.

use contracts::values::{Epoch, Stamp};
use inventory::stock::{
    ConfirmReply, LoadReply, ReleaseReply, ReserveReply, ReserveRequest, StockReply, StockStore,
    conformance::{Edit, Stage, StockFixture, id},
};

use crate::fixture::{ClusterFixture, PairFixture, SingleFixture, until};

/// The item is there and belongs to a life that is over.
async fn is_over(stage: &Stage, old: &Stamp) {
    assert!(stage.counts().await.holds > 0, "the old data is there");
    assert_eq!(stage.available().await, StockReply::NotOpen);
    assert_eq!(stage.reserve(id(1), 30).await, ReserveReply::NotOpen, "not even the hold that it was");
    assert_eq!(stage.reserve(id(9), 1).await, ReserveReply::NotOpen);
    assert_eq!(stage.confirm(id(1), old).await, ConfirmReply::NotOpen);
    assert_eq!(stage.release_marked(id(1), old).await, ReleaseReply::NotOpen);
    assert_eq!(stage.hold(id(1)).await, None);
    assert_eq!(stage.due().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_made_before_a_failover_and_failback_never_count() {
    let fixture = PairFixture::start().await;
    let stage = Stage::open(&fixture, 100, 0).await;
    let first = fixture.master().await.port();
    let old = stage.held(id(1), 30).await;
    fixture.new_incarnation().await;
    assert_ne!(fixture.master().await.port(), first);
    is_over(&stage, &old).await;
    assert_eq!(stage.load(6, 100, 0).await, LoadReply::Loaded);
    let newer = stage.held(id(1), 30).await;
    assert_eq!(stage.held(id(2), 70).await.number, 2);

    until("the old master follows the new one", async || fixture.followed().await).await;
    fixture.new_incarnation().await;
    assert_eq!(fixture.master().await.port(), first, "failed back");
    is_over(&stage, &newer).await;
    assert_eq!(stage.load(7, 100, 0).await, LoadReply::Loaded);
    for stamp in [&old, &newer] {
        assert_eq!(stage.confirm(id(1), stamp).await, ConfirmReply::Superseded);
        assert_eq!(stage.release(id(1), stamp).await, ReleaseReply::Superseded);
    }
    assert_eq!(stage.numbers().await, (100, 100, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_replaced_and_what_it_has_when_it_wakes_does_not_count() {
    let fixture = PairFixture::start().await;
    let stage = Stage::open(&fixture, 100, 0).await;
    stage.held(id(1), 30).await;
    let [old, new] = &fixture.servers;
    fixture.caught_up().await;
    // A store that was not told of the failover, on the old master.
    let behind = Stage { store: crate::fixture::store(&old.url()), item: stage.item.clone() };
    assert_eq!(behind.available().await, StockReply::Available(70));
    old.pause();
    until("the store answers from the new master", async || stage.store.probe(&stage.item).await.is_ok()).await;
    assert!(new.cli(&["ROLE"]).await.starts_with("master"));
    assert_eq!(stage.available().await, StockReply::NotOpen);
    assert_eq!(stage.load(6, 100, 0).await, LoadReply::Loaded);
    let held = stage.held(id(2), 60).await;
    old.resume();
    // Until a Sentinel makes it a replica it goes on under the old epoch, which the ledger fences; who knows better is
    // refused, and afterwards everybody is.
    let knowing = ReserveRequest { least_epoch: Epoch(6), ..behind.request(id(3), 1) };
    if let Ok(reply) = behind.store.reserve(&knowing).await {
        assert_eq!(reply, ReserveReply::NotOpen);
    }
    until("the old master follows the new one", async || fixture.followed().await).await;
    assert!(behind.store.probe(&behind.item).await.is_err(), "no lease is asked for");
    assert_eq!(stage.confirm(id(2), &held).await, ConfirmReply::Confirmed);
    assert_eq!(stage.numbers().await, (100, 40, 0, 60, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_replaced() {
    let fixture = PairFixture::start().await;
    let stage = Stage::open(&fixture, 100, 0).await;
    let old = stage.held(id(1), 30).await;
    fixture.caught_up().await;
    fixture.servers[0].kill().await;
    until("the store answers from the new master", async || stage.store.probe(&stage.item).await.is_ok()).await;
    is_over(&stage, &old).await;
    assert_eq!(stage.load(6, 100, 0).await, LoadReply::Loaded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_finds_its_data_is_another_life() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 100, 0).await;
    let old = stage.held(id(1), 30).await;
    fixture.new_incarnation().await;
    is_over(&stage, &old).await;
    fixture.edit(&stage.item, Edit::Sold(0)).await;
    assert_eq!(stage.load(6, 100, 0).await, LoadReply::Loaded);
    assert_eq!(stage.held(id(1), 30).await, stage.stamp(6, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_node_that_is_killed_costs_its_slots_only_and_comes_back() {
    let fixture = ClusterFixture::start().await;
    let widget = Stage::open(&fixture, 100, 0).await;
    let lost = fixture.owner(&widget.item);
    lost.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    for node in &fixture.cluster.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    }
    let names = (0..).map(|number| widget.other(&format!("item-{number}")));
    let elsewhere = names.into_iter().find(|other| fixture.owner(&other.item).port() != lost.port()).expect("some");
    assert_eq!(elsewhere.load(1, 10, 0).await, LoadReply::Loaded);
    lost.kill().await;
    for number in 0..50 {
        assert!(widget.store.available(&widget.item).await.is_err());
        elsewhere.held(id(number % 10), 1).await;
    }
    widget.store.ping().await.expect("what the others have can be sold");
    let open = widget.store.open_items(None).await.expect("two of three answer");
    assert_eq!(open, [(elsewhere.item.clone(), Epoch(1))]);
    assert_eq!(widget.due().await, []);
    lost.start_again().await;
    fixture.cluster.wait_until_whole().await;
    until("the store answers", async || widget.store.available(&widget.item).await.is_ok()).await;
    widget.store.ping().await.expect("it is whole");
    assert_eq!(widget.available().await, StockReply::NotOpen, "it kept nothing");
    assert_eq!(widget.load(6, 100, 0).await, LoadReply::Loaded);
    assert_eq!(elsewhere.counts().await.holds, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lacks_a_slot_and_refuses_everything_is_not_ready() {
    let fixture = ClusterFixture::start().await;
    fixture.store.ping().await.expect("it is whole");
    for node in &fixture.cluster.nodes {
        assert_eq!(node.cli(&["CLUSTER", "DELSLOTS", "0"]).await.trim(), "OK");
    }
    until("nothing can be sold", async || fixture.store.ping().await.is_err()).await;
    let error = fixture.store.ping().await.expect_err("nothing can be sold").to_string();
    assert!(error.contains("ClusterDown"), "{error}");
    assert!(fixture.cluster.nodes.iter().all(|node| error.contains(&format!("{}: ", node.port()))), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_to_another_node_is_followed() {
    let fixture = ClusterFixture::start().await;
    let widget = Stage::open(&fixture, 100, 0).await;
    let old = widget.held(id(1), 1).await;
    let slot = inventory::stock::redis::keys::slot("widget").to_string();
    let from = fixture.owner(&widget.item);
    let to = fixture.cluster.nodes.iter().find(|node| node.port() != from.port()).expect("three");
    let to_id = to.cli(&["CLUSTER", "MYID"]).await;
    from.cli(&["FLUSHALL"]).await;
    for node in [to, from] {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", to_id.trim()]).await.trim(), "OK");
    }
    until("the store answers", async || widget.store.probe(&widget.item).await.is_ok()).await;
    assert_eq!(widget.available().await, StockReply::NotOpen);
    assert_eq!(widget.load(6, 100, 0).await, LoadReply::Loaded);
    assert_eq!(widget.confirm(id(1), &old).await, ConfirmReply::Superseded);
    assert_eq!(to.cli(&["GET", "widget"]).await.trim(), "100");
    for node in &fixture.cluster.nodes {
        node.cli(&["CONFIG", "RESETSTAT"]).await;
    }
    widget.store.ping().await.expect("it answers");
    for node in &fixture.cluster.nodes {
        let calls = node.cli(&["INFO", "commandstats"]).await;
        assert!(calls.contains("cmdstat_info:calls=4,"), "once, however many runs of slots it has: {calls}");
    }
}
