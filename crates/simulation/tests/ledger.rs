//! The ledger suite over the simulated ledger, and what only a simulation can show.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use contracts::values::{Epoch, Lease};
use futures::{FutureExt, executor::block_on, future::BoxFuture, poll};
use order::ledger::{
    CommitOutcome, Ledger, NewOrder, OpenOutcome, Verdict,
    conformance::{Bench, LedgerFixture, item, request_key, units},
    postgres::{IDLE_IN_TRANSACTION_MAX_MS, OUTBOX_HOLD_MAX_MS},
};
use service::{
    environment::Env,
    manual::ManualEnvironment,
    planted::{self, Bug},
};
use simulation::ledger::{Database, Fate, SimLedger};
use tokio::sync::Notify;

struct Fixture(Arc<SimLedger>);

#[async_trait]
impl LedgerFixture for Fixture {
    async fn fresh(env: Env) -> Self {
        let pause = Arc::new(|_| tokio::task::yield_now().boxed());
        Self(SimLedger::new(Database::new(env.clone(), pause), env))
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.0.clone()
    }

    async fn sql(&self, _statement: &'static str) -> Option<Result<(), String>> {
        None
    }
}

order::ledger_conformance!(Fixture);

/// Holds whoever comes to one statement next.
#[derive(Default)]
struct Gate {
    closed: Mutex<Option<&'static str>>,
    opened: Arc<Notify>,
}

impl Gate {
    fn pause(&self, name: &'static str) -> BoxFuture<'static, ()> {
        let mut closed = self.closed.lock().expect("whole");
        if closed.take_if(|closed| *closed == name).is_none() {
            return futures::future::ready(()).boxed();
        }
        let opened = self.opened.clone();
        async move { opened.notified().await }.boxed()
    }

    fn close(&self, name: &'static str) {
        *self.closed.lock().expect("whole") = Some(name);
    }

    fn open(&self) {
        self.opened.notify_one();
    }
}

struct Sim {
    bench: Bench,
    database: Arc<Database>,
    gate: Arc<Gate>,
    fate: Arc<Mutex<Fate>>,
}

fn sim() -> Sim {
    let clock = ManualEnvironment::new(1);
    let (gate, fate) = (Arc::new(Gate::default()), Arc::new(Mutex::new(Fate::Answered)));
    let (at_gate, fates) = (gate.clone(), fate.clone());
    let database = Database::new(clock.clone(), Arc::new(move |name| at_gate.pause(name)));
    let fates = Arc::new(move |_: &'static str| *fates.lock().expect("whole"));
    let ledger = SimLedger::with_fates(database.clone(), clock.clone(), fates);
    Sim { bench: Bench::over(Fixture(ledger), clock), database, gate, fate }
}

impl Sim {
    /// Does `work` up to this statement.
    async fn up_to(&self, name: &'static str, work: &mut (impl Future<Output: Send> + Unpin)) {
        self.gate.close(name);
        assert!(poll!(work).is_pending(), "{name} is on the way");
        assert!(self.gate.closed.lock().expect("whole").is_none(), "{name} was reached");
    }

    fn pass(&self, millis: u64) {
        self.bench.clock.advance(Duration::from_millis(millis));
    }

    async fn lease(&self) -> Lease {
        self.bench.lease(&item("widget"), 10).await
    }
}

#[test]
fn an_order_waits_for_what_has_its_key_and_then_sees_it_or_takes_its_place() {
    block_on(async {
        for is_committed in [true, false] {
            let sim = sim();
            let lease = sim.lease().await;
            let (one, two) = ([sim.bench.keyed_order(&lease, "k")], [sim.bench.keyed_order(&lease, "k")]);
            let mut first = sim.bench.ledger.commit(&one);
            sim.up_to("ledger: commit", &mut first).await;
            let mut second = sim.bench.ledger.commit(&two);
            assert!(poll!(&mut second).is_pending(), "it waits");
            if is_committed {
                sim.gate.open();
                first.await.expect("answers");
            } else {
                drop(first);
            }
            let outcome = second.await.expect("answers").remove(0).expect("good data");
            match (is_committed, outcome) {
                (true, CommitOutcome::KeyTaken(taken)) => assert_eq!(taken.order.id, one[0].id),
                (false, CommitOutcome::Created(order)) => assert_eq!(order.id, two[0].id),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_lease_waits_for_an_order_and_has_counted_it() {
    block_on(async {
        let sim = sim();
        let lease = sim.lease().await;
        let order = [sim.bench.order(&lease)];
        let mut commit = sim.bench.ledger.commit(&order);
        sim.up_to("ledger: insert", &mut commit).await;
        let widget = item("widget");
        let mut lend = sim.bench.ledger.open_stock(&widget, 10, lease.epoch);
        assert!(poll!(&mut lend).is_pending(), "it waits for the item");
        sim.gate.open();
        commit.await.expect("answers");
        let OpenOutcome::Lease(next) = lend.await.expect("answers") else { panic!("the last one is dead") };
        assert_eq!((next.epoch, next.sold), (lease.epoch.next(), 1));
    });
}

#[test]
fn whoever_is_frozen_in_a_transaction_loses_it_after_a_second() {
    block_on(async {
        let sim = sim();
        let lease = sim.lease().await;
        let order = [sim.bench.order(&lease)];
        let mut frozen = sim.bench.ledger.commit(&order);
        sim.up_to("ledger: insert", &mut frozen).await;
        let widget = item("widget");
        let mut lend = sim.bench.ledger.open_stock(&widget, 10, lease.epoch);
        assert!(poll!(&mut lend).is_pending());
        sim.pass(IDLE_IN_TRANSACTION_MAX_MS - 1);
        assert!(poll!(&mut lend).is_pending(), "not yet");
        sim.pass(1);
        assert!(matches!(lend.await.expect("answers"), OpenOutcome::Lease(_)));
        sim.gate.open();
        frozen.await.expect_err("its transaction is gone");
        let outcome = sim.bench.commit_one(&order[0]).await;
        assert_eq!(outcome, CommitOutcome::Fenced(lease.epoch.next()));
    });
}

#[test]
fn a_relay_may_hold_its_events_for_ten_seconds() {
    block_on(async {
        let sim = sim();
        sim.bench.sell(&sim.bench.order(&sim.lease().await)).await;
        let held = sim.bench.ledger.take_outbox(10).await.expect("answers");
        sim.pass(OUTBOX_HOLD_MAX_MS - 1);
        assert!(sim.bench.ledger.take_outbox(10).await.expect("answers").events().is_empty());
        sim.pass(1);
        let again = sim.bench.ledger.take_outbox(10).await.expect("answers");
        assert_eq!(again.events(), held.events());
        held.settle(&[true]).await.expect_err("they are another's");
        again.settle(&[true]).await.expect("answers");
        assert_eq!(sim.bench.stock(&item("widget")).await.sold, 1);
    });
}

#[test]
fn an_event_of_a_lower_number_may_be_seen_later() {
    block_on(async {
        let sim = sim();
        let lease = sim.lease().await;
        let (one, two) = ([sim.bench.order(&lease)], sim.bench.order(&lease));
        let mut first = sim.bench.ledger.commit(&one);
        sim.up_to("ledger: commit", &mut first).await;
        sim.bench.sell(&two).await;
        let numbers = || sim.database.read(|tables| tables.outbox.keys().copied().collect::<Vec<_>>());
        assert_eq!(numbers(), [2]);
        sim.gate.open();
        first.await.expect("answers");
        assert_eq!(numbers(), [1, 2]);
    });
}

#[test]
fn an_answer_is_lost_before_or_after_the_effect() {
    block_on(async {
        let sim = sim();
        let lease = sim.lease().await;
        for (fate, is_there) in [(Fate::LostBefore, false), (Fate::LostAfter, true), (Fate::Down, false)] {
            let order = sim.bench.order(&lease);
            let version = sim.database.version();
            *sim.fate.lock().expect("whole") = fate;
            sim.bench.ledger.commit(std::slice::from_ref(&order)).await.expect_err("its answer is lost");
            *sim.fate.lock().expect("whole") = Fate::Answered;
            assert_eq!(sim.database.read(|tables| tables.verdicts.contains_key(&order.id)), is_there, "{fate:?}");
            assert_eq!(sim.database.version() > version, is_there, "{fate:?}");
        }
    });
}

#[test]
fn a_database_is_restored_with_nothing_left_under_way() {
    block_on(async {
        let sim = sim();
        let lease = sim.lease().await;
        let older = sim.database.snapshot();
        sim.bench.sell(&sim.bench.order(&lease)).await;
        let order = [sim.bench.order(&lease)];
        let mut under_way = sim.bench.ledger.commit(&order);
        sim.up_to("ledger: commit", &mut under_way).await;
        sim.database.restore_older(older.clone());
        sim.gate.open();
        under_way.await.expect_err("its connection is gone");
        assert_eq!(sim.database.snapshot(), older);
        assert_eq!(sim.database.read(|tables| tables.received(&item("widget"))), Some(10));
    });
}

/// What `work` shows on a fresh ledger, without the bug and with it.
fn shown<T, W: Future<Output = T>>(bug: Bug, work: impl Fn(Sim) -> W) -> (T, T) {
    let show = |planted: Option<Bug>| planted::with(planted, || block_on(work(sim())));
    (show(None), show(Some(bug)))
}

/// What becomes of an order whose lease is over, if `first` was done before.
async fn late(sim: &Sim, order: &NewOrder) -> CommitOutcome {
    sim.lease().await;
    sim.bench.commit_one(order).await
}

#[test]
fn each_planted_bug_breaks_its_rule_and_no_other() {
    let fenced = shown(Bug::NoFence, |sim| async move {
        let order = sim.bench.order(&sim.lease().await);
        matches!(late(&sim, &order).await, CommitOutcome::Fenced(_))
    });
    let stopped = shown(Bug::NoTombstone, |sim| async move {
        let order = sim.bench.order(&sim.lease().await);
        assert_eq!(sim.bench.resolve(order.id, Some(&order.stamp)).await, Verdict::Aborted);
        sim.bench.commit_one(&order).await == CommitOutcome::Aborted
    });
    let existing = shown(Bug::FencedBeforeExisting, |sim| async move {
        let order = sim.bench.order(&sim.lease().await);
        sim.bench.sell(&order).await;
        matches!(late(&sim, &order).await, CommitOutcome::Existing(_))
    });
    let elsewhere = shown(Bug::VerdictWithoutStamp, |sim| async move {
        let lease = sim.lease().await;
        let (order, other) = (sim.bench.order(&lease), sim.bench.order(&lease));
        sim.bench.sell(&order).await;
        sim.bench.resolve(order.id, Some(&other.stamp)).await == Verdict::ConfirmedElsewhere
    });
    let spared = shown(Bug::TombstonesByAge, |sim| async move {
        let order = sim.bench.order(&sim.lease().await);
        sim.bench.resolve(order.id, Some(&order.stamp)).await;
        sim.bench.prune().await == 0
    });
    let above = shown(Bug::EpochNotAboveStore, |sim| async move {
        let opened = sim.bench.ledger.open_stock(&item("widget"), 10, Epoch(7)).await.expect("answers");
        matches!(opened, OpenOutcome::Lease(Lease { epoch: Epoch(8), .. }))
    });
    let one_order = shown(Bug::KeyCheckedThenInserted, |sim| async move {
        let lease = sim.lease().await;
        let (one, two) = (sim.bench.keyed_order(&lease, "k"), sim.bench.keyed_order(&lease, "k"));
        assert_eq!(sim.bench.ledger.order_by_key(&request_key("k")).await.expect("answers"), None);
        sim.bench.sell(&one).await;
        matches!(sim.bench.commit_one(&two).await, CommitOutcome::KeyTaken(_))
    });
    let counted = shown(Bug::LeaseSummedFirst, |sim| async move {
        let lease = sim.lease().await;
        let order = NewOrder { quantity: units(3), ..sim.bench.order(&lease) };
        let widget = item("widget");
        let mut lend = sim.bench.ledger.open_stock(&widget, 10, lease.epoch);
        sim.up_to("ledger: lock alone", &mut lend).await;
        sim.bench.sell(&order).await;
        sim.gate.open();
        matches!(lend.await.expect("answers"), OpenOutcome::Lease(Lease { sold: 3, .. }))
    });
    for (rule, held) in [
        ("fence", fenced),
        ("tombstone", stopped),
        ("existing first", existing),
        ("stamp", elsewhere),
        ("pruning", spared),
        ("epoch above", above),
        ("one key", one_order),
        ("sum after raise", counted),
    ] {
        assert_eq!(held, (true, false), "{rule}: held without the bug, broken with it");
    }
}
