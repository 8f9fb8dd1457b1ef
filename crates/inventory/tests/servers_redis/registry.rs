//! The registry names items that are open no more: they keep nobody from being found, and do not stay for ever.

use std::time::Duration;

use inventory::stock::{
    DUE_BATCH_MAX, LoadReply, OPEN_ITEMS_BATCH_MAX,
    conformance::{Edit, Stage, StockFixture, id},
};

use crate::fixture::SingleFixture;

/// More than one look at the registry finds.
const MANY: u64 = 1_100;

/// Many items, each with a hold that is due, and after them `widget` with one.
async fn crowd(fixture: &SingleFixture) -> (Vec<Stage>, Stage) {
    let widget = Stage::new(fixture);
    let mut crowd = Vec::new();
    for number in 0..MANY {
        let other = widget.other(&format!("item-{number:04}"));
        assert_eq!(other.load(1, 1, 0).await, LoadReply::Loaded);
        other.send(&other.short_request(id(number), 1)).await;
        crowd.push(other);
    }
    assert_eq!(widget.load(1, 1, 0).await, LoadReply::Loaded);
    widget.send(&widget.short_request(id(MANY), 1)).await;
    fixture.advance(Duration::from_millis(1_100)).await;
    (crowd, widget)
}

async fn registered(fixture: &SingleFixture) -> [String; 2] {
    let mut counts = [String::new(), String::new()];
    for (count, key) in counts.iter_mut().zip(["{registry}:items", "{registry}:heads"]) {
        fixture.redis.cli(&["ZCARD", key]).await.trim().clone_into(count);
    }
    counts
}

#[tokio::test]
async fn items_that_are_gone_starve_nobody_and_leave_the_registry() {
    let fixture = SingleFixture::start_with(&[]).await;
    let (_, widget) = crowd(&fixture).await;
    let gone = "for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], '[item-', '(item.')) do \
                redis.call('DEL', name, '{' .. name .. '}:ledger') end return 1";
    assert_eq!(fixture.redis.cli(&["EVAL", gone, "1", "{registry}:items"]).await.trim(), "1");
    assert_eq!(registered(&fixture).await, ["1101", "1101"]);
    assert_eq!(widget.due().await, [id(MANY)]);
    assert_eq!(registered(&fixture).await, ["1", "1"]);
    let open = widget.store.open_items(None).await.expect("it answers");
    assert_eq!(open.len(), 1);
}

#[tokio::test]
async fn items_that_were_edited_starve_nobody() {
    let fixture = SingleFixture::start_with(&[]).await;
    let (crowd, widget) = crowd(&fixture).await;
    let edited = "for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], '[item-', '(item.')) do \
                  redis.call('HINCRBY', '{' .. name .. '}:ledger', 'sold', ARGV[1]) end return 1";
    assert_eq!(fixture.redis.cli(&["EVAL", edited, "1", "{registry}:items", "1"]).await.trim(), "1");
    assert_eq!(widget.due().await, [id(MANY)]);
    let open = widget.store.open_items(None).await.expect("it answers");
    assert_eq!(open.len(), 1);
    assert_eq!(fixture.redis.cli(&["EVAL", edited, "1", "{registry}:items", "-1"]).await.trim(), "1");
    assert_eq!(widget.due().await.len(), DUE_BATCH_MAX, "an edit that is taken back leaves no trace");
    let open = widget.store.open_items(None).await.expect("it answers");
    assert_eq!(open.len(), OPEN_ITEMS_BATCH_MAX);
    fixture.edit(&crowd[0].item, Edit::Sold(1)).await;
    assert!(!widget.due().await.contains(&id(0)));
}

#[tokio::test]
async fn names_that_a_hand_put_there_are_nobody_s() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 10, 0).await;
    stage.send(&stage.short_request(id(1), 1)).await;
    for key in ["{registry}:items", "{registry}:heads"] {
        for name in [" a", "", "a{b", "gadget"] {
            fixture.redis.cli(&["ZADD", key, "0", name]).await;
        }
    }
    fixture.advance(Duration::from_millis(1_100)).await;
    assert_eq!(stage.due().await, [id(1)]);
    let open = stage.store.open_items(None).await.expect("it answers");
    assert_eq!(open, [(stage.item.clone(), contracts::values::Epoch(5))]);
}
