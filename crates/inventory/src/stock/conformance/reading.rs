//! What is due, open, found; and that reading and refusing leave nothing behind.

use std::{collections::BTreeSet, time::Duration};

use contracts::values::{Epoch, ReservationId};

use super::{Edit, PAST_TTL, Stage, StockFixture, id, stamp_of};
use crate::stock::{
    ConfirmReply, DUE_BATCH_MAX, Found, LoadReply, OPEN_ITEMS_BATCH_MAX, ReleaseReply, ReserveReply, RestockReply,
    StockReply,
};

/// Nothing is due before its time, and nothing goes away by itself after it.
pub async fn a_hold_is_due_after_its_deadline_and_stays(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stamp_of(stage.send(&stage.short_request(id(1), 3)).await);
    stage.held(id(2), 1).await;
    assert_eq!(stage.due().await, []);
    fixture.advance(PAST_TTL).await;
    let due = stage.store.due().await.expect("the store answers");
    assert_eq!(due, [stage.hold(id(1)).await.expect("it is held still")]);
    assert_eq!((due[0].stamp.clone(), due[0].quantity.get()), (stamp.clone(), 3));
    assert_eq!(stage.numbers().await, (10, 6, 4, 0, 2), "no hold expires by itself");
    assert_eq!(stage.due().await, [id(1)], "asking is not settling");
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed, "it can be sold still");
    assert_eq!(stage.due().await, []);
}

/// A hold that somebody still wants is not due.
pub async fn a_repeated_reserve_is_due_later(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    stage.send(&stage.short_request(id(1), 3)).await;
    stage.held(id(1), 3).await;
    fixture.advance(PAST_TTL).await;
    assert_eq!(stage.due().await, []);
    assert!(stage.hold(id(1)).await.is_some());
}

/// Longest overdue first, over all items.
pub async fn what_is_due_comes_in_order_of_deadlines(fixture: &dyn StockFixture) {
    let widget = Stage::open(fixture, 10, 0).await;
    let gadget = widget.other("gadget");
    assert_eq!(gadget.load(1, 10, 0).await, LoadReply::Loaded);
    let turns = [(&widget, 4), (&gadget, 2), (&gadget, 9), (&widget, 1), (&gadget, 3)];
    for (stage, number) in turns {
        stage.send(&stage.short_request(id(number), 1)).await;
        fixture.advance(Duration::from_millis(10)).await;
    }
    fixture.advance(PAST_TTL).await;
    assert_eq!(widget.due().await, turns.map(|(_, number)| id(number)));
}

/// Holds that came and went leave no trace in what is due.
pub async fn what_is_due_comes_once(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    for number in [1, 2] {
        let stamp = stamp_of(stage.send(&stage.short_request(id(number), 1)).await);
        stage.send(&stage.short_request(id(3), 1)).await;
        fixture.advance(Duration::from_millis(10)).await;
        assert_eq!(stage.release(id(number), &stamp).await, ReleaseReply::Released);
    }
    fixture.advance(PAST_TTL).await;
    assert_eq!(stage.due().await, [id(3)]);
}

/// As many as a batch has, the longest overdue; the others once those are settled.
pub async fn what_is_due_comes_in_bounded_batches(fixture: &dyn StockFixture) {
    let widget = Stage::open(fixture, 1_000, 0).await;
    let gadget = widget.other("gadget");
    assert_eq!(gadget.load(1, 1_000, 0).await, LoadReply::Loaded);
    let count = u64::try_from(DUE_BATCH_MAX).expect("small") + 20;
    for number in 0..count {
        let stage = if number % 2 == 0 { &widget } else { &gadget };
        stage.send(&stage.short_request(id(number), 1)).await;
    }
    fixture.advance(PAST_TTL).await;
    let batch = widget.store.due().await.expect("the store answers");
    assert_eq!(batch.len(), DUE_BATCH_MAX);
    assert!(batch.is_sorted_by_key(|hold| hold.deadline));
    let mut seen: BTreeSet<ReservationId> = BTreeSet::new();
    for hold in batch {
        assert!(seen.insert(hold.id), "{} twice", hold.id);
        assert_eq!(widget.release(hold.id, &hold.stamp).await, ReleaseReply::Released);
    }
    seen.extend(widget.due().await);
    assert_eq!(seen, (0..count).map(id).collect());
    assert_eq!((widget.counts().await.holds, gadget.counts().await.holds), (10, 10));
}

/// One item has most of what is due longest, many others have a little: what comes is what a list of all would begin with.
pub async fn what_is_due_longest_comes_first_however_uneven_the_items(fixture: &dyn StockFixture) {
    let widget = Stage::open(fixture, 1_000, 0).await;
    let others: Vec<Stage> = (0..60).map(|number| widget.other(&format!("other-{number}"))).collect();
    for other in &others {
        assert_eq!(other.load(1, 100, 0).await, LoadReply::Loaded);
    }
    let mut expected = Vec::new();
    for number in 0..600_u64 {
        let stage = if number % 3 == 2 { &others[usize::try_from(number).expect("small") % 60] } else { &widget };
        let reply = stage.send(&stage.short_request(id(number), 1)).await;
        let ReserveReply::Held { deadline, .. } = reply else { panic!("not held: {reply:?}") };
        expected.push((deadline, id(number)));
    }
    expected.sort_unstable();
    fixture.advance(PAST_TTL).await;
    let due = widget.store.due().await.expect("the store answers");
    let due: Vec<_> = due.into_iter().map(|hold| (hold.deadline, hold.id)).collect();
    assert_eq!(due, expected[..DUE_BATCH_MAX]);
}

/// The trouble of an item that is not open does not keep others from being due.
pub async fn holds_of_items_that_are_not_open_are_not_due(fixture: &dyn StockFixture) {
    let widget = Stage::open(fixture, 10, 0).await;
    let gadget = widget.other("gadget");
    assert_eq!(gadget.load(1, 10, 0).await, LoadReply::Loaded);
    widget.send(&widget.short_request(id(1), 1)).await;
    gadget.send(&gadget.short_request(id(2), 1)).await;
    fixture.advance(PAST_TTL).await;
    fixture.edit(&widget.item, Edit::Sold(1)).await;
    assert_eq!(widget.due().await, [id(2)]);
    fixture.edit(&widget.item, Edit::Sold(-1)).await;
    assert_eq!(widget.due().await, [id(1), id(2)], "an edit that is taken back leaves no trace");
}

/// In order of names, a page at a time.
pub async fn open_items_come_in_pages_by_name(fixture: &dyn StockFixture) {
    let stage = Stage::new(fixture);
    let count = OPEN_ITEMS_BATCH_MAX + 20;
    let mut expected = Vec::new();
    for number in 0..count {
        // Not in order of names, and each with an epoch of its own.
        let name = format!("item-{:04}", (number * 7) % count);
        let other = stage.other(&name);
        let epoch = i64::try_from(number).expect("small") + 1;
        assert_eq!(other.load(epoch, 1, 0).await, LoadReply::Loaded);
        expected.push((other.item, Epoch(epoch)));
    }
    expected.sort();
    let first = stage.store.open_items(None).await.expect("the store answers");
    assert_eq!(first, expected[..OPEN_ITEMS_BATCH_MAX]);
    let last = first.last().map(|(item, _)| item);
    let second = stage.store.open_items(last).await.expect("the store answers");
    assert_eq!(second, expected[OPEN_ITEMS_BATCH_MAX..]);
    let last = second.last().map(|(item, _)| item);
    assert_eq!(stage.store.open_items(last).await.expect("the store answers"), []);
    let between = stage.other("item-0003x").item;
    let rest = stage.store.open_items(Some(&between)).await.expect("the store answers");
    assert_eq!(rest[0], expected[4], "the name to start after need not be there");
}

/// The hold behind an id, while there is one.
pub async fn a_hint_finds_its_hold(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 0).await;
    let stamp = stamp_of(stage.send(&stage.client_request(id(1), 3)).await);
    let hold = stage.hold(id(1)).await;
    assert!(hold.is_some());
    let found = stage.store.find(id(1)).await.expect("the store answers");
    assert_eq!(found, Some(Found { item: stage.item.clone(), hold }));
    assert_eq!(stage.release_marked(id(1), &stamp).await, ReleaseReply::Released);
    let found = stage.store.find(id(1)).await.expect("the store answers");
    assert_eq!(found, Some(Found { item: stage.item.clone(), hold: None }), "the item is known until the hold is due");
    assert_eq!(stage.store.find(id(2)).await.expect("the store answers"), None);
}

/// An id names a hold on one item.
pub async fn a_hold_is_one_items(fixture: &dyn StockFixture) {
    let widget = Stage::open(fixture, 10, 0).await;
    let gadget = widget.other("gadget");
    assert_eq!(gadget.load(1, 10, 0).await, LoadReply::Loaded);
    widget.held(id(1), 3).await;
    gadget.held(id(1), 2).await;
    assert_eq!(widget.hold(id(1)).await.map(|hold| hold.quantity.get()), Some(3));
    assert_eq!(gadget.hold(id(1)).await.map(|hold| hold.quantity.get()), Some(2));
    assert_eq!(widget.hold(id(2)).await, None);
}

async fn read_everything(stage: &Stage) {
    stage.available().await;
    stage.hold(id(1)).await;
    stage.store.find(id(1)).await.expect("the store answers");
    stage.store.probe(&stage.item).await.expect("the store answers");
    stage.store.due().await.expect("the store answers");
    stage.store.open_items(None).await.expect("the store answers");
    stage.store.open_items(Some(&stage.item)).await.expect("the store answers");
    stage.counts_if_there().await;
    stage.store.ping().await.expect("the store answers");
}

/// I12: neither reads nor refusals create anything.
pub async fn reads_and_refusals_create_nothing(fixture: &dyn StockFixture) {
    let stage = Stage::new(fixture);
    for _ in 0..2 {
        read_everything(&stage).await;
        stage.reserve(id(1), 1).await;
        stage.send(&stage.client_request(id(1), 1)).await;
        stage.confirm(id(1), &stage.stamp(1, 1)).await;
        stage.release_marked(id(1), &stage.stamp(1, 1)).await;
        stage.release_marked(id(1), &stage.stamp(0, 0)).await;
        assert_eq!(stage.restock(1, 1, 0).await, RestockReply::NotOpen);
        assert_eq!(stage.load(0, 1, 0).await, LoadReply::Refused);
    }
    assert_eq!(stage.counts_if_there().await, None);
    assert_eq!(stage.store.open_items(None).await.expect("the store answers"), []);
    assert_eq!(stage.store.find(id(1)).await.expect("the store answers"), None);
    assert_eq!(stage.due().await, []);
    let probe = stage.store.probe(&stage.item).await.expect("the store answers");
    assert_eq!((probe.stored, probe.open), (Epoch::NONE, false));
}

/// Reading an open item changes nothing of it.
pub async fn reads_of_an_open_item_change_nothing(fixture: &dyn StockFixture) {
    let stage = Stage::open(fixture, 10, 1).await;
    stage.send(&stage.client_request(id(1), 3)).await;
    let (counts, hold) = (stage.counts().await, stage.hold(id(1)).await);
    read_everything(&stage).await;
    assert_eq!((stage.counts().await, stage.hold(id(1)).await), (counts, hold));
    assert_eq!(stage.available().await, StockReply::Available(6));
    assert_eq!(stage.held(id(2), 1).await, stage.stamp(5, 2));
}
