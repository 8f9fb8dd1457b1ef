//! Confirm and release: once, by stamp; and the markers.

use super::{Edit, Stage, StockFixture, id, stamp_of};
use crate::stock::{ConfirmReply, LoadReply, ReleaseReply, ReserveReply, StockReply};

/// Held becomes sold.
pub async fn a_confirm_sells_the_hold_once(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 1).await;
    let stamp = stage.held(id(1), 3).await;
    stage.held(id(2), 2).await;
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed);
    assert_eq!(stage.numbers().await, (10, 4, 2, 4, 1));
    for _ in 0..3 {
        assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::AlreadyDone);
    }
    assert_eq!(stage.numbers().await, (10, 4, 2, 4, 1));
    assert_eq!(stage.hold(id(1)).await, None);
    assert!(stage.hold(id(2)).await.is_some());
}

/// Held becomes available.
pub async fn a_release_gives_the_units_back_once(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 1).await;
    let stamp = stage.held(id(1), 3).await;
    stage.held(id(2), 2).await;
    assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::Released);
    assert_eq!(stage.numbers().await, (10, 7, 2, 1, 1));
    for _ in 0..3 {
        assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::Absent);
        assert_eq!(stage.release_marked(id(1), &stamp).await, ReleaseReply::Absent);
    }
    assert_eq!(stage.numbers().await, (10, 7, 2, 1, 1));
}

/// A hold is found by its whole stamp: one of another number under the same id is somebody else's.
pub async fn a_hold_of_another_number_is_left_alone(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let first = stage.held(id(1), 3).await;
    assert_eq!(stage.release(id(1), &first).await, ReleaseReply::Released);
    let second = stage.held(id(1), 3).await;
    assert_ne!(first, second);
    assert_eq!(stage.confirm(id(1), &first).await, ConfirmReply::AlreadyDone);
    assert_eq!(stage.release(id(1), &first).await, ReleaseReply::Absent);
    assert_eq!(stage.release_marked(id(1), &first).await, ReleaseReply::Absent);
    assert_eq!(stage.numbers().await, (10, 7, 3, 0, 1));
    assert_eq!(stage.held(id(1), 3).await, second, "no marker hides it");
    assert_eq!(stage.confirm(id(1), &second).await, ConfirmReply::Confirmed);
}

/// What was never held has nothing to confirm or release, whatever number is named.
pub async fn an_unknown_id_is_nothing_to_settle(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let before = stage.counts().await;
    for number in [-1, 0, 1, i64::MAX] {
        assert_eq!(stage.confirm(id(1), &stage.stamp(5, number)).await, ConfirmReply::AlreadyDone);
        assert_eq!(stage.release(id(1), &stage.stamp(5, number)).await, ReleaseReply::Absent);
    }
    assert_eq!(stage.counts().await, before);
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(5, 1), "no marker was left");
}

/// A lease older than the item's has counted the order, or freed the hold.
pub async fn a_stamp_of_an_older_epoch_is_superseded(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let old = stage.held(id(1), 3).await;
    assert_eq!(stage.load(6, 10, 3).await, LoadReply::Loaded);
    let new = stage.held(id(1), 3).await;
    assert_eq!(old.number, new.number, "only the epoch tells them apart");
    assert_eq!(stage.confirm(id(1), &old).await, ConfirmReply::Superseded);
    assert_eq!(stage.release(id(1), &old).await, ReleaseReply::Superseded);
    assert_eq!(stage.release_marked(id(1), &old).await, ReleaseReply::Superseded);
    assert_eq!(stage.numbers().await, (10, 4, 3, 3, 1));
    assert_eq!(stage.held(id(1), 3).await, new, "no marker hides it");
    assert_eq!(stage.release_marked(id(2), &stage.stamp(4, 1)).await, ReleaseReply::Superseded);
    assert_eq!(stage.held(id(2), 1).await, stage.stamp(6, 2), "no marker was left");
}

/// A store that is behind must not confirm, and does not know the hold to release.
pub async fn a_stamp_of_a_newer_epoch_is_not_for_this_lease(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let held = stage.held(id(1), 3).await;
    let newer = stage.stamp(6, held.number);
    assert_eq!(stage.confirm(id(1), &newer).await, ConfirmReply::NotOpen);
    assert_eq!(stage.release(id(1), &newer).await, ReleaseReply::Superseded);
    assert_eq!(stage.release_marked(id(1), &newer).await, ReleaseReply::Superseded);
    assert_eq!(stage.numbers().await, (10, 7, 3, 0, 1));
    assert_eq!(stage.held(id(1), 3).await, held);
}

/// Whichever comes first decides.
pub async fn a_release_after_confirm_gives_nothing_back(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stage.held(id(1), 3).await;
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed);
    for marked in [stage.stamp(0, 0), stamp.clone()] {
        assert_eq!(stage.release(id(1), &marked).await, ReleaseReply::Absent);
        assert_eq!(stage.release_marked(id(1), &marked).await, ReleaseReply::Absent);
    }
    assert_eq!(stage.numbers().await, (10, 7, 0, 3, 0));
    assert_eq!(stamp_of(stage.reserve(id(1), 3).await), stamp, "an order is not marked as released");
}

/// Whichever comes first decides.
pub async fn a_confirm_after_release_sells_nothing(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    for (number, marked) in [(1, false), (2, true)] {
        let stamp = stage.held(id(number), 3).await;
        let released = stage.store.release(id(number), &stamp, marked).await.expect("the store answers");
        assert_eq!(released, ReleaseReply::Released);
        assert_eq!(stage.confirm(id(number), &stamp).await, ConfirmReply::AlreadyDone);
    }
    assert_eq!(stage.numbers().await, (10, 10, 0, 0, 0));
}

/// An id that is aborted is not held again while its marker lasts; one whose hold was surplus may be.
pub async fn only_a_marked_release_refuses_the_id_afterwards(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stage.held(id(1), 3).await;
    assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::Released);
    let again = stage.held(id(1), 3).await;
    assert_eq!(stage.release_marked(id(1), &again).await, ReleaseReply::Released);
    assert_eq!(stage.reserve(id(1), 3).await, ReserveReply::Released);
    assert_eq!(stage.reserve(id(1), 4).await, ReserveReply::Released);
    assert_eq!(stage.numbers().await, (10, 10, 0, 0, 0));
}

/// A stamp that names no hold releases none: nobody asked for that hold's verdict. And it leaves no marker over it.
pub async fn a_marker_never_hides_a_hold(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stage.held(id(1), 3).await;
    for epoch in [0, 4, 5, 6] {
        assert_eq!(stage.release_marked(id(1), &stage.stamp(epoch, 0)).await, ReleaseReply::Absent, "{epoch}");
        assert_eq!(stage.release(id(1), &stage.stamp(epoch, 0)).await, ReleaseReply::Absent, "{epoch}");
    }
    assert_eq!(stage.release_marked(id(1), &stage.stamp(5, stamp.number + 1)).await, ReleaseReply::Absent);
    assert_eq!(stage.numbers().await, (10, 7, 3, 0, 1));
    assert_eq!(stage.held(id(1), 3).await, stamp);
    assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::Released);
    assert_eq!(stage.held(id(1), 3).await.number, stamp.number + 1, "no marker was left beside it either");
}

/// A marker is its item's and its lease's.
pub async fn a_marker_binds_one_item_under_one_lease(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let gadget = stage.other("gadget");
    assert_eq!(gadget.load(1, 10, 0).await, LoadReply::Loaded);
    assert_eq!(stage.release_marked(id(1), &stage.stamp(7, 0)).await, ReleaseReply::Absent, "whatever epoch it names");
    assert_eq!(stage.reserve(id(1), 1).await, ReserveReply::Released);
    assert_eq!(gadget.held(id(1), 1).await, gadget.stamp(1, 1));
    assert_eq!(stage.load(6, 10, 0).await, LoadReply::Loaded);
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(6, 1));
}

/// Numbers that add up do not hide a hold whose units are not there.
pub async fn a_hold_that_does_not_fit_its_numbers_is_not_settled(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stage.held(id(1), 5).await;
    fixture.edit(&stage.item, Edit::Held(-2)).await;
    fixture.edit(&stage.item, Edit::Available(2)).await;
    let before = stage.counts().await;
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::NotOpen);
    assert_eq!(stage.release_marked(id(1), &stamp).await, ReleaseReply::NotOpen);
    assert_eq!(stage.counts().await, before);
    assert_eq!(stage.available().await, StockReply::Available(7));
}
