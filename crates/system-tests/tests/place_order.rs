//! Placing an order, over the real ledger and stock store, with one thing going wrong at a chosen moment. The test names
//! say which rule of ARCHITECTURE.md, "Place an order", each of them shows.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use broker::Broker;
use contracts::{
    Reason,
    values::{Epoch, ReservationId, Stamp},
};
use futures::future::join_all;
use inventory::reservations::Reserved;
use order::{
    attempt::{fingerprint, reservation_id},
    ledger::{Ledger, NewOrder, OpenOutcome, ResolveQuery, Verdict},
    place_order::{FENCES_MAX, Placement},
};
use system_tests::{
    eventually,
    wired::{Fate, Wired, attempt, hold_request, item, key, placement, units},
};
use tokio::sync::Semaphore;
use uuid::Uuid;

#[tokio::test]
async fn orders_that_wait_for_the_committer_are_committed_in_one_transaction() {
    let wired = Arc::new(Wired::new(1_000).await);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    wired
        .script_commits(Box::new(move |_| {
            let gate = held.clone();
            Box::pin(async move {
                gate.acquire().await.expect("open").forget();
                Fate::Happens
            })
        }))
        .await;
    let place = |n: u32| {
        let wired = wired.clone();
        tokio::spawn(async move { wired.place(1, attempt(&format!("a{n}"))).await })
    };
    let first = place(0);
    eventually(Duration::from_secs(5), "the first is being committed", async || {
        (wired.seams.commits.lock().expect("whole").len() == 1).then_some(())
    })
    .await;
    let rest: Vec<_> = (1..=64).map(place).collect();
    eventually(Duration::from_secs(5), "all wait", async || (wired.committer.waiting() == 64).then_some(())).await;
    gate.add_permits(1_000);
    for placed in join_all(std::iter::once(first).chain(rest)).await {
        assert!(placed.expect("no panic").is_ok());
    }
    assert_eq!(*wired.seams.commits.lock().expect("whole"), [1, 64]);
}

#[tokio::test]
async fn an_order_that_finds_the_committer_idle_does_not_wait_for_others() {
    let wired = Wired::new(10).await;
    for n in 0..3 {
        wired.place(1, attempt(&format!("a{n}"))).await.expect("placed");
    }
    assert_eq!(*wired.seams.commits.lock().expect("whole"), [1, 1, 1]);
}

/// What happens to an order just before its commit.
#[derive(Clone, Copy)]
enum Mishap {
    /// Another lease fences its hold.
    Fence,
    /// The ledger aborts its id.
    Abort,
}

/// The next `times` commits meet this.
async fn before_commits(wired: &Wired, mishap: Mishap, times: u32) {
    let ledger = wired.ledger.clone();
    let mut left = times;
    wired
        .script_commits(Box::new(move |orders| {
            let (ledger, meets) = (ledger.clone(), left > 0);
            left = left.saturating_sub(1);
            Box::pin(async move {
                let (id, stamp) = (orders[0].id, orders[0].stamp.clone());
                match mishap {
                    _ if !meets => {}
                    Mishap::Fence => {
                        let lease = ledger.open_stock(&stamp.item, 10, stamp.epoch).await.expect("answered");
                        assert!(matches!(lease, OpenOutcome::Lease(_)));
                    }
                    Mishap::Abort => {
                        let query = ResolveQuery { id, stamp: Some(stamp) };
                        assert_eq!(ledger.resolve(&[query]).await.expect("answered"), [Verdict::Aborted]);
                    }
                }
                Fate::Happens
            })
        }))
        .await;
}

#[tokio::test]
async fn a_fenced_order_is_placed_under_the_next_lease() {
    let wired = Wired::new(10).await;
    before_commits(&wired, Mishap::Fence, 1).await;
    let placed = wired.place(3, key("k")).await.expect("placed");
    assert!(!placed.replayed);
    assert_eq!(wired.orders().await.len(), 1);
    assert_eq!(wired.free().await, 7, "the fenced hold went with its lease");
    let reserves = wired.seams.reserves.lock().expect("whole");
    assert_ne!(reserves[0].id, reserves[1].id, "a fenced id is dead");
    assert!(reserves[1].least_epoch > Epoch(1), "the next hold is of a newer lease");
}

#[tokio::test]
async fn an_order_that_is_fenced_again_and_again_is_told_to_come_back() {
    let wired = Wired::new(10).await;
    before_commits(&wired, Mishap::Fence, FENCES_MAX + 1).await;
    let failure = wired.place(3, key("k")).await.expect_err("fenced");
    assert_eq!(failure.reason, Reason::Unavailable);
    assert!(wired.orders().await.is_empty());
    // The key is not dead: once the leases are quiet the same request goes through.
    assert!(!wired.place(3, key("k")).await.expect("placed").replayed);
    assert_eq!(wired.free().await, 7);
}

#[tokio::test]
async fn an_order_that_meets_a_tombstone_is_placed_under_another_id() {
    let wired = Wired::new(10).await;
    before_commits(&wired, Mishap::Abort, 1).await;
    let placed = wired.place(3, key("k")).await.expect("placed");
    assert_eq!(wired.orders().await, [placed.order]);
    assert_eq!(wired.free().await, 7, "the aborted hold is given back at once");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_the_same_order() {
    for identity in [key("k"), attempt("a")] {
        let wired = Wired::new(10).await;
        let mut first = true;
        wired
            .script_commits(Box::new(move |_| {
                let fate = if std::mem::take(&mut first) { Fate::AnswerLost } else { Fate::Happens };
                Box::pin(async move { fate })
            }))
            .await;
        let placed = wired.place(3, identity).await.expect("placed");
        assert!(!placed.replayed, "nobody was told of it before");
        assert_eq!(wired.orders().await, [placed.order]);
        assert_eq!(wired.free().await, 7);
        assert!(wired.seams.releases.lock().expect("whole").is_empty(), "nothing is released on doubt");
        assert_eq!(wired.seams.reserves.lock().expect("whole").len(), 1);
    }
}

#[tokio::test]
async fn when_the_ledger_stays_away_the_hold_is_kept_and_the_repeat_uses_it() {
    let wired = Wired::new(10).await;
    let failing = Arc::new(AtomicU32::new(u32::MAX));
    let left = failing.clone();
    wired
        .script_commits(Box::new(move |_| {
            let fate = if left.load(Ordering::SeqCst) > 0 { Fate::Lost } else { Fate::Happens };
            Box::pin(async move { fate })
        }))
        .await;
    let failure = wired.place(3, key("k")).await.expect_err("no ledger");
    assert_eq!(failure.reason, Reason::Unavailable);
    assert_eq!(wired.free().await, 7, "nothing is released on doubt");
    failing.store(0, Ordering::SeqCst);
    wired.place(3, key("k")).await.expect("placed");
    assert_eq!(wired.free().await, 7, "one hold for both");
}

#[tokio::test]
async fn a_reserve_that_gets_no_answer_is_repeated_under_the_same_id() {
    for lost in [Fate::Lost, Fate::AnswerLost] {
        let wired = Wired::new(10).await;
        let mut first = true;
        wired
            .script_reserves(Box::new(move |_| {
                let fate = if std::mem::take(&mut first) { lost } else { Fate::Happens };
                Box::pin(async move { fate })
            }))
            .await;
        let failure = wired.place(3, attempt("a")).await.expect_err("no answer");
        assert_eq!(failure.reason, Reason::Unavailable);
        wired.place(3, attempt("a")).await.expect("placed");
        assert_eq!(wired.free().await, 7, "one hold");
        let reserves = wired.seams.reserves.lock().expect("whole");
        assert_eq!(reserves[0].id, reserves[1].id);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_the_order_half_way() {
    let wired = Arc::new(Wired::new(10).await);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    wired
        .script_reserves(Box::new(move |_| {
            let gate = held.clone();
            Box::pin(async move {
                gate.acquire().await.expect("open").forget();
                Fate::Happens
            })
        }))
        .await;
    let caller = {
        let wired = wired.clone();
        tokio::spawn(async move { wired.place(3, attempt("a")).await })
    };
    eventually(Duration::from_secs(5), "it holds the units", async || {
        (wired.seams.reserves.lock().expect("whole").len() == 1).then_some(())
    })
    .await;
    caller.abort();
    assert!(caller.await.expect_err("aborted").is_cancelled());
    gate.add_permits(1);
    eventually(Duration::from_secs(5), "the order stands", async || (wired.orders().await.len() == 1).then_some(()))
        .await;
}

#[tokio::test]
async fn one_key_is_one_order_and_stands_for_one_content() {
    let wired = Wired::new(10).await;
    let first = wired.place(3, key("k")).await.expect("placed");
    let again = wired.place(3, key("k")).await.expect("answered");
    assert_eq!((again.order, again.replayed), (first.order, true));
    let other = wired.place(4, key("k")).await.expect_err("other content");
    assert_eq!(other.reason, Reason::IdempotencyKeyReused);
    assert_eq!(wired.free().await, 7);
    assert_eq!(wired.seams.reserves.lock().expect("whole").len(), 1, "what is known needs no hold");
}

#[tokio::test]
async fn concurrent_requests_with_one_key_and_two_contents_make_one_order() {
    let wired = Wired::new(100).await;
    for round in 0..20 {
        let identity = key(&format!("k{round}"));
        let results = join_all((0..10).map(|n| wired.place(1 + n % 2, identity.clone()))).await;
        let (placed, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let first = placed[0].as_ref().expect("placed").order.id;
        assert!(placed.iter().all(|p| p.as_ref().is_ok_and(|p| p.order.id == first)));
        assert!(refused.iter().all(|r| r.as_ref().is_err_and(|f| f.reason == Reason::IdempotencyKeyReused)));
        assert_eq!(placed.len(), 5, "{refused:?}");
    }
    let sold: i64 = wired.orders().await.iter().map(|order| order.quantity.get()).sum();
    assert_eq!(wired.orders().await.len(), 20);
    assert_eq!(wired.free().await, 100 - sold, "the loser's hold is given back at once");
}

#[tokio::test]
async fn a_repeat_that_finds_its_own_order_has_taken_the_last_units_is_not_refused() {
    let wired = Wired::new(3).await;
    let (ledger, reservations, call) = (wired.ledger.clone(), wired.reservations.clone(), wired.call());
    let (fingerprint, now) = (fingerprint(&item("widget"), units(3), None), wired.env.now());
    // The repeat has looked its key up and found nothing. Now the first try, which was fenced once, sells all there is
    // under its second id.
    wired
        .script_reserves(Box::new(move |_| {
            let (ledger, reservations, call) = (ledger.clone(), reservations.clone(), call.clone());
            Box::pin(async move {
                let id = reservation_id(&key("k"), &fingerprint, 1);
                let hold = hold_request(id, 3);
                let Reserved::Held { stamp, .. } = reservations.reserve(&call, &hold).await.expect("answered") else {
                    panic!("three units are free");
                };
                let key = Some((key("k").request_key(&fingerprint), fingerprint));
                let order =
                    NewOrder { id, stamp, quantity: units(3), key, created_at: now, traceparent: String::new() };
                ledger.commit(&[order]).await.expect("committed");
                Fate::Happens
            })
        }))
        .await;
    let placed = wired.place(3, key("k")).await.expect("its own order is found");
    assert_eq!(wired.orders().await, [placed.order]);
    assert!(placed.replayed);
}

#[tokio::test]
async fn an_attempt_id_that_a_proxy_repeats_is_one_order_and_no_replay() {
    let wired = Wired::new(10).await;
    let first = wired.place(3, attempt("a")).await.expect("placed");
    let again = wired.place(3, attempt("a")).await.expect("placed");
    assert_eq!(first, again);
    assert!(!again.replayed);
    assert_eq!(wired.free().await, 7);
}

#[tokio::test]
async fn a_refused_order_leaves_no_trace() {
    let wired = Wired::new(10).await;
    let failure = wired.place(11, key("k")).await.expect_err("too many");
    assert_eq!((failure.reason, failure.remaining), (Reason::InsufficientStock, Some(10)));
    let stock = wired.ledger.stock(&[item("widget")], 10).await.expect("answered")[0];
    assert_eq!(stock.epoch, Epoch::NONE, "nothing was opened");
    assert_eq!(wired.ledger.outbox_backlog().await.expect("answered").events, 0);
    // The refusal is not remembered: the key can still be used.
    wired.place(10, key("k")).await.expect("placed");
}

fn on_hold(quantity: i64, id: ReservationId, name: &str) -> Placement {
    Placement { reservation: Some(id), ..placement(quantity, attempt(name)) }
}

#[tokio::test]
async fn a_commit_in_doubt_does_not_answer_the_order_that_another_key_made_of_the_hold() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    let (ledger, mut first) = (wired.ledger.clone(), true);
    wired
        .script_commits(Box::new(move |orders| {
            let (ledger, first) = (ledger.clone(), std::mem::take(&mut first));
            Box::pin(async move {
                let other = NewOrder { key: None, ..orders[0].clone() };
                if first {
                    ledger.commit(&[other]).await.expect("answered").remove(0).expect("committed");
                }
                if first { Fate::Lost } else { Fate::Happens }
            })
        }))
        .await;
    let late = Placement { reservation: Some(id), ..placement(3, key("late")) };
    let failure = wired.order.place(late, wired.call()).await.expect_err("the hold is another's order");
    assert_eq!(failure.reason, Reason::ReservationConfirmed);
}

#[tokio::test]
async fn a_clients_hold_becomes_the_order() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    let placed = wired.order.place(on_hold(3, id, "a"), wired.call()).await.expect("placed");
    assert_eq!(placed.order.id, id);
    assert_eq!(wired.free().await, 7);
    let again = wired.order.place(on_hold(3, id, "b"), wired.call()).await.expect("the same order");
    assert!(again.replayed);
    let release = wired.reservations.release(&wired.call(), id, None).await.expect_err("it is an order");
    assert_eq!(release.reason, Reason::ReservationConfirmed);
}

#[tokio::test]
async fn an_order_of_other_content_than_its_hold_is_refused() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    let failure = wired.order.place(on_hold(4, id, "a"), wired.call()).await.expect_err("other quantity");
    assert_eq!(failure.reason, Reason::ReservationMismatch);
    assert_eq!(wired.free().await, 7, "the hold stays");
}

#[tokio::test]
async fn a_released_hold_can_no_longer_become_an_order() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    wired.reservations.release(&wired.call(), id, None).await.expect("released");
    assert_eq!(wired.free().await, 10);
    let failure = wired.order.place(on_hold(3, id, "a"), wired.call()).await.expect_err("released");
    assert_eq!(failure.reason, Reason::ReservationReleased);
    assert_eq!(wired.free().await, 10);
}

#[tokio::test]
async fn an_order_on_a_hold_past_its_deadline_is_refused_before_the_reaper_comes_and_after() {
    let wired = Wired::new(10).await;
    let (first, second) = (wired.short_hold(3).await, wired.short_hold(4).await);
    tokio::time::sleep(Duration::from_millis(1_010)).await;
    let refused = async |quantity, id| {
        let failure = wired.order.place(on_hold(quantity, id, "a"), wired.call()).await.expect_err("it is over");
        assert_eq!(failure.reason, Reason::ReservationReleased);
    };
    refused(3, first).await;
    assert_eq!(wired.free().await, 6, "its units are back at once");
    assert_eq!(wired.inventory.reaper().reap_once().await, Ok(1));
    for (quantity, id) in [(3, first), (4, second), (5, second)] {
        refused(quantity, id).await;
    }
    // The store has forgotten, the ledger has not.
    wired.stock.wipe();
    refused(4, second).await;
    assert_eq!(wired.free().await, 10);
}

#[tokio::test]
async fn an_order_on_a_hold_that_is_an_order_holds_nothing() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    let keyed = |name: &str, quantity| Placement { identity: key(name), ..on_hold(quantity, id, "unused") };
    let first = wired.order.place(keyed("k", 3), wired.call()).await.expect("placed");
    wired.stock.wipe();
    wired.place(7, attempt("another")).await.expect("placed, and nothing is left");
    let reserves = wired.seams.reserves.lock().expect("whole").len();
    for again in [keyed("k", 3), on_hold(3, id, "b")] {
        let placed = wired.order.place(again, wired.call()).await.expect("the same order");
        assert_eq!((&placed.order, placed.replayed), (&first.order, true));
    }
    for (refused, reason) in [
        (keyed("other", 3), Reason::ReservationConfirmed),
        (keyed("k", 4), Reason::IdempotencyKeyReused),
        (keyed("other", 4), Reason::ReservationMismatch),
        (on_hold(4, id, "b"), Reason::ReservationMismatch),
    ] {
        let failure = wired.order.place(refused, wired.call()).await.expect_err("the hold is that order");
        assert_eq!(failure.reason, reason);
    }
    assert_eq!(wired.seams.reserves.lock().expect("whole").len(), reserves);
}

/// Both have one key, and the first is committed while the second looks for it.
#[tokio::test]
async fn the_second_of_two_orders_on_a_hold_under_one_key_is_answered_whenever_the_first_is_committed() {
    for looks in 0..2 {
        let wired = Wired::new(10).await;
        let id = wired.hold(3).await;
        let placement = Placement { identity: key("k"), ..on_hold(3, id, "unused") };
        let fingerprint = fingerprint(&item("widget"), units(3), Some(id));
        let (ledger, created_at, mut before): (_, _, i32) = (wired.ledger.clone(), wired.env.now(), looks);
        wired
            .script_reads(Box::new(move |()| {
                let (ledger, now) = (ledger.clone(), before == 0);
                before -= 1;
                Box::pin(async move {
                    if now {
                        let stamp = Stamp { item: item("widget"), epoch: Epoch(1), number: 1 };
                        let key = Some((key("k").request_key(&fingerprint), fingerprint));
                        let traceparent = String::new();
                        let order = NewOrder { id, stamp, quantity: units(3), key, created_at, traceparent };
                        ledger.commit(&[order]).await.expect("answered").remove(0).expect("committed");
                    }
                    Fate::Happens
                })
            }))
            .await;
        let placed = wired.order.place(placement, wired.call()).await.expect("its own order");
        assert!(placed.replayed && placed.order.id == id, "{placed:?}");
        assert_eq!(wired.orders().await.len(), 1);
    }
}

/// The first of two is committed while the second reserves, and its hold falls due before anybody has confirmed it.
#[tokio::test]
async fn an_order_on_an_overdue_hold_that_is_an_order_is_answered_with_it() {
    for keyed in [false, true] {
        let wired = Wired::new(10).await;
        let id = wired.short_hold(3).await;
        let (ledger, env) = (wired.ledger.clone(), wired.env.clone());
        wired
            .script_reserves(Box::new(move |_| {
                let (ledger, env) = (ledger.clone(), env.clone());
                Box::pin(async move {
                    let stamp = Stamp { item: item("widget"), epoch: Epoch(1), number: 1 };
                    let order = NewOrder {
                        id,
                        stamp,
                        quantity: units(3),
                        key: None,
                        created_at: env.now(),
                        traceparent: String::new(),
                    };
                    ledger.commit(&[order]).await.expect("answered").remove(0).expect("committed");
                    env.sleep(Duration::from_millis(1_010)).await;
                    Fate::Happens
                })
            }))
            .await;
        let identity = if keyed { key("k") } else { attempt("a") };
        let answer = wired.order.place(Placement { identity, ..on_hold(3, id, "unused") }, wired.call()).await;
        match answer {
            Ok(placed) => assert!(!keyed && placed.replayed && placed.order.id == id, "{placed:?}"),
            Err(failure) => assert!(keyed && failure.reason == Reason::ReservationConfirmed, "{failure:?}"),
        }
        assert_eq!(wired.orders().await.len(), 1);
    }
}

#[tokio::test]
async fn a_hold_that_was_lost_with_the_stock_store_is_made_again_under_its_id() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    wired.stock.wipe();
    let placed = wired.order.place(on_hold(3, id, "a"), wired.call()).await.expect("placed");
    assert_eq!(placed.order.id, id);
    assert_eq!(wired.free().await, 7);
}

#[tokio::test]
async fn a_stock_store_that_is_wiped_between_hold_and_commit_sells_nothing_twice() {
    let wired = Wired::new(10).await;
    let stock = wired.stock.clone();
    let reservations = wired.reservations.clone();
    let call = wired.call();
    let mut first = true;
    wired
        .script_commits(Box::new(move |_| {
            let wipe = std::mem::take(&mut first);
            let (stock, reservations, call) = (stock.clone(), reservations.clone(), call.clone());
            Box::pin(async move {
                if wipe {
                    stock.wipe();
                    // Somebody else's request opens the item anew, before the first order is committed.
                    let request = hold_request(ReservationId(Uuid::from_u128(1)), 10);
                    let held = reservations.reserve(&call, &request).await.expect("answered");
                    assert!(matches!(held, Reserved::Held { .. }));
                }
                Fate::Happens
            })
        }))
        .await;
    let failure = wired.place(3, key("k")).await.expect_err("all ten units are held by another");
    assert_eq!(failure.reason, Reason::InsufficientStock);
    assert!(wired.orders().await.is_empty());
}

#[tokio::test]
async fn an_attempt_that_was_fenced_is_one_order_when_a_proxy_repeats_it() {
    let wired = Wired::new(10).await;
    before_commits(&wired, Mishap::Fence, 1).await;
    let first = wired.place(3, attempt("a")).await.expect("placed");
    let again = wired.place(3, attempt("a")).await.expect("the same order");
    assert_eq!(first, again);
    assert_eq!(wired.orders().await.len(), 1);
    assert_eq!(wired.free().await, 7);
}

#[tokio::test]
async fn an_attempt_that_met_a_tombstone_is_one_order_after_the_tombstone_is_gone() {
    let wired = Wired::new(10).await;
    before_commits(&wired, Mishap::Abort, 1).await;
    let first = wired.place(3, attempt("a")).await.expect("placed");
    wired.stock.wipe();
    wired.place(1, attempt("another")).await.expect("placed, under a new lease");
    assert_eq!(wired.ledger.prune_tombstones(100).await.expect("pruned"), 1);
    let again = wired.place(3, attempt("a")).await.expect("the same order");
    assert_eq!(first, again);
    assert_eq!(wired.orders().await.len(), 2);
}

#[tokio::test]
async fn a_repeat_finds_its_order_although_the_store_has_lost_it_and_nothing_is_left() {
    let wired = Wired::new(1).await;
    let first = wired.place(1, attempt("a")).await.expect("placed");
    wired.stock.wipe();
    assert_eq!(wired.place(1, attempt("a")).await.expect("the same order"), first);

    let wired = Wired::new(1).await;
    let id = wired.hold(1).await;
    let first = wired.order.place(on_hold(1, id, "a"), wired.call()).await.expect("placed");
    wired.stock.wipe();
    for name in ["a", "b"] {
        let again = wired.order.place(on_hold(1, id, name), wired.call()).await.expect("the same order");
        assert_eq!(again.order, first.order);
    }
}

#[tokio::test]
async fn a_key_never_names_an_order_that_is_not_its_own() {
    let wired = Wired::new(10).await;
    let id = wired.hold(3).await;
    wired.order.place(on_hold(3, id, "a"), wired.call()).await.expect("placed");
    let keyed = Placement { identity: key("k"), ..on_hold(3, id, "a") };
    let failure = wired.order.place(keyed, wired.call()).await.expect_err("the hold is another's order");
    assert_eq!(failure.reason, Reason::ReservationConfirmed);
    // So the key is still free.
    wired.place(1, key("k")).await.expect("placed");
}

#[tokio::test]
async fn a_key_survives_any_number_of_dead_ids() {
    const DEAD: u32 = 200;
    let wired = Wired::new(10).await;
    before_commits(&wired, Mishap::Abort, DEAD).await;
    wired.place(1, key("k")).await.expect("placed");
    assert!(wired.seams.commits.lock().expect("whole").len() > DEAD as usize);
    assert_eq!(wired.free().await, 9);
}

#[tokio::test]
async fn events_leave_although_nobody_can_count_them() {
    let wired = Wired::new(100).await;
    wired.seams.uncounted.store(true, Ordering::Relaxed);
    wired.place(1, key("k")).await.expect("placed");
    let queue = contracts::event::ORDER_CREATED;
    eventually(Duration::from_secs(5), "the event leaves", async || {
        // Unknown until the relay has declared it.
        (wired.broker.depth(queue).await.is_ok_and(|depth| depth == 1)).then_some(())
    })
    .await;
}
