//! Order services that share a database.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId};
use futures::FutureExt;
use order::{
    committer::COMMIT_MAX_MS,
    ledger::{
        Books, BooksOf, CommitOutcome, ItemStock, KeyedOrder, LEASE_GRACE_MS, Ledger, LedgerError, ListQuery, NewOrder,
        OpenOutcome, Order, OutboxBacklog, OutboxBatch, RequestKey, ResolveQuery, Restock, RestockOutcome, Verdict,
        conformance::{Bench, LedgerFixture, item, racing},
        postgres::{COMMIT_CALL_MAX_MS, PostgresLedger, SLOT_WAIT_MAX_MS},
    },
};
use servers::Postgres;
use service::environment::Env;
use sqlx::PgConnection;

use crate::fixture::{LOCK_WIDGET, PostgresFixture, UNLOCK, Waiting, number, opened, outside, sql};

/// Two order services; callers reach one, then the other.
struct Two {
    ledgers: [Arc<PostgresLedger>; 2],
    calls: AtomicUsize,
}

impl Two {
    fn next(&self) -> &PostgresLedger {
        &self.ledgers[self.calls.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

#[async_trait]
impl Ledger for Two {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        self.next().commit(orders).await
    }

    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        self.next().order_by_key(key).await
    }

    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.next().order_of_hold(hold).await
    }

    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        self.next().order(id).await
    }

    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        self.next().orders(query).await
    }

    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        self.next().open_stock(item, initial, dead).await
    }

    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        self.next().stock(items, initial).await
    }

    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        self.next().resolve(queries).await
    }

    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        self.next().record_restock(restock, initial).await
    }

    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        self.next().take_outbox(limit).await
    }

    async fn books(&self, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        self.next().books(of).await
    }

    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        self.next().outbox_backlog().await
    }

    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError> {
        self.next().prune_tombstones(limit).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.next().ping().await
    }
}

struct TwoFixture {
    first: PostgresFixture,
    two: Arc<Two>,
}

#[async_trait]
impl LedgerFixture for TwoFixture {
    async fn fresh(env: Env) -> Self {
        let first = PostgresFixture::fresh(env.clone()).await;
        let second = opened(&first.url, Waiting::over(env)).await;
        let two = Arc::new(Two { ledgers: [first.ledger.clone(), second], calls: AtomicUsize::new(0) });
        Self { first, two }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.two.clone()
    }

    async fn sql(&self, statement: &'static str) -> Option<Result<(), String>> {
        self.first.sql(statement).await
    }
}

macro_rules! raced_by_two {
    ($($check:ident)*) => {
        mod raced_by_two {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    super::racing::$check(&super::Bench::fresh::<super::TwoFixture>().await).await;
                }
            )*
        }
    };
}

raced_by_two! {
    one_id_committed_by_many_is_one_order
    one_key_committed_by_many_is_one_order
    one_restock_recorded_by_many_counts_once
    two_relays_never_hold_one_event
    every_lease_has_counted_exactly_the_orders_before_it
    an_order_and_a_tombstone_exclude_each_other
}

/// Two order services in a fresh database, and two connections past them: one stops what comes there, one looks.
async fn two() -> (Bench, [Arc<PostgresLedger>; 2], PgConnection, PgConnection) {
    let (bench, first, url) = PostgresFixture::bench(Arc::new(Postgres::shared().await)).await;
    let second = opened(&url, Waiting::over(bench.env())).await;
    (bench, [first, second], outside(&url).await, outside(&url).await)
}

/// Lets `work` go on until so many sessions wait for a lock.
pub async fn until<T>(work: &mut (impl Future<Output = T> + Unpin), look: &mut PgConnection, waiting: i64) {
    loop {
        assert!(futures::poll!(&mut *work).is_pending(), "it has come to an end");
        if number(look, WAITING_FOR_A_LOCK).await >= waiting {
            return;
        }
    }
}

const WAITING_FOR_A_LOCK: &str = "
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
/// A transaction that no lease comes past: it has its item's lock by then.
const STOP_LEASES: &str = "BEGIN; SELECT FROM stock_leases FOR UPDATE";
/// A transaction that no order comes past: it has its item's lock by then.
const STOP_ORDERS: &str = "BEGIN; LOCK TABLE outbox IN SHARE MODE";

#[tokio::test]
async fn an_order_that_waited_for_a_lease_is_fenced_by_it() {
    let (bench, [one, two], mut stop, mut look) = two().await;
    let order = [bench.order(&bench.lease(&item("widget"), 10).await)];
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS));
    let widget = item("widget");
    sql(&mut stop, STOP_LEASES).await;
    let mut lending = one.open_stock(&widget, 10, Epoch::NONE);
    until(&mut lending, &mut look, 1).await;
    let mut commit = two.commit(&order);
    until(&mut commit, &mut look, 2).await;
    sql(&mut stop, "COMMIT").await;
    let (lent, outcomes) = futures::join!(lending, commit);
    let Ok(OpenOutcome::Lease(lease)) = lent else { panic!("{lent:?}") };
    let outcome = outcomes.expect("answers").remove(0).expect("good data");
    assert_eq!((outcome, lease.sold), (CommitOutcome::Fenced(lease.epoch), 0));
}

#[tokio::test]
async fn a_lease_that_waited_for_an_order_has_counted_it() {
    let (bench, [one, two], mut stop, mut look) = two().await;
    let order = [bench.order(&bench.lease(&item("widget"), 10).await)];
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS));
    sql(&mut stop, STOP_ORDERS).await;
    let mut commit = one.commit(&order);
    until(&mut commit, &mut look, 1).await;
    let widget = item("widget");
    let mut lending = two.open_stock(&widget, 10, Epoch::NONE);
    until(&mut lending, &mut look, 2).await;
    sql(&mut stop, "COMMIT").await;
    let (outcomes, lent) = futures::join!(commit, lending);
    let outcome = outcomes.expect("answers").remove(0).expect("good data");
    assert!(matches!(outcome, CommitOutcome::Created(_)), "{outcome:?}");
    let Ok(OpenOutcome::Lease(lease)) = lent else { panic!("{lent:?}") };
    assert_eq!(lease.sold, 1);
}

#[tokio::test]
async fn an_order_service_frozen_inside_a_transaction_loses_its_locks() {
    let (bench, [frozen, other], mut stop, mut look) = two().await;
    let order = [bench.order(&bench.lease(&item("widget"), 10).await)];
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS));
    sql(&mut stop, STOP_ORDERS).await;
    let mut commit = frozen.commit(&order);
    until(&mut commit, &mut look, 1).await;
    sql(&mut stop, "COMMIT").await;
    // From here on nobody lets it go on.
    let lent = other.open_stock(&item("widget"), 10, Epoch::NONE).await.expect("the lock is free before it gives up");
    let OpenOutcome::Lease(lease) = lent else { panic!("the grace is over") };
    assert_eq!(lease.sold, 0);
    assert!(commit.await.is_err(), "its transaction was ended");
    let outcome = frozen.commit(&order).await.expect("answers").remove(0).expect("good data");
    assert_eq!(outcome, CommitOutcome::Fenced(lease.epoch));
}

#[tokio::test]
async fn a_batch_outlasts_the_broker_s_confirms_and_locks_no_item() {
    let (bench, [one, two], ..) = two().await;
    let lease = bench.lease(&item("widget"), 10).await;
    bench.sell(&bench.order(&lease)).await;
    let batch = one.take_outbox(10).await.expect("answers");
    // Longer than any other transaction may do nothing.
    tokio::time::sleep(Duration::from_millis(order::ledger::postgres::IDLE_IN_TRANSACTION_MAX_MS * 3 / 2)).await;
    assert!(two.take_outbox(10).await.expect("answers").events().is_empty());
    bench.lease(&item("widget"), 10).await;
    batch.settle(&[true]).await.expect("it is held still");
    assert_eq!(two.outbox_backlog().await.expect("answers").events, 0);
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
}

/// Deadlocks of this database, once all its sessions but `look` have reported theirs.
async fn deadlocks(ledgers: [Arc<PostgresLedger>; 2], bench: Bench, look: &mut PgConnection) -> i64 {
    drop((ledgers, bench));
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'";
    while number(look, others).await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    number(look, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_meet_in_many_rows_never_wait_for_each_other_in_turn() {
    let (bench, ledgers, _, mut look) = two().await;
    let names = ["one", "two", "three", "four"];
    let mut leases = Vec::new();
    for name in names {
        leases.push(bench.lease(&item(name), 1_000_000).await);
    }
    for round in 0..20 {
        let key = |n: usize| format!("{round} {n}");
        let batch: Vec<NewOrder> = (0..64).map(|n| bench.keyed_order(&leases[n % 4], &key(n))).collect();
        let reverse: Vec<NewOrder> = (0..64).rev().map(|n| bench.keyed_order(&leases[n % 4], &key(n))).collect();
        let (one, two) = futures::join!(ledgers[0].commit(&batch), ledgers[1].commit(&reverse));
        let outcomes = one.expect("answers").into_iter().chain(two.expect("answers"));
        let created = outcomes.filter(|outcome| matches!(outcome, Ok(CommitOutcome::Created(_)))).count();
        assert_eq!(created, 64, "each key once");
        let dead: Vec<ResolveQuery> =
            (0..64).map(|n| ResolveQuery { id: bench.id(), stamp: Some(bench.order(&leases[n % 4]).stamp) }).collect();
        let reverse: Vec<ResolveQuery> = dead.iter().rev().cloned().collect();
        let (one, two) = futures::join!(ledgers[0].resolve(&dead), ledgers[1].resolve(&reverse));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        // Each has half, of all four items, first seen in another order.
        let (one, two) = (ledgers[0].take_outbox(33).await, ledgers[1].take_outbox(33).await);
        let (one, two) = (one.expect("answers"), two.expect("answers"));
        let (all, rest) = (vec![true; one.events().len()], vec![true; two.events().len()]);
        let (one, two) = futures::join!(one.settle(&all), two.settle(&rest));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    }
    assert_eq!(deadlocks(ledgers, bench, &mut look).await, 0);
}

#[tokio::test]
async fn a_batch_that_has_to_make_way_is_committed_one_by_one() {
    let (bench, ledger, url) = PostgresFixture::bench(Arc::new(Postgres::shared().await)).await;
    let (mut other, mut look) = (outside(&url).await, outside(&url).await);
    let lease = bench.lease(&item("widget"), 10).await;
    let batch = [bench.keyed_order(&lease, "a"), bench.keyed_order(&lease, "b")];
    let insert = |order: &NewOrder| {
        format!(
            "INSERT INTO order_verdicts VALUES ('{}', 'aborted', 'widget', NULL, 1, NULL, NULL, NULL, now())",
            order.id
        )
    };
    // It never looks whether it waits in a circle: the ledger's side does, and makes way.
    sql(&mut other, &format!("SET deadlock_timeout = '1h'; BEGIN; {}", insert(&batch[1]))).await;
    let mut commit = ledger.commit(&batch);
    until(&mut commit, &mut look, 1).await;
    // Now both wait for each other.
    let crossing = insert(&batch[0]);
    let (committed, ()) = futures::join!(commit.map(|committed| committed.expect("answers")), async {
        sql(&mut other, &crossing).await;
        sql(&mut other, "ROLLBACK").await;
    });
    assert!(committed.iter().all(|outcome| matches!(outcome, Ok(CommitOutcome::Created(_)))), "{committed:?}");
    assert_eq!(bench.stock(&item("widget")).await.sold, 2);
}

/// How many were created, were there already, and failed without a doubt.
fn count(outcomes: &[Result<CommitOutcome, LedgerError>]) -> [usize; 3] {
    let mut counts = [0; 3];
    for outcome in outcomes {
        match outcome {
            Ok(CommitOutcome::Created(_)) => counts[0] += 1,
            Ok(CommitOutcome::Existing(_)) => counts[1] += 1,
            Err(LedgerError::Store(_)) => counts[2] += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}

#[tokio::test]
async fn an_item_that_is_locked_stops_no_order_of_another() {
    let (bench, ledger, url) = PostgresFixture::bench(Arc::new(Postgres::shared().await)).await;
    let mut other = outside(&url).await;
    let mut batch = Vec::new();
    for name in ["gadget", "widget", "gizmo", "gear"] {
        let lease = bench.lease(&item(name), 10).await;
        batch.extend((0..5).map(|_| bench.order(&lease)));
    }
    batch.rotate_left(3);
    sql(&mut other, LOCK_WIDGET).await;
    let asked = Instant::now();
    let outcomes = ledger.commit(&batch).await.expect("answers");
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(count(&outcomes), [15, 0, 5]);
    for (order, outcome) in batch.iter().zip(&outcomes) {
        assert_eq!(outcome.is_err(), order.stamp.item == item("widget"), "{outcome:?}");
        assert_eq!(ledger.order(order.id).await.expect("answers").is_some(), outcome.is_ok());
    }
    sql(&mut other, UNLOCK).await;
    assert_eq!(count(&ledger.commit(&batch).await.expect("answers")), [5, 15, 0]);
}

/// A ledger finds out by itself that it hangs, before the committer gives it up.
const _: () = assert!(SLOT_WAIT_MAX_MS + COMMIT_CALL_MAX_MS < COMMIT_MAX_MS);

#[tokio::test]
async fn orders_that_meet_locked_rows_are_given_up_before_the_batch_is() {
    let (bench, ledger, url) = PostgresFixture::bench(Arc::new(Postgres::shared().await)).await;
    let mut other = outside(&url).await;
    let lease = bench.lease(&item("widget"), 100).await;
    let batch: Vec<NewOrder> = (0..40).map(|_| bench.order(&lease)).collect();
    let rows: Vec<String> = batch[1..]
        .iter()
        .map(|order| format!("('{}', 'aborted', 'widget', NULL, 1, NULL, NULL, NULL, now())", order.id))
        .collect();
    sql(&mut other, &format!("BEGIN; INSERT INTO order_verdicts VALUES {}", rows.join(","))).await;
    let asked = Instant::now();
    let outcomes = ledger.commit(&batch).await.expect("answers");
    assert!(asked.elapsed() < Duration::from_millis(COMMIT_MAX_MS), "{:?}", asked.elapsed());
    assert_eq!(count(&outcomes), [1, 0, 39]);
    sql(&mut other, "ROLLBACK").await;
    assert_eq!(count(&ledger.commit(&batch).await.expect("answers")), [39, 1, 0]);
}
