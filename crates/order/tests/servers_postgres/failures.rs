//! Servers that die or hang, and clients that do.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use contracts::values::{Epoch, Lease};
use futures::future::BoxFuture;
use order::ledger::{
    CommitOutcome, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome, Order, ResolveQuery, Restock,
    conformance::{Bench, LedgerFixture, item, request_key, units},
    postgres::{CALL_MAX_MS, CONNECTIONS_MAX, PostgresLedger, READ_CONNECTIONS_MAX, SLOT_WAIT_MAX_MS},
};
use servers::Postgres;
use service::{environment::Env, manual::ManualEnvironment};

use crate::{
    fixture::{LOCK_WIDGET, PostgresFixture, UNLOCK, number, opened, outside, real, sql},
    several::until,
};

/// What a caller is to be answered in, while there is no ledger.
const AT_ONCE: Duration = Duration::from_millis(250);
/// When the first success comes after the server is back.
const HEALED: Duration = Duration::from_secs(2);

/// Every method of the port.
fn calls<'a>(ledger: &'a PostgresLedger, order: &'a [NewOrder; 1]) -> Vec<BoxFuture<'a, Result<(), LedgerError>>> {
    let order_id = order[0].id;
    vec![
        Box::pin(async { ledger.commit(order).await.map(drop) }),
        Box::pin(async { ledger.order_by_key(&request_key("k")).await.map(drop) }),
        Box::pin(async move { ledger.order(order_id).await.map(drop) }),
        Box::pin(async { ledger.orders(&ListQuery { item: None, after: None, limit: 1 }).await.map(drop) }),
        Box::pin(async { ledger.open_stock(&item("widget"), 1, Epoch::NONE).await.map(drop) }),
        Box::pin(async { ledger.stock(&[item("widget")], 1).await.map(drop) }),
        Box::pin(async move { ledger.resolve(&[ResolveQuery { id: order_id, stamp: None }]).await.map(drop) }),
        Box::pin(async move {
            let restock = Restock { id: order_id.0, item: item("widget"), quantity: units(1) };
            ledger.record_restock(&restock, 1).await.map(drop)
        }),
        Box::pin(async { ledger.take_outbox(1).await.map(drop) }),
        Box::pin(async { ledger.outbox_backlog().await.map(drop) }),
        Box::pin(async { ledger.prune_tombstones(1).await.map(drop) }),
        Box::pin(async { ledger.ping().await }),
    ]
}

async fn all_fail_within(ledger: &PostgresLedger, order: &[NewOrder; 1], limit: Duration) {
    for (number, call) in calls(ledger, order).into_iter().enumerate() {
        let asked = Instant::now();
        let failure = call.await.expect_err("there is no ledger");
        assert!(matches!(failure, LedgerError::Store(_)), "{failure}");
        assert!(asked.elapsed() < limit, "call {number} took {:?}: {failure}", asked.elapsed());
    }
}

async fn healed(ledger: &PostgresLedger) {
    let back = Instant::now();
    while let Err(failure) = ledger.ping().await {
        assert!(back.elapsed() < HEALED, "{failure}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A ledger on the real clock with a lease, and a bench to make orders with.
async fn selling(server: &Arc<Postgres>) -> (Bench, Arc<PostgresLedger>, Lease) {
    let fixture = PostgresFixture::on(server.clone(), real()).await;
    let ledger = fixture.ledger.clone();
    let bench = Bench::over(fixture, ManualEnvironment::new(1));
    let OpenOutcome::Lease(lease) = ledger.open_stock(&item("widget"), 1_000_000, Epoch::NONE).await.expect("answers")
    else {
        panic!("nobody has one")
    };
    (bench, ledger, lease)
}

#[tokio::test]
async fn while_postgres_is_down_calls_are_answered_at_once_and_it_heals_by_itself() {
    let server = Arc::new(Postgres::start().await);
    let (bench, ledger, lease) = selling(&server).await;
    let order = [bench.order(&lease)];
    server.kill().await;
    for _ in 0..3 {
        all_fail_within(&ledger, &order, AT_ONCE).await;
    }
    server.start_again().await;
    healed(&ledger).await;
    bench.sell(&order[0]).await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_found_out_and_answered_for() {
    let server = Arc::new(Postgres::start().await);
    let (bench, ledger, lease) = selling(&server).await;
    let order = [bench.order(&lease)];
    let batch = ledger.take_outbox(1).await.expect("answers");
    drop(batch);
    server.pause();
    let asked = Instant::now();
    ledger.commit(&order).await.expect_err("it hangs");
    assert!(asked.elapsed() < Duration::from_millis(CALL_MAX_MS + 500), "{:?}", asked.elapsed());
    for _ in 0..3 {
        all_fail_within(&ledger, &order, AT_ONCE).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    server.resume();
    healed(&ledger).await;
    let outcome = bench.commit_one(&order[0]).await;
    assert!(matches!(outcome, CommitOutcome::Created(_) | CommitOutcome::Existing(_)), "{outcome:?}");
    assert_eq!(bench.stock(&item("widget")).await.sold, 1);
}

#[tokio::test]
async fn a_postgres_whose_connections_are_all_busy_is_not_called_down() {
    let fixture = PostgresFixture::on(Arc::new(Postgres::shared().await), real()).await;
    let ledger = fixture.ledger.clone();
    let mut other = outside(&fixture.url).await;
    sql(&mut other, LOCK_WIDGET).await;
    let lending: Vec<_> = (0..40)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.open_stock(&item("widget"), 1, Epoch::NONE).await })
        })
        .collect();
    while lending.iter().any(|lending| !lending.is_finished()) {
        ledger.ping().await.expect("it is well");
        let begun = Instant::now();
        let page = ListQuery { item: None, after: None, limit: 1 };
        assert_eq!(ledger.orders(&page).await.expect("reads have connections of their own"), []);
        assert!(begun.elapsed() < Duration::from_millis(SLOT_WAIT_MAX_MS), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for lent in lending {
        let failure = lent.await.expect("it did not panic").expect_err("the item is locked").to_string();
        assert!(failure.contains("lock timeout") || failure.contains("no connection became free"), "{failure}");
    }
    sql(&mut other, UNLOCK).await;
    ledger.open_stock(&item("widget"), 1, Epoch::NONE).await.expect("it was well all the time");
}

#[tokio::test]
async fn a_call_that_had_to_wait_for_a_connection_has_all_its_time_left() {
    let clock = ManualEnvironment::new(1);
    let fixture = PostgresFixture::on(Arc::new(Postgres::shared().await), clock.clone()).await;
    let (ledger, mut other, mut look) =
        (fixture.ledger.clone(), outside(&fixture.url).await, outside(&fixture.url).await);
    let bench = Bench::over(fixture, clock.clone());
    let lease = bench.lease(&item("gadget"), 100).await;
    let mut batches = Vec::new();
    for _ in 1..CONNECTIONS_MAX - READ_CONNECTIONS_MAX {
        bench.sell(&bench.order(&lease)).await;
        batches.push(ledger.take_outbox(1).await.expect("answers"));
    }
    ledger.ping().await.expect("it has a connection of its own");
    sql(&mut other, LOCK_WIDGET).await;
    let widget = item("widget");
    let mut lending = ledger.open_stock(&widget, 1, Epoch::NONE);
    assert!(futures::poll!(&mut lending).is_pending(), "all are busy");
    clock.advance(Duration::from_millis(SLOT_WAIT_MAX_MS - 1));
    drop(batches);
    until(&mut lending, &mut look, 1).await;
    clock.advance(Duration::from_millis(CALL_MAX_MS - 1));
    until(&mut lending, &mut look, 1).await;
    ledger.outbox_backlog().await.expect("it is no outage yet");
    clock.advance(Duration::from_millis(1));
    let failure = lending.await.expect_err("its time is up").to_string();
    assert!(failure.contains("no answer within"), "{failure}");
}

#[tokio::test]
async fn a_table_that_is_locked_is_no_outage() {
    let fixture = PostgresFixture::on(Arc::new(Postgres::shared().await), real()).await;
    let mut other = outside(&fixture.url).await;
    sql(&mut other, "BEGIN; LOCK TABLE stock_leases").await;
    let failure = fixture.ledger.ping().await.expect_err("it cannot be read").to_string();
    assert!(failure.contains("lock timeout"), "{failure}");
    fixture.ledger.outbox_backlog().await.expect("the other tables can");
}

/// A ledger that is not there yet.
struct Unreachable(Arc<PostgresLedger>);

#[async_trait]
impl LedgerFixture for Unreachable {
    async fn fresh(env: Env) -> Self {
        Self(PostgresLedger::new(&"postgres://127.0.0.1:1/nowhere".parse().expect("a valid URL"), env))
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.0.clone()
    }

    async fn sql(&self, _statement: &'static str) -> Option<Result<(), String>> {
        None
    }
}

#[tokio::test]
async fn it_starts_while_postgres_is_down_and_goes_on_when_it_comes() {
    let server = Arc::new(Postgres::start().await);
    let url = server.database().await;
    server.kill().await;
    let ledger = PostgresLedger::new(&url.parse().expect("a valid URL"), real());
    let lease = Lease { item: item("widget"), epoch: Epoch(1), received: 1, sold: 0 };
    let clock = ManualEnvironment::new(1);
    let order = [Bench::over(Unreachable(ledger.clone()), clock).order(&lease)];
    assert!(ledger.prepare(true).await.is_err());
    all_fail_within(&ledger, &order, AT_ONCE).await;
    server.start_again().await;
    ledger.prepare(true).await.expect("it is there now");
    ledger.ping().await.expect("answers");
}

/// Sells one order after the other, each until it is answered, and notes those that were.
async fn sell(ledger: Arc<PostgresLedger>, orders: Vec<NewOrder>, answered: Arc<Mutex<Vec<Order>>>) {
    for order in orders {
        loop {
            match ledger.commit(std::slice::from_ref(&order)).await.map(|mut outcomes| outcomes.remove(0)) {
                Ok(Ok(CommitOutcome::Created(order) | CommitOutcome::Existing(order))) => {
                    answered.lock().expect("whole").push(order);
                    break;
                }
                Ok(Ok(other)) => panic!("{other:?}"),
                Ok(Err(failure)) | Err(failure) => {
                    assert!(matches!(failure, LedgerError::Store(_)), "{failure}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_under_load_loses_no_order_that_was_answered() {
    let server = Arc::new(Postgres::start().await);
    let (bench, ledger, lease) = selling(&server).await;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let sellers: Vec<_> = (0..4)
        .map(|_| {
            let orders = (0..300).map(|_| bench.order(&lease)).collect();
            tokio::spawn(sell(ledger.clone(), orders, answered.clone()))
        })
        .collect();
    let sold = || answered.lock().expect("whole").len();
    for round in 1..=3 {
        while sold() < round * 200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill().await;
        let known = answered.lock().expect("whole").clone();
        server.start_again().await;
        healed(&ledger).await;
        for order in known {
            assert_eq!(ledger.order(order.id).await.expect("answers"), Some(order));
        }
    }
    for seller in sellers {
        seller.await.expect("it did not panic");
    }
    assert_eq!(bench.stock(&item("widget")).await.sold, 1200);
    assert_eq!(ledger.outbox_backlog().await.expect("answers").events, 1200);
}

/// Most steps that a commit of one order may take.
const COMMIT_STEPS_MAX: usize = 100;

#[tokio::test]
async fn a_commit_whose_connection_dies_at_any_step_is_one_order_when_it_is_repeated() {
    let server = Arc::new(Postgres::shared().await);
    let (bench, ledger, url) = PostgresFixture::bench(server).await;
    let mut root = outside(&url).await;
    let lease = bench.lease(&item("widget"), 1_000).await;
    let (mut sold, mut lost) = (0, 0);
    for steps in 0..COMMIT_STEPS_MAX {
        let order = [bench.keyed_order(&lease, &steps.to_string())];
        let mut commit = ledger.commit(&order);
        let mut done = None;
        for _ in 0..steps {
            if let std::task::Poll::Ready(outcome) = futures::poll!(&mut commit) {
                done = Some(outcome);
                break;
            }
            // What was asked for has come by now.
            number(&mut root, "SELECT count(*) FROM order_verdicts").await;
        }
        let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        number(&mut root, killed).await;
        let was_done = done.is_some();
        match if let Some(done) = done { done } else { commit.await } {
            Ok(outcomes) => assert!(matches!(outcomes[..], [Ok(CommitOutcome::Created(_))]), "{outcomes:?}"),
            Err(failure) => {
                lost += 1;
                assert!(matches!(failure, LedgerError::Store(_)), "{failure}");
            }
        }
        // The first may meet a connection that was killed while it was idle.
        let again = match ledger.commit(&order).await {
            Ok(again) => again,
            Err(_) => ledger.commit(&order).await.expect("the pool has forgotten the dead"),
        };
        assert!(matches!(again[..], [Ok(CommitOutcome::Created(_) | CommitOutcome::Existing(_))]), "{again:?}");
        sold += 1;
        assert_eq!(bench.stock(&item("widget")).await.sold, sold);
        assert_eq!(ledger.outbox_backlog().await.expect("answers").events, sold.unsigned_abs());
        if was_done {
            assert!(lost > 0, "it was killed before its end");
            return;
        }
    }
    panic!("a commit has an end");
}

#[tokio::test]
async fn readers_and_relays_go_on_after_their_connections_were_killed() {
    let server = Arc::new(Postgres::shared().await);
    let url = server.database().await;
    let ledger = opened(&url, real()).await;
    let several = (0..5).map(|_| ledger.outbox_backlog());
    assert!(futures::future::join_all(several).await.iter().all(Result::is_ok));
    let mut root = outside(&url).await;
    let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    assert!(number(&mut root, killed).await > 1, "it has several");
    ledger.ping().await.expect_err("its connection was killed");
    ledger.ping().await.expect("with one all are known to be dead");
}
