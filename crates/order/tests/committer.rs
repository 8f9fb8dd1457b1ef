//! The committer over a ledger that hangs.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use contracts::Reason;
use order::{
    committer::{COMMIT_MAX_MS, Committer},
    ledger::{
        CommitOutcome, Ledger,
        conformance::{Bench, LedgerFixture, item},
        sqlite::SqliteLedger,
    },
    metrics::OrderMetrics,
};
use prometheus_client::registry::Registry;
use service::{environment::Env, manual::ManualEnvironment};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Fixture {
    ledger: Arc<SqliteLedger>,
    data: TempDir,
}

#[async_trait]
impl LedgerFixture for Fixture {
    async fn fresh(env: Env) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let ledger = SqliteLedger::open(&data.path().join("ledger.db"), env).await.expect("it opens");
        Self { ledger, data }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
    }

    async fn sql(&self, _statement: &'static str) -> Option<Result<(), String>> {
        None
    }
}

#[tokio::test]
async fn a_commit_that_hangs_is_in_doubt_and_stops_no_other() {
    let clock = ManualEnvironment::new(1);
    let fixture = Fixture::fresh(clock.clone()).await;
    let file = SqliteConnectOptions::new().filename(fixture.data.path().join("ledger.db"));
    let bench = Bench::over(fixture, clock.clone());
    let lease = bench.lease(&item("widget"), 10).await;
    let (hanging, next) = (bench.order(&lease), bench.order(&lease));
    let metrics = OrderMetrics::register(&mut Registry::default());
    let (committer, commits) = Committer::new(bench.env(), bench.ledger.clone(), metrics, Arc::default());
    let mut running = pin!(commits.run(CancellationToken::new()));

    let mut other = SqliteConnection::connect_with(&file).await.expect("opens");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("it has the lock");
    let mut stuck = pin!(committer.commit(&hanging));
    // Far quicker than the ledger finds out by itself, which takes real time.
    let failure = loop {
        tokio::select! {
            biased;
            result = &mut stuck => break result.expect_err("the ledger hangs"),
            () = &mut running => unreachable!("it is not stopped"),
            () = tokio::task::yield_now() => clock.advance(Duration::from_millis(COMMIT_MAX_MS / 4)),
        }
    };
    assert_eq!(failure.reason, Reason::Unavailable);
    assert!(failure.cause.as_ref().is_some_and(|cause| cause.contains("no answer within")), "{failure:?}");

    sqlx::query("ROLLBACK").execute(&mut other).await.expect("it is free");
    let outcome = tokio::select! {
            biased;
        outcome = committer.commit(&next) => outcome,
        () = &mut running => unreachable!("it is not stopped"),
    };
    assert!(matches!(outcome, Ok(CommitOutcome::Created(_))), "{outcome:?}");
}
