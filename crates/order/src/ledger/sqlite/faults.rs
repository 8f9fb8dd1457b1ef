//! The disk is full or cannot be written; what keeps an answered order safe from a power cut; and too many readers.

use std::sync::Arc;

use async_trait::async_trait;
use service::{environment::Env, manual::ManualEnvironment};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::{CLIENT_READERS_MAX, SqliteLedger};
use crate::ledger::{
    COMMIT_BATCH_MAX, CommitOutcome, Ledger, LedgerError, NewOrder,
    conformance::{Bench, LedgerFixture, item, request_key},
};

struct Fixture {
    _directory: TempDir,
    ledger: Arc<SqliteLedger>,
}

#[async_trait]
impl LedgerFixture for Fixture {
    async fn fresh(env: Env) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), env).await.expect("opens");
        Self { _directory: directory, ledger }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
    }

    async fn sql(&self, _statement: &'static str) -> Option<Result<(), String>> {
        None
    }
}

async fn bench() -> (Bench, Arc<SqliteLedger>) {
    let clock = ManualEnvironment::new(1);
    let fixture = Fixture::fresh(clock.clone()).await;
    let ledger = fixture.ledger.clone();
    (Bench::over(fixture, clock), ledger)
}

async fn number(ledger: &SqliteLedger, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&ledger.writer).await.expect("a number")
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_nothing_is_half_written() {
    let (bench, ledger) = bench().await;
    let lease = bench.lease(&item("widget"), 1_000_000).await;
    let pages = number(&ledger, "PRAGMA page_count").await;
    // How full it is when the disk ends differs from round to round, and with it the statement that fails.
    let mut sold = 0;
    for spare in 1..40 {
        let limit = AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + spare * 4));
        sqlx::query(limit).execute(&ledger.writer).await.expect("a limit");
        let failure = loop {
            let size = 1 + usize::try_from(spare).expect("small") % COMMIT_BATCH_MAX;
            let orders: Vec<NewOrder> = (0..size).map(|_| bench.order(&lease)).collect();
            match ledger.commit(&orders).await {
                Ok(outcomes) => {
                    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(CommitOutcome::Created(_)))));
                    sold += i64::try_from(size).expect("small");
                }
                Err(failure) => break failure,
            }
        };
        assert!(matches!(failure, LedgerError::Store(_)), "{failure}");
        // A batch may be too much where a single order still fits.
        while ledger.commit(&[bench.order(&lease)]).await.is_ok() {
            sold += 1;
        }
        assert!(ledger.ping().await.is_err(), "no order can be placed");
        assert_eq!(bench.stock(&item("widget")).await.sold, sold);
        assert_eq!(number(&ledger, "SELECT count(*) FROM order_verdicts").await, sold);
        sqlx::query("PRAGMA max_page_count = 1000000").execute(&ledger.writer).await.expect("a limit");
        ledger.ping().await.expect("there is room again");
        bench.sell(&bench.order(&lease)).await;
        sold += 1;
    }
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&ledger.writer).await.expect("answers");
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_can_be_read() {
    let (bench, ledger) = bench().await;
    let lease = bench.lease(&item("widget"), 10).await;
    let order = bench.order(&lease);
    bench.sell(&order).await;
    sqlx::query("PRAGMA query_only = ON").execute(&ledger.writer).await.expect("set");
    let failure = ledger.commit(&[bench.order(&lease)]).await.expect_err("it cannot be written");
    assert!(ledger.ping().await.is_err(), "no order can be placed");
    assert!(matches!(failure, LedgerError::Store(_)), "{failure}");
    assert!(ledger.order(order.id).await.expect("answers").is_some());
    sqlx::query("PRAGMA query_only = OFF").execute(&ledger.writer).await.expect("set");
    ledger.ping().await.expect("it can be written again");
    bench.sell(&bench.order(&lease)).await;
    assert_eq!(bench.stock(&item("widget")).await.sold, 2);
}

#[tokio::test]
async fn a_connection_whose_transaction_sqlite_ended_is_replaced() {
    let (bench, ledger) = bench().await;
    let lease = bench.lease(&item("widget"), 10).await;
    let mut transaction = ledger.begin().await.expect("begins");
    // As SQLite does on an error of the disk, past sqlx.
    sqlx::query("ROLLBACK").execute(&mut *transaction).await.expect("ended");
    drop(transaction);
    bench.sell(&bench.order(&lease)).await;
}

#[tokio::test]
async fn a_commit_is_on_the_disk_before_it_is_answered() {
    let (_bench, ledger) = bench().await;
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&ledger.writer).await.expect("answers");
    assert_eq!(journal, "wal");
    assert_eq!(number(&ledger, "PRAGMA synchronous").await, 2, "FULL: every commit waits for the disk");
    assert_eq!(number(&ledger, "PRAGMA foreign_keys").await, 1);
    let refused = sqlx::query("DELETE FROM stock_leases").execute(&ledger.readers).await;
    assert!(refused.is_err(), "readers cannot write");
}

#[tokio::test]
async fn however_many_clients_read_nobody_who_orders_waits_for_them() {
    let (bench, ledger) = bench().await;
    let mut reading = Vec::new();
    for _ in 0..CLIENT_READERS_MAX {
        reading.push(ledger.client_readers.acquire().await.expect("free"));
    }
    let lease = bench.lease(&item("widget"), 10).await;
    let order = bench.order(&lease);
    let ordering = async {
        assert_eq!(ledger.order_by_key(&request_key("k")).await.expect("read"), None);
        assert_eq!(ledger.order_of_hold(order.id).await.expect("read"), None);
        bench.sell(&order).await;
        ledger.ping().await.expect("well");
    };
    tokio::select! {
        biased;
        () = ordering => {}
        _ = ledger.order(order.id) => panic!("there is no connection for it"),
    }
    drop(reading);
    assert!(ledger.order(order.id).await.expect("read").is_some());
}
