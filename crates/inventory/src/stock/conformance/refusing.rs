//! An item with something of everything, and how every method refuses once it is not open.

use std::time::Duration;

use contracts::values::Epoch;

use super::{Stage, StockFixture, id};
use crate::stock::{ConfirmReply, Counts, Found, LoadReply, ReleaseReply, ReserveReply, RestockReply, StockReply};

/// Held by a client, with a hint.
pub const HELD: u64 = 1;
/// Confirmed.
pub const CONFIRMED: u64 = 2;
/// Released, with a marker.
pub const RELEASED: u64 = 3;
/// Held, and due.
pub const DUE: u64 = 4;
/// Never used.
pub const UNKNOWN: u64 = 5;
/// A restock that was applied.
pub const RESTOCK: u64 = 1;

/// An item with something of everything, under epoch 5.
pub async fn busy(fixture: &dyn StockFixture) -> Stage {
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
pub async fn refuses_everything(stage: &Stage, stored: Epoch) {
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
