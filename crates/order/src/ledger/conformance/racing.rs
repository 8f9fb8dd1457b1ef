//! Many callers at once, and callers that go away.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use contracts::values::{Epoch, Lease, ReservationId, Stamp};
use futures::FutureExt;
use service::environment::Environment;

use super::{Bench, item, units};
use crate::ledger::{
    CommitOutcome, LEASE_GRACE_MS, Ledger, NewOrder, OpenOutcome, ResolveQuery, Restock, RestockOutcome, Verdict,
};

const CALLERS: usize = 200;

async fn commit_one(ledger: Arc<dyn Ledger>, order: NewOrder) -> CommitOutcome {
    let mut outcomes = ledger.commit(&[order]).await.expect("the ledger answers");
    outcomes.remove(0).expect("its data is good")
}

/// The others are answered with it.
pub async fn one_id_committed_by_many_is_one_order(bench: &Bench) {
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    let callers = (0..CALLERS).map(|_| commit_one(bench.ledger.clone(), order.clone()));
    let outcomes = side_by_side(&*bench.clock, callers).await;
    let created = outcomes.iter().filter(|outcome| matches!(outcome, CommitOutcome::Created(_))).count();
    let existing = outcomes.iter().filter(|outcome| matches!(outcome, CommitOutcome::Existing(_))).count();
    assert_eq!((created, existing), (1, CALLERS - 1));
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 1);
}

/// I6; the others are told which one.
pub async fn one_key_committed_by_many_is_one_order(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 1000).await;
    let callers = (0..CALLERS).map(|_| commit_one(bench.ledger.clone(), bench.keyed_order(&lease, "k")));
    let outcomes = side_by_side(&*bench.clock, callers).await;
    let mut named = HashSet::new();
    let mut created = 0;
    for outcome in outcomes {
        match outcome {
            CommitOutcome::Created(order) => {
                created += 1;
                named.insert(order.id);
            }
            CommitOutcome::KeyTaken(taken) => {
                named.insert(taken.order.id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((created, named.len()), (1, 1));
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
}

/// All are told the same epoch.
pub async fn one_restock_recorded_by_many_counts_once(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let restock = Restock { id: bench.env().uuid(), item: item("widget"), quantity: units(5) };
    let callers = (0..CALLERS).map(|_| {
        let (ledger, restock) = (bench.ledger.clone(), restock.clone());
        async move { ledger.record_restock(&restock, 10).await.expect("the ledger answers") }
    });
    for outcome in side_by_side(&*bench.clock, callers).await {
        assert_eq!(outcome, RestockOutcome::Journalled(lease.epoch));
    }
    assert_eq!(bench.stock(&item("widget")).await.received, 15);
}

/// While orders come in and batches are settled or given back.
pub async fn two_relays_never_hold_one_event(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 1000).await;
    let held = Arc::new(Mutex::new(HashSet::<ReservationId>::new()));
    let settled = Arc::new(Mutex::new(0));
    let sellers = (0..4).map(|_| {
        let (ledger, orders) = (bench.ledger.clone(), (0..20).map(|_| bench.order(&lease)).collect::<Vec<_>>());
        async move {
            for order in orders {
                commit_one(ledger.clone(), order).await;
            }
        }
        .boxed()
    });
    let relays = (0..4).map(|_| {
        let (ledger, held, settled) = (bench.ledger.clone(), held.clone(), settled.clone());
        async move {
            let mut turn = 0;
            while *settled.lock().expect("whole") < 80 {
                let batch = ledger.take_outbox(5).await.expect("the ledger answers");
                let ids: Vec<ReservationId> = batch.events().iter().map(|event| event.order_id).collect();
                for id in &ids {
                    assert!(held.lock().expect("whole").insert(*id), "{id} is in two hands");
                }
                tokio::task::yield_now().await;
                turn += 1;
                let published: Vec<bool> = ids.iter().enumerate().map(|(n, _)| (n + turn) % 3 != 0).collect();
                for id in &ids {
                    held.lock().expect("whole").remove(id);
                }
                batch.settle(&published).await.expect("the ledger answers");
                *settled.lock().expect("whole") += published.iter().filter(|done| **done).count();
            }
        }
        .boxed()
    });
    side_by_side(&*bench.clock, sellers.chain(relays)).await;
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, 0);
    assert_eq!(bench.stock(&item("widget")).await.sold, 80);
}

/// A stock store as small as can be: the newest lease, and what it has left.
struct Store {
    lease: Lease,
    free: i64,
    number: i64,
}

/// Sells from whatever lease is the store's; says what was created, under which epoch.
async fn sell_from(ledger: Arc<dyn Ledger>, store: Arc<Mutex<Store>>, orders: Vec<NewOrder>) -> Vec<(Epoch, i64)> {
    let mut created = Vec::new();
    for mut order in orders {
        {
            let mut store = store.lock().expect("whole");
            if store.free < order.quantity.get() {
                continue;
            }
            store.free -= order.quantity.get();
            store.number += 1;
            order.stamp = Stamp { epoch: store.lease.epoch, number: store.number, ..order.stamp };
        }
        tokio::task::yield_now().await;
        let (epoch, quantity) = (order.stamp.epoch, order.quantity.get());
        match commit_one(ledger.clone(), order).await {
            CommitOutcome::Created(_) => created.push((epoch, quantity)),
            CommitOutcome::Fenced(newest) => assert!(newest > epoch),
            other => panic!("{other:?}"),
        }
    }
    created
}

/// I3, I7: an order of an older epoch is in the next lease's sold, or is fenced. The events are settled meanwhile.
pub async fn every_lease_has_counted_exactly_the_orders_before_it(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 60).await;
    let store = Arc::new(Mutex::new(Store { free: lease.received, lease: lease.clone(), number: 0 }));
    let sellers: Vec<_> = (0..6)
        .map(|seller| {
            let quantity = units(1 + seller % 3);
            let orders = (0..25).map(|_| NewOrder { quantity, ..bench.order(&lease) }).collect();
            sell_from(bench.ledger.clone(), store.clone(), orders).map(|created| (created, Vec::new())).boxed()
        })
        .collect();
    let (ledger, clock) = (bench.ledger.clone(), bench.clock.clone());
    let opener = async move {
        let mut leases = vec![lease];
        for _ in 0..15 {
            clock.advance(Duration::from_millis(LEASE_GRACE_MS));
            let opened = ledger.open_stock(&item("widget"), 60, Epoch::NONE).await.expect("the ledger answers");
            let OpenOutcome::Lease(lease) = opened else { panic!("the grace is over") };
            tokio::task::yield_now().await;
            *store.lock().expect("whole") =
                Store { free: lease.received - lease.sold, lease: lease.clone(), number: 0 };
            leases.push(lease);
            let batch = ledger.take_outbox(5).await.expect("the ledger answers");
            let published = vec![true; batch.events().len()];
            batch.settle(&published).await.expect("the ledger answers");
        }
        (Vec::new(), leases)
    };
    let done = side_by_side(&*bench.clock, sellers.into_iter().chain([opener.boxed()])).await;
    let created: Vec<(Epoch, i64)> = done.iter().flat_map(|(created, _)| created).copied().collect();
    let mut leases: Vec<Lease> = done.into_iter().flat_map(|(_, leases)| leases).collect();
    leases.push(bench.lease(&item("widget"), 60).await);
    for lease in leases {
        let before: i64 = created.iter().filter(|(epoch, _)| *epoch < lease.epoch).map(|(_, units)| units).sum();
        assert_eq!(lease.sold, before, "{lease:?}");
        assert!(lease.received == 60 && lease.sold <= 60, "{lease:?}");
    }
}

/// I5: whichever comes first, both callers learn it.
pub async fn an_order_and_a_tombstone_exclude_each_other(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 1000).await;
    let orders: Vec<NewOrder> = (0..60).map(|_| bench.order(&lease)).collect();
    let races = orders.into_iter().map(|order| {
        let ledger = bench.ledger.clone();
        async move {
            let query = [ResolveQuery { id: order.id, stamp: Some(order.stamp.clone()) }];
            let (outcome, verdict) = futures::join!(commit_one(ledger.clone(), order), ledger.resolve(&query));
            (outcome, verdict.expect("the ledger answers")[0])
        }
    });
    let mut sold = 0;
    for pair in side_by_side(&*bench.clock, races).await {
        match pair {
            (CommitOutcome::Created(_), Verdict::Confirmed) => sold += 1,
            (CommitOutcome::Aborted, Verdict::Aborted) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.stock(&item("widget")).await.sold, sold);
}

/// Most steps that a commit of one order may take.
const COMMIT_STEPS_MAX: usize = 200;

/// Polls whenever there is progress, so many times; gives up at once or at the next progress. Says whether it was done.
async fn take_steps(work: &mut (impl Future<Output: Send> + Unpin), steps: usize, at_once: bool) -> bool {
    let mut taken = 0;
    poll_fn(|context| {
        if taken == steps {
            return Poll::Ready(false);
        }
        taken += 1;
        match work.poll_unpin(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if at_once && taken == steps => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Whatever step it was at: its order is there whole or not at all, and the next caller is served.
pub async fn a_caller_that_goes_away_leaves_no_half_order(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10_000).await;
    let mut gone = Vec::new();
    let mut last_step_seen = false;
    for steps in 0..COMMIT_STEPS_MAX {
        for at_once in [true, false] {
            let order = bench.keyed_order(&lease, &format!("key {steps} {at_once}"));
            let batch = [order.clone()];
            let mut commit = bench.ledger.commit(&batch);
            last_step_seen |= take_steps(&mut commit, steps, at_once).await;
            drop(commit);
            gone.push(order);
            bench.sell(&bench.order(&lease)).await;
        }
        if last_step_seen {
            break;
        }
    }
    assert!(last_step_seen, "a commit has an end");
    let count = i64::try_from(gone.len()).expect("few");
    let mut sold = count;
    for order in &gone {
        let by_id = bench.ledger.order(order.id).await.expect("answers");
        let (key, _) = order.key.as_ref().expect("it has one");
        let by_key = bench.ledger.order_by_key(key).await.expect("answers").map(|keyed| keyed.order);
        assert_eq!(by_id, by_key);
        sold += i64::from(by_id.is_some());
    }
    assert!(count < sold && sold < 2 * count, "some were gone before the end, and some after it");
    assert_eq!(bench.stock(&item("widget")).await.sold, sold);
    assert_eq!(bench.ledger.outbox_backlog().await.expect("answers").events, u64::try_from(sold).expect("positive"));
    // Asked again with the same id, each is sold once.
    for order in &gone {
        let outcome = bench.commit_one(order).await;
        assert!(matches!(outcome, CommitOutcome::Created(_) | CommitOutcome::Existing(_)), "{outcome:?}");
    }
    assert_eq!(bench.stock(&item("widget")).await.sold, 2 * count);
}

/// Runs tasks side by side and waits for all of them.
async fn side_by_side<T: Send + 'static>(
    environment: &dyn Environment,
    tasks: impl IntoIterator<Item: Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let running: Vec<_> = tasks.into_iter().map(|task| environment.detached(task)).collect();
    let done = futures::future::join_all(running).await;
    done.into_iter().map(|result| result.expect("the task did not panic")).collect()
}
