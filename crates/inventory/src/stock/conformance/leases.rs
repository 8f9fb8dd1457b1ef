//! Loads, epochs and restocks.

use std::time::Duration;

use contracts::values::{Epoch, Lease};

use super::{Stage, StockFixture, id};
use crate::stock::{ConfirmReply, Incarnation, LoadReply, ReleaseReply, ReserveReply, RestockReply, StockReply};

/// A lease is what it says.
pub async fn a_load_opens_the_item(fixture: &dyn StockFixture) {
    let stage = Stage::new(fixture);
    assert_eq!(stage.load(1, 100, 30).await, LoadReply::Loaded);
    assert_eq!(stage.numbers().await, (100, 70, 0, 30, 0));
    assert_eq!(stage.counts().await.epoch, Epoch(1));
    let probe = stage.store.probe(&stage.item).await.expect("the store answers");
    assert!(probe.open);
    assert_eq!(probe.stored, Epoch(1));
}

/// A lease is good for one load, and so is every older one.
pub async fn an_epoch_is_loaded_once(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stage.held(id(1), 3).await;
    for epoch in [5, 4, 1, 0, -1, i64::MIN] {
        assert_eq!(stage.load(epoch, 99, 0).await, LoadReply::Refused, "{epoch}");
    }
    assert_eq!(stage.numbers().await, (10, 7, 3, 0, 1), "a refused load changes nothing");
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed);
}

/// Epoch 0 stands for no lease at all.
pub async fn no_lease_is_no_lease(fixture: &dyn StockFixture) {
    let stage = Stage::new(fixture);
    for epoch in [0, -1, i64::MIN] {
        assert_eq!(stage.load(epoch, 10, 0).await, LoadReply::Refused, "{epoch}");
    }
    assert_eq!(stage.counts_if_there().await, None);
    assert_eq!(stage.available().await, StockReply::NotOpen);
}

/// A load belongs to the life that was probed before the lease was asked for.
pub async fn a_load_of_another_incarnation_is_refused(fixture: &dyn StockFixture) {
    let stage = Stage::new(fixture);
    let before = stage.store.probe(&stage.item).await.expect("the store answers").incarnation;
    let lease = Lease { item: stage.item.clone(), epoch: Epoch(1), received: 10, sold: 0 };
    fixture.new_incarnation().await;
    for wrong in [before, Incarnation(String::new()), Incarnation("somebody else".to_owned())] {
        let reply = stage.store.load(&lease, &wrong).await.expect("the store answers");
        assert_eq!(reply, LoadReply::Refused, "{wrong:?}");
    }
    assert_eq!(stage.counts_if_there().await, None);
    assert_eq!(stage.load(1, 10, 0).await, LoadReply::Loaded, "the present one is taken");
}

/// Numbers that make no sense open nothing and destroy nothing.
pub async fn a_lease_that_makes_no_sense_is_refused(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    stage.held(id(1), 3).await;
    for (received, sold) in [(10, 11), (-1, 0), (-5, -10), (10, -1), (i64::MIN, i64::MAX)] {
        assert_eq!(stage.load(6, received, sold).await, LoadReply::Refused, "{received} {sold}");
    }
    assert_eq!(stage.numbers().await, (10, 7, 3, 0, 1));
    assert_eq!(stage.load(6, 10, 10).await, LoadReply::Loaded, "all sold is sense");
    assert_eq!(stage.load(7, 0, 0).await, LoadReply::Loaded, "so is nothing received");
    assert_eq!(stage.reserve(id(1), 1).await, ReserveReply::Insufficient { remaining: 0 });
}

/// Nothing of the item survives its next lease.
pub async fn a_load_forgets_the_lease_before(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 100, 0).await;
    stage.send(&stage.short_request(id(1), 3)).await;
    let confirmed = stage.held(id(2), 2).await;
    assert_eq!(stage.confirm(id(2), &confirmed).await, ConfirmReply::Confirmed);
    assert_eq!(stage.release_marked(id(3), &stage.stamp(0, 0)).await, ReleaseReply::Absent);
    assert_eq!(stage.restock(1, 5, 5).await, RestockReply::Counted { available: 100 });

    assert_eq!(stage.load(6, 105, 2).await, LoadReply::Loaded);
    assert_eq!(stage.numbers().await, (105, 103, 0, 2, 0));
    fixture.advance(Duration::from_millis(10)).await;
    stage.send(&stage.short_request(id(4), 1)).await;
    fixture.advance(Duration::from_millis(1_100)).await;
    assert_eq!(stage.due().await, [id(4)], "its holds are no longer due, and those of the next lease are due once");
    assert_eq!(stage.hold(id(1)).await, None);
    assert_eq!(stage.held(id(2), 9).await, stage.stamp(6, 2), "no confirmed marker is left");
    assert_eq!(stage.held(id(3), 1).await, stage.stamp(6, 3), "no release marker is left");
    assert_eq!(stage.restock(1, 5, 6).await, RestockReply::Counted { available: 97 }, "no restock's id is left");
}

/// Leases of one item say nothing about another.
pub async fn items_have_epochs_of_their_own(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let gadget = stage.other("gadget");
    assert_eq!(gadget.load(1, 20, 0).await, LoadReply::Loaded);
    assert_eq!(stage.counts().await.epoch, Epoch(5));
    assert_eq!(gadget.counts().await.epoch, Epoch(1));
    assert_eq!(gadget.numbers().await, (20, 20, 0, 0, 0));
}

/// Once by id, however often it is sent.
pub async fn a_restock_is_applied_once(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 4).await;
    stage.held(id(1), 6).await;
    for _ in 0..3 {
        assert_eq!(stage.restock(1, 5, 5).await, RestockReply::Counted { available: 5 });
    }
    assert_eq!(stage.numbers().await, (15, 5, 6, 4, 1));
    assert_eq!(stage.restock(2, 1, 5).await, RestockReply::Counted { available: 6 }, "another id is another restock");
    stage.held(id(2), 6).await;
    assert_eq!(stage.restock(1, 5, 5).await, RestockReply::Counted { available: 0 }, "what is free now");
}

/// The lease was summed after the restock was journalled.
pub async fn a_restock_of_an_older_epoch_is_counted_already(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    for epoch in [4, 0] {
        assert_eq!(stage.restock(1, 5, epoch).await, RestockReply::Counted { available: 10 }, "{epoch}");
    }
    assert_eq!(stage.numbers().await, (10, 10, 0, 0, 0));
    assert_eq!(stage.restock(1, 5, 5).await, RestockReply::Counted { available: 15 }, "nor was its id remembered");
}

/// Skipped here, it would be counted nowhere until the next lease.
pub async fn a_restock_of_a_newer_epoch_is_not_for_this_lease(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    for epoch in [6, i64::MAX] {
        assert_eq!(stage.restock(1, 5, epoch).await, RestockReply::NotOpen, "{epoch}");
    }
    assert_eq!(stage.numbers().await, (10, 10, 0, 0, 0));
    assert_eq!(stage.load(6, 15, 0).await, LoadReply::Loaded);
    assert_eq!(stage.restock(1, 5, 5).await, RestockReply::Counted { available: 15 });
}
