//! Every method on an item that is not open: never seen, wiped, edited by hand, of another incarnation, below the least
//! epoch. It answers so, changes nothing, and a lease mends it.

use std::time::Duration;

use contracts::values::{Epoch, ReservationId};

use super::{Edit, Stage, StockFixture, id, restock_id, units};
use crate::stock::{
    ConfirmReply, Counts, Found, LoadReply, ReleaseReply, ReserveReply, ReserveRequest, RestockReply, StockReply,
};

/// Held by a client, with a hint.
const HELD: u64 = 1;
/// Confirmed.
const CONFIRMED: u64 = 2;
/// Released, with a marker.
const RELEASED: u64 = 3;
/// Held, and due.
const DUE: u64 = 4;
/// Never used.
const UNKNOWN: u64 = 5;
/// A restock that was applied.
const RESTOCK: u64 = 1;

/// An item with something of everything, under epoch 5.
async fn busy(fixture: &dyn StockFixture) -> Stage {
    let stage = Stage::open(fixture, 100, 10).await;
    stage.send(&stage.client_request(id(HELD), 3)).await;
    let confirmed = stage.held(id(CONFIRMED), 2).await;
    assert_eq!(stage.confirm(id(CONFIRMED), &confirmed).await, ConfirmReply::Confirmed);
    let released = stage.held(id(RELEASED), 1).await;
    assert_eq!(stage.release_marked(id(RELEASED), &released).await, ReleaseReply::Released);
    stage.send(&stage.short_request(id(DUE), 4)).await;
    assert_eq!(stage.restock(RESTOCK, 7, 5).await, RestockReply::Counted { available: 88 });
    fixture.advance(Duration::from_millis(1_100)).await;
    assert_eq!(stage.due().await, [id(DUE)], "the busy item is open and has a hold that is due");
    assert_eq!(stage.numbers().await, (107, 88, 7, 12, 2));
    stage
}

/// Every method says that the item is not open and leaves its numbers as they are; a new lease opens it afresh.
async fn refuses_everything(stage: &Stage, stored: Epoch) {
    let before = stage.counts_if_there().await;
    refuses_changes(stage).await;
    refuses_reads(stage, stored).await;
    assert_eq!(stage.counts_if_there().await, before, "a refusal changes nothing");
    opens_afresh(stage, before).await;
}

async fn refuses_changes(stage: &Stage) {
    for number in [HELD, CONFIRMED, RELEASED, DUE, UNKNOWN] {
        let id = id(number);
        for request in [stage.request(id, 1), stage.client_request(id, 1), stage.request(id, 1_000_000)] {
            assert_eq!(stage.send(&request).await, ReserveReply::NotOpen, "reserve {number}");
        }
        for stamp in [stage.stamp(5, 1), stage.stamp(5, 9), stage.stamp(4, 1), stage.stamp(6, 1)] {
            assert_eq!(stage.confirm(id, &stamp).await, ConfirmReply::NotOpen, "confirm {number} {stamp:?}");
            assert_eq!(stage.release(id, &stamp).await, ReleaseReply::NotOpen, "release {number} {stamp:?}");
            assert_eq!(stage.release_marked(id, &stamp).await, ReleaseReply::NotOpen, "release {number} {stamp:?}");
        }
        assert_eq!(stage.release_marked(id, &stage.stamp(0, 0)).await, ReleaseReply::NotOpen, "marker {number}");
    }
    for (number, epoch) in [(RESTOCK, 5), (2, 4), (2, 5), (2, 6)] {
        assert_eq!(stage.restock(number, 7, epoch).await, RestockReply::NotOpen, "restock {number} at {epoch}");
    }
}

async fn refuses_reads(stage: &Stage, stored: Epoch) {
    assert_eq!(stage.available().await, StockReply::NotOpen);
    for number in [HELD, CONFIRMED, RELEASED, DUE, UNKNOWN] {
        assert_eq!(stage.hold(id(number)).await, None, "hold {number}");
    }
    let found = stage.store.find(id(HELD)).await.expect("the store answers");
    let no_hold = Found { item: stage.item.clone(), hold: None };
    assert!(found.is_none() || found == Some(no_hold), "{found:?}");
    assert_eq!(stage.due().await, []);
    assert_eq!(stage.store.open_items(None).await.expect("the store answers"), []);
    stage.store.ping().await.expect("the store answers");
    let probe = stage.store.probe(&stage.item).await.expect("the store answers");
    assert!(!probe.open);
    assert_eq!(probe.stored, stored);
}

async fn opens_afresh(stage: &Stage, before: Option<Counts>) {
    if let Some(Counts { epoch, .. }) = before {
        assert_eq!(stage.load(epoch.0, 50, 20).await, LoadReply::Refused, "an epoch as high is stored");
        assert_eq!(stage.load(epoch.0 - 1, 50, 20).await, LoadReply::Refused, "a higher epoch is stored");
        assert_eq!(stage.counts_if_there().await, before, "a refused load changes nothing");
    }
    assert_eq!(stage.load(6, 50, 20).await, LoadReply::Loaded);
    assert_eq!(stage.numbers().await, (50, 30, 0, 20, 0), "nothing is left of what was there");
    assert_eq!(stage.confirm(id(HELD), &stage.stamp(5, 1)).await, ConfirmReply::Superseded);
    assert_eq!(stage.release(id(HELD), &stage.stamp(5, 1)).await, ReleaseReply::Superseded);
    for (index, number) in [HELD, CONFIRMED, RELEASED, DUE].into_iter().enumerate() {
        let expected = stage.stamp(6, i64::try_from(index).expect("small") + 1);
        assert_eq!(stage.held(id(number), 1).await, expected, "no hold and no marker is left");
    }
    assert_eq!(stage.restock(RESTOCK, 7, 6).await, RestockReply::Counted { available: 33 }, "nor a restock's id");
}

/// Nothing was ever known of the item.
pub async fn an_item_never_seen_refuses_everything(fixture: &dyn StockFixture) {
    let stage = Stage::new(fixture);
    refuses_everything(&stage, Epoch::NONE).await;
}

/// Everything was deleted, within the same incarnation.
pub async fn a_wiped_item_refuses_everything(fixture: &dyn StockFixture) {
    let stage = busy(fixture).await;
    fixture.wipe().await;
    assert_eq!(stage.counts_if_there().await, None);
    assert_eq!(stage.store.find(id(HELD)).await.expect("the store answers"), None, "hints are wiped as well");
    refuses_everything(&stage, Epoch::NONE).await;
}

/// The data is that of an earlier life.
pub async fn an_item_of_another_incarnation_refuses_everything(fixture: &dyn StockFixture) {
    let stage = busy(fixture).await;
    let before = stage.store.probe(&stage.item).await.expect("the store answers");
    fixture.new_incarnation().await;
    let after = stage.store.probe(&stage.item).await.expect("the store answers");
    assert_ne!(before.incarnation, after.incarnation);
    refuses_everything(&stage, Epoch(5)).await;
}

async fn edited(fixture: &dyn StockFixture, edit: Edit) {
    let stage = busy(fixture).await;
    fixture.edit(&stage.item, edit).await;
    refuses_everything(&stage, Epoch(5)).await;
}

/// Units were conjured up.
pub async fn more_available_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::Available(2)).await;
}

/// Units were taken away.
pub async fn less_available_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::Available(-3)).await;
}

/// Units received that nobody has.
pub async fn received_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::Received(3)).await;
}

/// Units held that nobody has.
pub async fn held_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::Held(1)).await;
}

/// Units sold that nobody has.
pub async fn sold_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::Sold(-1)).await;
}

/// Holds counted that are not there.
pub async fn a_counter_set_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::Counter(1)).await;
}

/// A hold is gone, its units are held for ever.
pub async fn a_hold_deleted_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::DropHold(id(HELD))).await;
}

/// A hold would never be due.
pub async fn a_deadline_deleted_by_hand_refuses_everything(fixture: &dyn StockFixture) {
    edited(fixture, Edit::DropDue(id(HELD))).await;
}

/// Sums that add up do not hide a number below zero.
pub async fn a_number_below_zero_refuses_everything(fixture: &dyn StockFixture) {
    let stage = busy(fixture).await;
    fixture.edit(&stage.item, Edit::Available(-100)).await;
    fixture.edit(&stage.item, Edit::Sold(100)).await;
    let counts = stage.counts().await;
    assert_eq!(counts.received, counts.available + counts.held + counts.sold, "it does add up");
    refuses_everything(&stage, Epoch(5)).await;
}

/// Hold, deadline and count go together, and still the held units say that a hold is missing.
pub async fn fewer_units_held_than_holds_refuses_everything(fixture: &dyn StockFixture) {
    let stage = busy(fixture).await;
    fixture.edit(&stage.item, Edit::Held(-6)).await;
    fixture.edit(&stage.item, Edit::Available(6)).await;
    refuses_everything(&stage, Epoch(5)).await;
}

/// A reserve that asks for a newer epoch is refused by an item that is open for everyone else.
pub async fn an_item_below_the_least_epoch_is_not_open(fixture: &dyn StockFixture) {
    let stage = busy(fixture).await;
    let before = stage.counts().await;
    let asking = |id: ReservationId, least: i64| ReserveRequest {
        least_epoch: Epoch(least),
        quantity: units(3),
        ..stage.client_request(id, 1)
    };
    for number in [HELD, CONFIRMED, RELEASED, UNKNOWN] {
        assert_eq!(stage.send(&asking(id(number), 6)).await, ReserveReply::NotOpen, "{number}");
    }
    assert_eq!(stage.counts().await, before);
    assert_eq!(stage.store.find(id(UNKNOWN)).await.expect("the store answers"), None, "no hint is left");
    assert_eq!(super::stamp_of(stage.send(&asking(id(HELD), 5)).await), stage.stamp(5, 1), "at the least epoch");
    assert_eq!(super::stamp_of(stage.send(&asking(id(UNKNOWN), 4)).await), stage.stamp(5, 5), "above it");
}

/// One item's trouble is not another's.
pub async fn other_items_stay_open(fixture: &dyn StockFixture) {
    let stage = busy(fixture).await;
    let gadget = stage.other("gadget");
    assert_eq!(gadget.load(1, 9, 0).await, LoadReply::Loaded);
    fixture.edit(&stage.item, Edit::Available(1)).await;
    assert_eq!(stage.available().await, StockReply::NotOpen);
    assert_eq!(gadget.available().await, StockReply::Available(9));
    assert_eq!(gadget.held(id(UNKNOWN), 9).await, gadget.stamp(1, 1));
    let restocked = gadget.store.restock(restock_id(1), &gadget.item, units(1), Epoch(1)).await;
    assert_eq!(restocked.expect("the store answers"), RestockReply::Counted { available: 1 });
}
