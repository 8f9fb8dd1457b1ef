//! Every method on an item that is not open: never seen, wiped, edited by hand, of another incarnation, below the least
//! epoch. It answers so, changes nothing, and a lease mends it.

use contracts::values::{Epoch, ReservationId};

use super::{
    Edit, Stage, StockFixture, id,
    refusing::{CONFIRMED, HELD, RELEASED, UNKNOWN, busy, refuses_everything},
    restock_id, units,
};
use crate::stock::{LoadReply, ReserveReply, ReserveRequest, RestockReply, StockReply};

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
