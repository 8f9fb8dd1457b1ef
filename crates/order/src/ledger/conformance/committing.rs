//! Orders are committed.

use contracts::values::Epoch;

use super::{Bench, FINGERPRINT, item, request_key, units};
use crate::ledger::{COMMIT_BATCH_MAX, CommitOutcome, KeyedOrder, LedgerError, NewOrder, Order, Verdict};

fn made(order: &NewOrder) -> Order {
    Order { id: order.id, item: order.stamp.item.clone(), quantity: order.quantity, created_at: order.created_at }
}

fn keyed(order: &NewOrder) -> KeyedOrder {
    KeyedOrder { order: made(order), fingerprint: FINGERPRINT }
}

/// The plain case.
pub async fn a_new_order_is_created_with_its_event(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Created(made(&order)));
    assert_eq!(bench.ledger.order(order.id).await.expect("answers"), Some(made(&order)));
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 1);
}

/// With the time of the first commit, one event, and whatever epoch and key the repeat brings.
pub async fn a_repeat_is_answered_with_the_order_as_it_was_made(bench: &Bench) {
    let order = bench.keyed_order(&bench.lease(&item("widget"), 10).await, "k");
    bench.sell(&order).await;
    let later = NewOrder { created_at: order.created_at.plus(std::time::Duration::from_secs(1)), ..order.clone() };
    assert_eq!(bench.commit_one(&later).await, CommitOutcome::Existing(made(&order)));
    let keyless = NewOrder { key: None, ..order.clone() };
    assert_eq!(bench.commit_one(&keyless).await, CommitOutcome::Existing(made(&order)));
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 1);
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
}

/// Another quantity, or another item.
pub async fn an_id_with_other_content_is_refused(bench: &Bench) {
    let (widget, gadget) = (bench.lease(&item("widget"), 10).await, bench.lease(&item("gadget"), 10).await);
    let order = bench.order(&widget);
    bench.sell(&order).await;
    let more = NewOrder { quantity: units(2), ..order.clone() };
    let other = NewOrder { id: order.id, ..bench.order(&gadget) };
    assert_eq!(bench.commit(&[more, other]).await, [CommitOutcome::OtherContent, CommitOutcome::OtherContent]);
    assert_eq!(bench.ledger.order(order.id).await.expect("answers"), Some(made(&order)));
}

/// I5: an id has at most one verdict.
pub async fn a_tombstone_stops_a_late_commit(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    assert_eq!(bench.resolve(order.id, Some(&order.stamp)).await, Verdict::Aborted);
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Aborted);
    assert_eq!(bench.stock(&item("widget")).await.sold, 0);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 0);
}

/// I6; the answer names the order that has the key, and what it stands for.
pub async fn a_key_has_one_order(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let (first, second) = (bench.keyed_order(&lease, "k"), bench.keyed_order(&lease, "k"));
    let second = NewOrder { key: second.key.map(|(key, _)| (key, [9; 32])), quantity: units(3), ..second };
    bench.sell(&first).await;
    assert_eq!(bench.commit_one(&second).await, CommitOutcome::KeyTaken(keyed(&first)));
    assert_eq!(bench.ledger.order(second.id).await.expect("answers"), None);
    bench.sell(&bench.keyed_order(&lease, "K")).await;
}

/// A refusal for its key leaves the id free, and an aborted order leaves its key free.
pub async fn a_key_and_an_id_may_be_committed_again_under_neither(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    bench.sell(&bench.keyed_order(&lease, "taken")).await;
    let order = bench.keyed_order(&lease, "taken");
    assert!(matches!(bench.commit_one(&order).await, CommitOutcome::KeyTaken(_)));
    bench.sell(&NewOrder { key: None, ..order }).await;

    let aborted = bench.keyed_order(&lease, "free");
    bench.resolve(aborted.id, Some(&aborted.stamp)).await;
    assert_eq!(bench.commit_one(&aborted).await, CommitOutcome::Aborted);
    bench.sell(&bench.keyed_order(&lease, "free")).await;
}

/// The fence: only holds of the newest lease are sold.
pub async fn an_order_of_an_older_epoch_is_fenced(bench: &Bench) {
    let old = bench.lease(&item("widget"), 10).await;
    let order = bench.order(&old);
    let new = bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Fenced(new.epoch));
    let mut ahead = bench.order(&new);
    ahead.stamp.epoch = new.epoch.next();
    assert_eq!(bench.commit_one(&ahead).await, CommitOutcome::Fenced(new.epoch));
    assert_eq!(bench.stock(&item("widget")).await.sold, 0);
    // It left nothing behind: the same id is sold under the newest epoch.
    let mut again = order.clone();
    again.stamp.epoch = new.epoch;
    bench.sell(&again).await;
}

/// Epoch 0 stands for "no lease", also where a restock made the item known.
pub async fn an_order_of_an_item_that_was_never_lent_is_fenced(bench: &Bench) {
    let lent = bench.lease(&item("widget"), 10).await;
    let mut order = bench.order(&lent);
    order.stamp.item = item("unknown");
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Fenced(Epoch::NONE));
    order.stamp.epoch = Epoch::NONE;
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Fenced(Epoch::NONE));
    let restock = crate::ledger::Restock { id: bench.env().uuid(), item: item("unknown"), quantity: units(5) };
    bench.ledger.record_restock(&restock, 10).await.expect("answers");
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Fenced(Epoch::NONE));
}

/// A committed order whose answer was lost is repeated under an epoch that is old by now.
pub async fn existing_is_judged_before_other_reasons(bench: &Bench) {
    let old = bench.lease(&item("widget"), 10).await;
    let order = bench.keyed_order(&old, "k");
    bench.sell(&order).await;
    bench.sell(&bench.keyed_order(&old, "other")).await;
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Existing(made(&order)));
    let other_key = NewOrder { key: Some((request_key("other"), FINGERPRINT)), ..order.clone() };
    assert_eq!(bench.commit_one(&other_key).await, CommitOutcome::Existing(made(&order)));
    let other_content = NewOrder { quantity: units(2), ..other_key };
    assert_eq!(bench.commit_one(&other_content).await, CommitOutcome::OtherContent);
}

/// So that the caller makes its next attempt.
pub async fn an_aborted_order_is_judged_before_its_key_and_its_epoch(bench: &Bench) {
    let old = bench.lease(&item("widget"), 10).await;
    bench.sell(&bench.keyed_order(&old, "k")).await;
    let order = bench.keyed_order(&old, "k");
    bench.resolve(order.id, Some(&order.stamp)).await;
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Aborted);
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Aborted);
}

/// Or a repeat whose key is sold would go round once more.
pub async fn a_taken_key_is_judged_before_the_epoch(bench: &Bench) {
    let old = bench.lease(&item("widget"), 10).await;
    let (sold, late) = (bench.keyed_order(&old, "k"), bench.keyed_order(&old, "k"));
    bench.sell(&sold).await;
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.commit_one(&late).await, CommitOutcome::KeyTaken(keyed(&sold)));
}

/// The second sees the first.
pub async fn an_id_twice_in_one_batch_is_one_order(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    let more = NewOrder { quantity: units(2), ..order.clone() };
    let outcomes = bench.commit(&[order.clone(), order.clone(), more]).await;
    let expected =
        [CommitOutcome::Created(made(&order)), CommitOutcome::Existing(made(&order)), CommitOutcome::OtherContent];
    assert_eq!(outcomes, expected);
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 1);
}

/// The second sees the first.
pub async fn a_key_twice_in_one_batch_is_one_order(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let (first, second) = (bench.keyed_order(&lease, "k"), bench.keyed_order(&lease, "k"));
    let outcomes = bench.commit(&[first.clone(), second, first.clone()]).await;
    let expected = [
        CommitOutcome::Created(made(&first)),
        CommitOutcome::KeyTaken(keyed(&first)),
        CommitOutcome::Existing(made(&first)),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
}

/// Which of two orders with one id was inserted is told by more than the id.
pub async fn an_order_stopped_by_its_key_leaves_its_id_free_in_one_batch(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    bench.sell(&bench.keyed_order(&lease, "taken")).await;
    let stopped = bench.keyed_order(&lease, "taken");
    let inserted = NewOrder { key: None, quantity: units(4), ..stopped.clone() };
    let outcomes = bench.commit(&[stopped, inserted.clone()]).await;
    assert_eq!(outcomes, [CommitOutcome::OtherContent, CommitOutcome::Created(made(&inserted))]);
    assert_eq!(bench.stock(&item("widget")).await.sold, 5);
}

/// The fenced are read back too, after the others are inserted.
pub async fn a_fenced_order_sees_the_order_of_its_id_in_one_batch(bench: &Bench) {
    let old = bench.lease(&item("widget"), 10).await;
    let fenced = bench.order(&old);
    let new = bench.lease(&item("widget"), 10).await;
    let mut sold = fenced.clone();
    sold.stamp.epoch = new.epoch;
    let outcomes = bench.commit(&[fenced, sold.clone()]).await;
    assert_eq!(outcomes, [CommitOutcome::Existing(made(&sold)), CommitOutcome::Created(made(&sold))]);
}

/// Each is judged by itself.
pub async fn a_batch_has_as_many_items_and_verdicts_as_it_likes(bench: &Bench) {
    let (widget, gadget) = (bench.lease(&item("widget"), 10).await, bench.lease(&item("gadget"), 10).await);
    let (existing, aborted, fenced) = (bench.order(&widget), bench.order(&gadget), bench.order(&gadget));
    bench.sell(&existing).await;
    bench.resolve(aborted.id, Some(&aborted.stamp)).await;
    let gadget = bench.lease(&item("gadget"), 10).await;
    let (one, two) = (bench.order(&gadget), bench.order(&widget));
    let batch = [fenced, one.clone(), aborted, existing.clone(), two.clone()];
    let expected = [
        CommitOutcome::Fenced(gadget.epoch),
        CommitOutcome::Created(made(&one)),
        CommitOutcome::Aborted,
        CommitOutcome::Existing(made(&existing)),
        CommitOutcome::Created(made(&two)),
    ];
    assert_eq!(bench.commit(&batch).await, expected);
    assert_eq!(bench.stock(&item("widget")).await.sold, 2);
    assert_eq!(bench.stock(&item("gadget")).await.sold, 1);
}

/// None, as many as are allowed, and one more.
pub async fn batches_have_bounds(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 1000).await;
    assert_eq!(bench.commit(&[]).await, []);
    let mut batch: Vec<NewOrder> = (0..COMMIT_BATCH_MAX).map(|_| bench.order(&lease)).collect();
    let created = bench.commit(&batch).await;
    assert!(created.iter().all(|outcome| matches!(outcome, CommitOutcome::Created(_))));
    batch = (0..=COMMIT_BATCH_MAX).map(|_| bench.order(&lease)).collect();
    assert!(bench.ledger.commit(&batch).await.is_err());
    assert_eq!(bench.stock(&item("widget")).await.sold, 256);
}

/// A statement that fails for one order takes no other with it.
pub async fn bad_data_of_one_order_stops_no_other(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let (first, mut bad, last) = (bench.order(&lease), bench.order(&lease), bench.keyed_order(&lease, "k"));
    bad.stamp.number = -1;
    let outcomes = bench.ledger.commit(&[first.clone(), bad.clone(), last.clone()]).await.expect("answers");
    let [Ok(CommitOutcome::Created(one)), Err(LedgerError::Store(_)), Ok(CommitOutcome::Created(two))] = &outcomes[..]
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!((one, two), (&made(&first), &made(&last)));
    assert_eq!(bench.ledger.order(bad.id).await.expect("answers"), None);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 2);
}

/// Nor does a row that someone edited by hand, whose order alone cannot be answered.
pub async fn a_spoilt_row_stops_no_other(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let (spoilt, fresh) = (bench.keyed_order(&lease, "k"), bench.order(&lease));
    bench.sell(&spoilt).await;
    let Some(done) = bench.sql("UPDATE order_verdicts SET item = ' outer spaces '").await else { return };
    assert_eq!(done, Ok(()));
    let outcomes = bench.ledger.commit(&[spoilt.clone(), fresh.clone()]).await.expect("answers");
    let [Err(LedgerError::Corrupt(_)), Ok(CommitOutcome::Created(_))] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(matches!(bench.ledger.order(spoilt.id).await, Err(LedgerError::Corrupt(_))));
    assert!(matches!(bench.ledger.order_by_key(&request_key("k")).await, Err(LedgerError::Corrupt(_))));
}

/// Quotes, backslashes, characters of every length.
pub async fn texts_come_back_as_they_were(bench: &Bench) {
    for name in ["'; DROP TABLE outbox; --", "\"\\u0041\\", "%_*?[", "日本\u{1f600}é", "$1 null ->> $.id", "[1]"] {
        let lease = bench.lease(&item(name), 10).await;
        let order = bench.keyed_order(&lease, &name.replace(|c: char| !c.is_ascii(), "?"));
        assert_eq!(bench.commit_one(&order).await, CommitOutcome::Created(made(&order)), "{name}");
        assert_eq!(bench.commit_one(&order).await, CommitOutcome::Existing(made(&order)), "{name}");
        let (key, _) = order.key.as_ref().expect("it has one");
        assert_eq!(bench.ledger.order_by_key(key).await.expect("answers"), Some(keyed(&order)), "{name}");
        let stock = bench.stock(&item(name)).await;
        assert_eq!((stock.received, stock.sold), (10, 1), "{name}");
    }
}

/// The same law at two places: the type, and the table.
pub async fn quantities_below_one_are_refused_by_the_store_itself(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    bench.sell(&bench.order(&lease)).await;
    let restock = crate::ledger::Restock { id: bench.env().uuid(), item: item("widget"), quantity: units(5) };
    bench.ledger.record_restock(&restock, 10).await.expect("answers");
    // The statements that are refused below would do, with another number.
    let Some(control) = bench.sql("UPDATE order_verdicts SET quantity = 2").await else { return };
    assert_eq!(control, Ok(()));
    for statement in [
        "UPDATE order_verdicts SET quantity = 0",
        "UPDATE order_verdicts SET quantity = -1",
        "UPDATE order_verdicts SET quantity = NULL",
        "UPDATE order_verdicts SET quantity = 1000001",
        "UPDATE order_verdicts SET state = 'aborted'",
        "UPDATE order_verdicts SET number = 0",
        "UPDATE order_verdicts SET epoch = 0",
        "UPDATE restocks SET quantity = 0",
        "UPDATE restocks SET quantity = -1",
        "UPDATE outbox SET quantity = 0",
        "UPDATE outbox SET quantity = -1",
        "UPDATE stock_leases SET settled = -1",
        "UPDATE stock_leases SET initial = -1",
        "UPDATE stock_leases SET epoch = -1",
    ] {
        let refused = bench.sql(statement).await.expect("it knows SQL");
        assert!(refused.is_err(), "{statement}");
    }
}
