//! Reserve and its repeats.

use std::sync::Arc;

use contracts::values::{Item, Ttl};
use futures::future::join_all;

use super::{PAST_TTL, Stage, StockFixture, id, item, stamp_of};
use crate::stock::{
    ConfirmReply, Found, LoadReply, ReleaseReply, ReserveReply, ReserveRequest, StockReply, StockStore,
};

fn deadline_of(reply: &ReserveReply) -> i64 {
    match reply {
        ReserveReply::Held { deadline, .. } => deadline.0,
        ReserveReply::Insufficient { .. }
        | ReserveReply::Released
        | ReserveReply::Mismatch
        | ReserveReply::Overdue
        | ReserveReply::NotOpen => panic!("not held: {reply:?}"),
    }
}

fn lasting(request: ReserveRequest, seconds: i64) -> ReserveRequest {
    ReserveRequest { ttl: Ttl::parse_seconds(seconds).expect("within range"), ..request }
}

/// Available becomes held, and the answer says what it says.
pub async fn a_reserve_holds_units(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 100, 10).await;
    let reply = stage.reserve(id(1), 3).await;
    let ReserveReply::Held { stamp, remaining, deadline } = reply else { panic!("not held: {reply:?}") };
    assert_eq!((stamp.clone(), remaining), (stage.stamp(5, 1), 87));
    assert_eq!(stage.numbers().await, (100, 87, 3, 10, 1));
    let hold = stage.hold(id(1)).await.expect("it is held");
    assert_eq!((hold.id, hold.stamp, hold.quantity.get(), hold.deadline), (id(1), stamp, 3, deadline));
    assert_eq!(stage.available().await, StockReply::Available(87));
}

/// The same reserve again: same answer, one hold.
pub async fn a_repeated_reserve_answers_the_same_hold(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 100, 0).await;
    let first = stage.held(id(1), 3).await;
    stage.held(id(2), 5).await;
    for _ in 0..3 {
        assert_eq!(stage.held(id(1), 3).await, first);
    }
    assert_eq!(stage.numbers().await, (100, 92, 8, 0, 2));
    assert_eq!(stage.held(id(3), 1).await.number, 3, "repeats use up no number");
}

/// A hold takes all there is; its repeat does not need as much again.
pub async fn a_repeat_needs_no_units(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 3, 0).await;
    let first = stage.held(id(1), 3).await;
    assert_eq!(stage.held(id(1), 3).await, first);
    assert_eq!(stage.available().await, StockReply::Available(0));
}

/// A deadline that was promised is kept, and a later one replaces it.
pub async fn a_repeat_lengthens_the_deadline_at_most(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 100, 0).await;
    let first = deadline_of(&stage.send(&lasting(stage.request(id(1), 1), 600)).await);
    let shorter = deadline_of(&stage.send(&lasting(stage.request(id(1), 1), 1)).await);
    assert_eq!(shorter, first);
    let longer = deadline_of(&stage.send(&lasting(stage.request(id(1), 1), 1_200)).await);
    assert!((600_000_000..660_000_000).contains(&(longer - first)), "{longer} {first}");
    assert_eq!(stage.hold(id(1)).await.expect("held").deadline.0, longer);
    assert_eq!(stage.numbers().await, (100, 99, 1, 0, 1));
}

/// An id stands for one quantity.
pub async fn another_quantity_is_a_mismatch(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    stage.held(id(1), 3).await;
    for quantity in [1, 2, 4, 1_000_000] {
        assert_eq!(stage.reserve(id(1), quantity).await, ReserveReply::Mismatch, "{quantity}");
    }
    assert_eq!(stage.numbers().await, (10, 7, 3, 0, 1));
}

/// A client's id stands for one item.
pub async fn another_item_is_a_mismatch_by_the_hint(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let gadget = stage.other("gadget");
    assert_eq!(gadget.load(1, 10, 0).await, LoadReply::Loaded);
    stage.send(&stage.client_request(id(1), 3)).await;
    assert_eq!(gadget.send(&gadget.client_request(id(1), 3)).await, ReserveReply::Mismatch);
    assert_eq!(gadget.numbers().await, (10, 10, 0, 0, 0));
    let found = stage.store.find(id(1)).await.expect("the store answers").expect("the hint stays");
    assert_eq!((found.item, found.hold), (stage.item.clone(), stage.hold(id(1)).await));
}

/// Until the ledger has judged an overdue hold, nobody else knows that its id ever was.
pub async fn a_hint_outlives_its_hold(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    stage.send(&ReserveRequest { hint: true, ..stage.short_request(id(1), 3) }).await;
    fixture.advance(PAST_TTL).await;
    let hold = stage.hold(id(1)).await.expect("nobody has judged it");
    let stamp = hold.stamp.clone();
    let found = stage.store.find(id(1)).await.expect("the store answers");
    assert_eq!(found, Some(Found { item: stage.item.clone(), hold: Some(hold) }));
    assert_eq!(stage.release_marked(id(1), &stamp).await, ReleaseReply::Released);
    let found = stage.store.find(id(1)).await.expect("the store answers");
    assert_eq!(found, Some(Found { item: stage.item.clone(), hold: None }));
}

/// Whoever lists what is due may have asked for the verdict already: a later deadline would be promised in vain.
pub async fn a_client_s_hold_is_over_at_its_deadline(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    stage.send(&ReserveRequest { hint: true, ..stage.short_request(id(1), 3) }).await;
    fixture.advance(PAST_TTL).await;
    let (counts, hold) = (stage.counts().await, stage.hold(id(1)).await);
    for quantity in [3, 4] {
        assert_eq!(stage.send(&stage.client_request(id(1), quantity)).await, ReserveReply::Overdue, "{quantity}");
    }
    assert_eq!((stage.counts().await, stage.hold(id(1)).await), (counts, hold), "nothing changed");
    assert_eq!(stage.due().await, [id(1)]);
}

/// Nobody was told its deadline, and its order may be at the commit.
pub async fn a_hold_of_an_order_under_way_goes_on_past_its_deadline(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let first = stamp_of(stage.send(&stage.short_request(id(1), 3)).await);
    fixture.advance(PAST_TTL).await;
    assert_eq!(stage.held(id(1), 3).await, first);
    assert_eq!(stage.due().await, []);
}

/// Orders under way are not found by id: nobody asks, and a hint is a write more.
pub async fn without_a_hint_nothing_is_found(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    stage.held(id(1), 3).await;
    assert_eq!(stage.store.find(id(1)).await.expect("the store answers"), None);
}

/// Too much is refused, with what there is; all there is is not too much.
pub async fn insufficient_changes_nothing(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 4).await;
    stage.held(id(1), 1).await;
    let before = stage.counts().await;
    for request in [stage.request(id(2), 6), stage.client_request(id(2), 6), stage.request(id(2), 1_000_000)] {
        assert_eq!(stage.send(&request).await, ReserveReply::Insufficient { remaining: 5 });
    }
    assert_eq!(stage.counts().await, before);
    assert_eq!(stage.hold(id(2)).await, None);
    assert_eq!(stage.store.find(id(2)).await.expect("the store answers"), None, "no hint is left");
    assert_eq!(stage.held(id(2), 5).await, stage.stamp(5, 2), "the refusal is not remembered and used no number");
    assert_eq!(stage.reserve(id(3), 1).await, ReserveReply::Insufficient { remaining: 0 });
}

/// A repeat that comes after the event has confirmed the hold.
pub async fn a_reserve_after_confirm_answers_the_hold_that_was(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let reply = stage.reserve(id(1), 3).await;
    let stamp = stamp_of(reply.clone());
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed);
    let before = stage.counts().await;
    let again = stage.send(&stage.client_request(id(1), 3)).await;
    assert_eq!(stamp_of(again.clone()), stamp);
    assert_eq!(deadline_of(&again), deadline_of(&reply));
    assert_eq!(stage.reserve(id(1), 4).await, ReserveReply::Mismatch);
    assert_eq!(stage.counts().await, before, "nothing changed");
    assert_eq!(stage.hold(id(1)).await, None);
}

/// The marker of a release that overtook its reserve.
pub async fn a_late_reserve_is_refused_after_its_release(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    assert_eq!(stage.release_marked(id(1), &stage.stamp(0, 0)).await, ReleaseReply::Absent);
    for quantity in [1, 3, 1_000_000] {
        assert_eq!(stage.reserve(id(1), quantity).await, ReserveReply::Released);
    }
    assert_eq!(stage.send(&stage.client_request(id(1), 3)).await, ReserveReply::Released);
    assert_eq!(stage.store.find(id(1)).await.expect("the store answers"), None, "no hint is left");
    assert_eq!(stage.numbers().await, (10, 10, 0, 0, 0));
}

/// Numbers tell holds of one lease apart, epochs those of several.
pub async fn hold_numbers_grow_within_a_lease_and_restart_with_the_next(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    for number in 1..=3_u64 {
        let stamp = stage.held(id(number), 1).await;
        assert_eq!(stamp, stage.stamp(5, i64::try_from(number).expect("small")));
        stage.release(id(number), &stamp).await;
    }
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(5, 4), "a hold made again is another hold");
    assert_eq!(stage.load(6, 10, 0).await, LoadReply::Loaded);
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(6, 1));
}

/// The last units are sold once.
pub async fn a_thousand_concurrent_reserves_share_a_hundred_units(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 100, 0).await;
    let replies = all_at_once(&stage, (0..1_000).map(|number| stage.request(id(number), 1))).await;
    let mut numbers: Vec<i64> = Vec::new();
    for reply in replies {
        match reply {
            ReserveReply::Held { stamp, .. } => numbers.push(stamp.number),
            ReserveReply::Insufficient { remaining } => assert_eq!(remaining, 0),
            ReserveReply::Released | ReserveReply::Mismatch | ReserveReply::Overdue | ReserveReply::NotOpen => {
                panic!("{reply:?}")
            }
        }
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=100), "each unit is held once, by a hold of its own");
    assert_eq!(stage.numbers().await, (100, 0, 100, 0, 100));
}

/// Repeats that run at the same time share one hold.
pub async fn concurrent_repeats_share_one_hold(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 100, 0).await;
    let replies = all_at_once(&stage, (0..50).map(|_| stage.client_request(id(1), 2))).await;
    for reply in replies {
        assert_eq!(stamp_of(reply), stage.stamp(5, 1));
    }
    assert_eq!(stage.numbers().await, (100, 98, 2, 0, 1));
}

/// Names that could be mistaken for each other, or for part of a key, are different items.
pub async fn items_with_odd_names_are_kept_apart(fixture: &dyn StockFixture) {
    let widget = Stage::open(fixture, 100, 0).await;
    let names =
        ["widget:ledger", "widget:holds", "a b", "日本", "%", "Widget", "widget\u{301}", "*", "0", "...", "a/b"];
    for (index, name) in names.into_iter().enumerate() {
        let stage = widget.other(name);
        let received = i64::try_from(index).expect("small") + 1;
        assert_eq!(stage.available().await, StockReply::NotOpen, "{name}");
        assert_eq!(stage.load(1, received, 0).await, LoadReply::Loaded, "{name}");
        assert_eq!(stage.held(id(1), 1).await, stage.stamp(1, 1), "{name}");
        assert_eq!(stage.numbers().await, (received, received - 1, 1, 0, 1), "{name}");
    }
    assert_eq!(widget.numbers().await, (100, 100, 0, 0, 0));
    let listed = widget.store.open_items(None).await.expect("the store answers");
    let mut expected: Vec<Item> = names.iter().chain(&["widget"]).map(|name| item(name)).collect();
    expected.sort();
    assert_eq!(listed.into_iter().map(|(item, _)| item).collect::<Vec<_>>(), expected);
}

/// In tasks of their own, so that they run on as many threads as the test has.
async fn all_at_once(stage: &Stage, requests: impl Iterator<Item = ReserveRequest>) -> Vec<ReserveReply> {
    let tasks = tokio_util::task::TaskTracker::new();
    let calls: Vec<_> = requests
        .map(|request| {
            let store: Arc<dyn StockStore> = Arc::clone(&stage.store);
            tasks.spawn(async move { store.reserve(&request).await.expect("the store answers") })
        })
        .collect();
    join_all(calls).await.into_iter().map(|done| done.expect("no task panics")).collect()
}
