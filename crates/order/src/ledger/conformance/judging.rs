//! Reservations are judged, and tombstones pruned.

use std::time::Duration;

use contracts::values::{Epoch, ReservationId, Stamp};

use super::{Bench, item};
use crate::ledger::{CLIENT_TOMBSTONE_SECONDS, CommitOutcome, NewOrder, QUERY_BATCH_MAX, ResolveQuery, Verdict};

/// However often it is asked.
pub async fn a_hold_without_an_order_is_aborted_for_ever(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    for _ in 0..3 {
        assert_eq!(bench.resolve(order.id, Some(&order.stamp)).await, Verdict::Aborted);
        assert_eq!(bench.commit_one(&order).await, CommitOutcome::Aborted);
        assert_eq!(bench.resolve(order.id, None).await, Verdict::Aborted);
    }
    assert_eq!(bench.ledger.order(order.id).await.expect("answers"), None);
}

/// A hold of the same id made elsewhere is surplus: another item, epoch or number.
pub async fn an_order_is_confirmed_under_its_own_stamp_only(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    bench.sell(&order).await;
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.resolve(order.id, Some(&order.stamp)).await, Verdict::Confirmed);
    assert_eq!(bench.resolve(order.id, None).await, Verdict::Confirmed);
    for other in [
        Stamp { item: item("gadget"), ..order.stamp.clone() },
        Stamp { epoch: order.stamp.epoch.next(), ..order.stamp.clone() },
        Stamp { number: order.stamp.number + 1, ..order.stamp.clone() },
    ] {
        assert_eq!(bench.resolve(order.id, Some(&other)).await, Verdict::ConfirmedElsewhere, "{other:?}");
    }
    assert!(bench.ledger.order(order.id).await.expect("answers").is_some(), "judging changes no order");
}

/// I12: a lookup is no judgement.
pub async fn without_a_stamp_nothing_is_written(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    assert_eq!(bench.resolve(order.id, None).await, Verdict::Unknown);
    bench.sell(&order).await;
    // Nor in a batch with one that is judged.
    let (looked_up, judged) = (bench.order(&bench.lease(&item("widget"), 10).await), bench.id());
    let queries = [
        ResolveQuery { id: looked_up.id, stamp: None },
        ResolveQuery { id: judged, stamp: Some(looked_up.stamp.clone()) },
    ];
    let verdicts = bench.ledger.resolve(&queries).await.expect("answers");
    assert_eq!(verdicts, [Verdict::Unknown, Verdict::Aborted]);
    bench.sell(&looked_up).await;
}

/// Aligned with the questions.
pub async fn verdicts_come_in_the_order_asked(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let (sold, surplus, dead) = (bench.order(&lease), bench.order(&lease), bench.order(&lease));
    bench.commit(&[sold.clone(), surplus.clone()]).await;
    let queries = [
        ResolveQuery { id: dead.id, stamp: Some(dead.stamp) },
        ResolveQuery { id: surplus.id, stamp: Some(sold.stamp.clone()) },
        ResolveQuery { id: bench.id(), stamp: None },
        ResolveQuery { id: sold.id, stamp: Some(sold.stamp) },
    ];
    let verdicts = bench.ledger.resolve(&queries).await.expect("answers");
    let expected = [Verdict::Aborted, Verdict::ConfirmedElsewhere, Verdict::Unknown, Verdict::Confirmed];
    assert_eq!(verdicts, expected);
    assert_eq!(bench.ledger.resolve(&[]).await.expect("answers"), []);
}

/// With a stamp and without, under two stamps.
pub async fn one_id_asked_twice_has_one_verdict(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let (one, two) = (bench.order(&lease), bench.order(&lease));
    let ask = |stamp: Option<&Stamp>| ResolveQuery { id: one.id, stamp: stamp.cloned() };
    let queries = [ask(None), ask(Some(&one.stamp)), ask(Some(&two.stamp))];
    assert_eq!(bench.ledger.resolve(&queries).await.expect("answers"), [Verdict::Aborted; 3]);
}

/// As many as are allowed, and one more.
pub async fn judging_has_a_bound(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let ask = |_| ResolveQuery { id: bench.id(), stamp: Some(bench.order(&lease).stamp) };
    let mut queries: Vec<ResolveQuery> = (0..QUERY_BATCH_MAX).map(ask).collect();
    let verdicts = bench.ledger.resolve(&queries).await.expect("answers");
    assert_eq!(verdicts, [Verdict::Aborted; QUERY_BATCH_MAX]);
    queries = (0..=QUERY_BATCH_MAX).map(ask).collect();
    assert!(bench.ledger.resolve(&queries).await.is_err());
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 500);
}

/// Until then it is all that stops a late commit.
pub async fn a_tombstone_is_pruned_only_below_its_item_s_newest_epoch(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    bench.resolve(order.id, Some(&order.stamp)).await;
    bench.lease(&item("gadget"), 10).await;
    bench.lease(&item("gadget"), 10).await;
    assert_eq!(bench.prune().await, 0);
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Aborted);
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 1);
    assert_eq!(bench.prune().await, 0);
    assert_eq!(bench.resolve(order.id, None).await, Verdict::Unknown);
}

/// A client who was told that a hold has ended may order on its id again, and no lease fences that.
pub async fn a_tombstone_of_a_client_s_id_is_kept_for_a_day_too(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let client = ReservationId(bench.env().uuid());
    assert!(client.is_client());
    bench.resolve(client, Some(&bench.order(&lease).stamp)).await;
    bench.resolve(bench.id(), Some(&bench.order(&lease).stamp)).await;
    let newest = bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 1, "the one of an order under way");
    bench.clock.advance(Duration::from_secs(CLIENT_TOMBSTONE_SECONDS.unsigned_abs() - 1));
    assert_eq!(bench.prune().await, 0);
    let again = NewOrder { id: client, ..bench.order(&newest) };
    assert_eq!(bench.commit_one(&again).await, CommitOutcome::Aborted);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.prune().await, 1);
}

/// A hold of a newer epoch was judged by it: it has to outlive that epoch too.
pub async fn a_tombstone_that_is_asked_for_again_is_raised(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    bench.resolve(order.id, Some(&order.stamp)).await;
    let newer = NewOrder { id: order.id, ..bench.order(&bench.lease(&item("widget"), 10).await) };
    assert_eq!(bench.resolve(order.id, Some(&newer.stamp)).await, Verdict::Aborted);
    assert_eq!(bench.prune().await, 0);
    assert_eq!(bench.commit_one(&newer).await, CommitOutcome::Aborted);
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 1);
}

/// One id, holds of two items, both judged by one tombstone: no single item's epoch says when both are fenced.
pub async fn a_tombstone_of_two_items_is_kept_for_ever(bench: &Bench) {
    let (widget, gadget) = (bench.lease(&item("widget"), 10).await, bench.lease(&item("gadget"), 10).await);
    let first = bench.order(&widget);
    let second = NewOrder { id: first.id, ..bench.order(&gadget) };
    assert_eq!(bench.resolve(first.id, Some(&first.stamp)).await, Verdict::Aborted);
    assert_eq!(bench.resolve(second.id, Some(&second.stamp)).await, Verdict::Aborted);
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 0);
    assert_eq!(bench.commit_one(&second).await, CommitOutcome::Aborted, "its lease is the newest still");
    // Asked again under the first item, it is not lowered.
    assert_eq!(bench.resolve(first.id, Some(&first.stamp)).await, Verdict::Aborted);
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 0);
    bench.lease(&item("gadget"), 10).await;
    assert_eq!(bench.prune().await, 0);
}

/// Both asked about at once, the tombstone new.
pub async fn a_new_tombstone_of_two_items_is_kept_for_ever(bench: &Bench) {
    let (widget, gadget) = (bench.lease(&item("widget"), 10).await, bench.lease(&item("gadget"), 10).await);
    let (first, second) = (bench.order(&widget), bench.order(&gadget));
    let ask = |stamp: &Stamp| ResolveQuery { id: first.id, stamp: Some(stamp.clone()) };
    let queries = [ask(&first.stamp), ask(&second.stamp), ask(&first.stamp)];
    assert_eq!(bench.ledger.resolve(&queries).await.expect("answers"), [Verdict::Aborted; 3]);
    bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 0);
    assert_eq!(bench.commit_one(&NewOrder { id: first.id, ..second }).await, CommitOutcome::Aborted);
}

/// Its epoch is 0, and it may go with the first lease only because no hold can be older than that.
pub async fn a_tombstone_of_an_item_never_lent_stops_a_commit_under_its_first_lease(bench: &Bench) {
    let stamp = Stamp { item: item("widget"), epoch: Epoch(1), number: 1 };
    let id = bench.id();
    assert_eq!(bench.resolve(id, Some(&stamp)).await, Verdict::Aborted);
    assert_eq!(bench.prune().await, 0);
    let late = NewOrder { id, ..bench.order(&bench.lease(&item("widget"), 10).await) };
    assert_eq!(bench.commit_one(&late).await, CommitOutcome::Aborted);
}

/// Which is why it may be pruned.
pub async fn a_late_commit_after_pruning_is_fenced(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    bench.resolve(order.id, Some(&order.stamp)).await;
    let newest = bench.lease(&item("widget"), 10).await;
    assert_eq!(bench.prune().await, 1);
    assert_eq!(bench.commit_one(&order).await, CommitOutcome::Fenced(newest.epoch));
}

/// Orders of old epochs stay for ever.
pub async fn pruning_has_a_limit_and_spares_orders(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let sold = bench.order(&lease);
    bench.sell(&sold).await;
    for _ in 0..5 {
        bench.resolve(bench.id(), Some(&bench.order(&lease).stamp)).await;
    }
    bench.lease(&item("widget"), 10).await;
    for pruned in [2, 2, 1, 0] {
        assert_eq!(bench.ledger.prune_tombstones(2).await.expect("answers"), pruned);
    }
    assert!(bench.ledger.order(sold.id).await.expect("answers").is_some());
}
