//! What a hand can do with redis-cli. Whatever it does to an item's keys, the item is not open, and a lease mends it.

use std::time::Duration;

use contracts::values::Epoch;
use inventory::stock::{
    ConfirmReply, LoadReply, ReleaseReply, ReserveReply, StockReply,
    conformance::{
        Stage, StockFixture, id,
        refusing::{HELD, busy, refuses_everything},
    },
    redis::keys::Spread,
};

use crate::fixture::SingleFixture;

/// What is no integer, or not one that is written the one way there is.
const NO_INTEGERS: [&str; 12] =
    ["12abc", "1e3", " 7", "7 ", "007", "-0", "+7", "0x7", "7.0", "", "nan", "9007199254740993"];

/// A busy item, changed by these commands; what it stores as its epoch afterwards. The keys are
/// `widget`, `{widget}:ledger` and so on.
async fn refused_after(commands: &[&[&str]], stored: Epoch) {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = busy(&fixture).await;
    for command in commands {
        let done = fixture.redis.cli(command).await;
        assert!(!done.contains("ERR") && !done.contains("WRONGTYPE"), "{command:?}: {done}");
    }
    refuses_everything(&stage, stored).await;
}

#[tokio::test]
async fn the_units_available_are_what_get_shows() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 100, 3).await;
    stage.held(id(1), 7).await;
    assert_eq!(fixture.redis.cli(&["GET", "widget"]).await.trim(), "90");
}

#[tokio::test]
async fn a_value_that_is_no_integer_refuses_everything() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 7, 0).await;
    for bad in NO_INTEGERS {
        fixture.redis.cli(&["SET", "widget", bad]).await;
        assert_eq!(stage.available().await, StockReply::NotOpen, "{bad:?}");
        assert!(!stage.store.probe(&stage.item).await.expect("it answers").open);
    }
    fixture.redis.cli(&["SET", "widget", "7"]).await;
    assert_eq!(stage.available().await, StockReply::Available(7));
    for field in ["received", "held", "sold", "number", "holds", "restocks", "epoch", "incarnation"] {
        let good = fixture.redis.cli(&["HGET", "{widget}:ledger", field]).await;
        for bad in NO_INTEGERS {
            fixture.redis.cli(&["HSET", "{widget}:ledger", field, bad]).await;
            assert_eq!(stage.reserve(id(1), 1).await, ReserveReply::NotOpen, "{field} {bad:?}");
            assert!(!stage.store.probe(&stage.item).await.expect("it answers").open, "{field} {bad:?}");
        }
        fixture.redis.cli(&["HSET", "{widget}:ledger", field, good.trim()]).await;
        assert_eq!(stage.available().await, StockReply::Available(7), "{field} is mended");
    }
}

#[tokio::test]
async fn units_that_are_no_integer_refuse_everything_by_every_method() {
    refused_after(&[&["SET", "widget", "12abc"]], Epoch(5)).await;
}

#[tokio::test]
async fn an_epoch_that_is_no_integer_refuses_everything() {
    refused_after(&[&["HSET", "{widget}:ledger", "epoch", "5e0"]], Epoch::NONE).await;
}

#[tokio::test]
async fn a_list_in_place_of_the_units_refuses_everything() {
    refused_after(&[&["DEL", "widget"], &["RPUSH", "widget", "88"]], Epoch(5)).await;
}

#[tokio::test]
async fn a_list_in_place_of_the_ledger_refuses_everything() {
    refused_after(&[&["DEL", "{widget}:ledger"], &["RPUSH", "{widget}:ledger", "5"]], Epoch::NONE).await;
}

#[tokio::test]
async fn texts_in_place_of_all_other_keys_refuse_everything() {
    for key in ["{widget}:holds", "{widget}:due", "{widget}:restocks"] {
        refused_after(&[&["SET", key, "2"]], Epoch(5)).await;
    }
}

#[tokio::test]
async fn a_registry_that_is_none_refuses_everything_and_is_replaced() {
    for key in [Spread::OneServer.items(0), Spread::OneServer.heads(0)] {
        refused_after(&[&["SET", &key, "2"]], Epoch(5)).await;
    }
}

#[tokio::test]
async fn deleted_keys_refuse_everything() {
    for key in ["widget", "{widget}:holds", "{widget}:due", "{widget}:restocks", "{registry}:items", "{registry}:heads"]
    {
        refused_after(&[&["DEL", key]], Epoch(5)).await;
    }
    refused_after(&[&["DEL", "{widget}:ledger"]], Epoch::NONE).await;
}

#[tokio::test]
async fn a_hold_given_another_id_refuses_everything() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = busy(&fixture).await;
    let held = id(HELD).to_string();
    fixture.redis.cli(&["HDEL", "{widget}:holds", &held]).await;
    fixture.redis.cli(&["HSET", "{widget}:holds", &id(99).to_string(), "3:1:3:1"]).await;
    let before = stage.counts().await;
    for number in [HELD, 99] {
        assert_eq!(stage.reserve(id(number), 3).await, ReserveReply::NotOpen, "{number}");
        assert_eq!(stage.hold(id(number)).await, None);
    }
    assert_eq!(stage.counts().await, before);
}

#[tokio::test]
async fn a_marker_or_hint_that_is_none_is_forgotten() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 10, 0).await;
    for (number, text) in [(1, "released:x"), (2, "confirmed:5:1"), (3, "released:4"), (4, "gone")] {
        let marker = format!("{{widget}}:marker:{}", id(number));
        fixture.redis.cli(&["SET", &marker, text]).await;
        let stamp = stage.held(id(number), 1).await;
        fixture.redis.cli(&["DEL", &marker]).await;
        fixture.redis.cli(&["RPUSH", &marker, text]).await;
        assert_eq!(stage.held(id(number), 1).await, stamp);
        stage.release_marked(id(number), &stamp).await;
        assert_eq!(stage.reserve(id(number), 1).await, ReserveReply::Released);
    }
    let hint = format!("{{{}}}:item", id(5));
    for command in [["RPUSH", &hint, "widget"], ["SET", &hint, "widget"]] {
        fixture.redis.cli(&["DEL", &hint]).await;
        fixture.redis.cli(&command).await;
        assert_eq!(stage.store.find(id(5)).await.expect("it answers"), None);
        stage.send(&stage.client_request(id(5), 1)).await;
        assert!(stage.store.find(id(5)).await.expect("it answers").is_some());
    }
}

#[tokio::test]
async fn numbers_too_large_to_be_exact_are_refused() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::new(&fixture);
    let most = (1_i64 << 53) - 2;
    for (epoch, received) in [(1, most + 1), (1, i64::MAX), (most + 1, 10), (i64::MAX, 10)] {
        assert_eq!(stage.load(epoch, received, 0).await, LoadReply::Refused, "{epoch} {received}");
    }
    assert_eq!(stage.counts_if_there().await, None);
    assert_eq!(stage.load(most - 1, most, 0).await, LoadReply::Loaded);
    assert_eq!(fixture.redis.cli(&["GET", "widget"]).await.trim(), most.to_string());
    assert_eq!(stage.restock(1, 1, most - 1).await, inventory::stock::RestockReply::NotOpen);
    stage.held(id(1), 1_000_000).await;
    assert_eq!(stage.available().await, StockReply::Available(most - 1_000_000));
    fixture.wipe().await;
    assert_eq!(stage.available().await, StockReply::NotOpen);
}

#[tokio::test]
async fn a_touched_hold_is_due_and_nobody_settles_it() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 10, 0).await;
    stage.send(&stage.short_request(id(1), 3)).await;
    fixture.redis.cli(&["HSET", "{widget}:holds", &id(1).to_string(), "three"]).await;
    fixture.advance(Duration::from_secs(1)).await;
    let due = stage.store.due().await.expect("it answers").remove(0);
    assert_eq!((due.id, due.stamp.number), (id(1), 0));
    assert_eq!(stage.release_marked(id(1), &due.stamp).await, ReleaseReply::NotOpen);
    assert!(stage.store.probe(&stage.item).await.expect("it answers").open, "nothing else can see it");
}

#[tokio::test]
async fn an_epoch_raised_by_a_hand_is_not_believed() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 10, 0).await;
    for raised in ["6", "9007199254740990"] {
        fixture.redis.cli(&["HSET", "{widget}:ledger", "epoch", raised]).await;
        let probe = stage.store.probe(&stage.item).await.expect("it answers");
        assert_eq!((probe.open, probe.stored), (false, Epoch(5)), "whoever asks for the next lease goes above 5 only");
    }
    assert_eq!(stage.load(6, 10, 0).await, LoadReply::Loaded);
    assert_eq!(stage.available().await, StockReply::Available(10));
}

#[tokio::test]
async fn a_hold_of_no_size_is_due_with_the_others() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 10, 0).await;
    for (number, text) in [(1, "0:1:0:1"), (2, "5000000:2:5000000:2"), (3, "3:0:3:0")] {
        stage.send(&stage.short_request(id(number), 3)).await;
        fixture.redis.cli(&["HSET", "{widget}:holds", &id(number).to_string(), text]).await;
    }
    fixture.advance(Duration::from_secs(1)).await;
    let due = stage.store.due().await.expect("it answers");
    assert!(due.iter().all(|hold| hold.stamp.number == 0) && due.len() == 3, "{due:?}");
}

#[tokio::test]
async fn a_hold_larger_than_all_that_is_held_is_refused() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 100, 0).await;
    stage.held(id(1), 5).await;
    for text in ["50:1:50:1", "5:2:5:2"] {
        fixture.redis.cli(&["HSET", "{widget}:holds", &id(1).to_string(), text]).await;
        assert_eq!(stage.reserve(id(1), 50).await, ReserveReply::NotOpen, "{text}");
        assert_eq!(stage.reserve(id(1), 5).await, ReserveReply::NotOpen, "{text}");
    }
}

/// Else another quantity would free units that others are promised, and under another number the ledger would say to give
/// back what is sold.
#[tokio::test]
async fn a_hold_changed_in_one_place_is_not_believed() {
    let fixture = SingleFixture::start_with(&[]).await;
    let stage = Stage::open(&fixture, 20, 0).await;
    let stamp = stage.held(id(1), 5).await;
    stage.held(id(2), 4).await;
    for text in ["7:1", "7:1:5:1", "5:2:5:1", "5:1:7:1", "5:1:5:2", "5:1"] {
        fixture.redis.cli(&["HSET", "{widget}:holds", &id(1).to_string(), text]).await;
        assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::NotOpen, "{text}");
        assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::NotOpen, "{text}");
        assert_eq!(stage.hold(id(1)).await, None, "{text}");
    }
    assert_eq!(stage.numbers().await, (20, 11, 9, 0, 2));
}
