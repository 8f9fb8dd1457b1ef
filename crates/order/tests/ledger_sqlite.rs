//! The ledger suite over SQLite, and what only a file can show.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use contracts::values::Timestamp;
use order::ledger::{
    CommitOutcome, Ledger, Verdict,
    conformance::{Bench, LedgerFixture, item},
    sqlite::SqliteLedger,
};
use service::{
    environment::{Env, Environment},
    manual::ManualEnvironment,
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

struct SqliteFixture {
    directory: Arc<TempDir>,
    ledger: Arc<SqliteLedger>,
}

impl SqliteFixture {
    async fn open(directory: Arc<TempDir>, env: Env) -> Self {
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), env).await.expect("opens");
        Self { directory, ledger }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }
}

#[async_trait]
impl LedgerFixture for SqliteFixture {
    async fn fresh(env: Env) -> Self {
        Self::open(Arc::new(TempDir::new().expect("a temporary directory")), env).await
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
    }

    async fn sql(&self, statement: &'static str) -> Option<Result<(), String>> {
        let options = SqliteConnectOptions::new().filename(self.path());
        let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
        Some(sqlx::query(statement).execute(&mut connection).await.map(drop).map_err(|e| e.to_string()))
    }
}

order::ledger_conformance!(SqliteFixture);

#[tokio::test]
async fn a_file_opened_again_has_everything() {
    let clock = ManualEnvironment::new(1);
    let fixture = SqliteFixture::fresh(clock.clone()).await;
    let (directory, ledger) = (fixture.directory.clone(), fixture.ledger.clone());
    let bench = Bench::over(fixture, clock.clone());
    let lease = bench.lease(&item("widget"), 10).await;
    let (settled, waiting, dead) = (bench.order(&lease), bench.keyed_order(&lease, "k"), bench.order(&lease));
    bench.sell(&settled).await;
    bench.settle_all().await;
    bench.sell(&waiting).await;
    assert_eq!(bench.resolve(dead.id, Some(&dead.stamp)).await, Verdict::Aborted);
    // In hand when the process ends: in no hand in the next one.
    let in_hand = ledger.take_outbox(10).await.expect("answers");
    ledger.close().await;
    assert!(ledger.ping().await.is_err(), "it is closed");
    assert!(ledger.commit(std::slice::from_ref(&settled)).await.is_err(), "it is closed");

    let bench = Bench::over(SqliteFixture::open(directory, clock.clone()).await, clock);
    assert_eq!(in_hand.events().len(), 1);
    let stock = bench.stock(&item("widget")).await;
    assert_eq!((stock.epoch, stock.received, stock.sold), (lease.epoch, 10, 2));
    assert!(matches!(bench.commit_one(&settled).await, CommitOutcome::Existing(_)));
    assert_eq!(bench.commit_one(&dead).await, CommitOutcome::Aborted);
    let events = bench.ledger.take_outbox(10).await.expect("answers");
    assert_eq!(events.events(), in_hand.events());
    drop(events);
    bench.settle_all().await;
    let next = bench.lease(&item("widget"), 10).await;
    assert_eq!((next.epoch, next.sold), (lease.epoch.next(), 2));
}

#[tokio::test]
async fn the_file_s_directory_is_made_for_its_owner_alone() {
    let root = TempDir::new().expect("a temporary directory");
    let before = root.path().metadata().expect("there").permissions();
    let path = root.path().join("deep/data/ledger.db");
    let env = ManualEnvironment::new(1);
    let ledger = SqliteLedger::open(&path, env).await.expect("opens");
    ledger.ping().await.expect("answers");
    for made in ["deep", "deep/data"] {
        let mode = root.path().join(made).metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
    assert_eq!(root.path().metadata().expect("there").permissions(), before);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error() {
    let root = TempDir::new().expect("a temporary directory");
    let path = root.path().join("ledger.db");
    std::fs::write(&path, "not a database, but long enough to be looked at as one".repeat(100)).expect("written");
    let env: Env = ManualEnvironment::new(1);
    assert!(SqliteLedger::open(&path, env.clone()).await.is_err());
    assert!(SqliteLedger::open(&path.join("below/a/file.db"), env).await.is_err());
}

#[tokio::test]
async fn the_view_of_orders_can_be_read_by_people() {
    let clock = ManualEnvironment::new(1);
    let fixture = SqliteFixture::fresh(clock.clone()).await;
    let path = fixture.path();
    let bench = Bench::over(fixture, clock.clone());
    // With the grace before the lease: seven microseconds after a whole second.
    clock.jump(750_007);
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    bench.sell(&order).await;
    bench.resolve(bench.id(), Some(&order.stamp)).await;
    let mut connection =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.expect("opens");
    let rows: Vec<(String, String, i64, String)> =
        sqlx::query_as("SELECT * FROM orders").fetch_all(&mut connection).await.expect("readable");
    let [(id, what, quantity, created_at)] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((id, what.as_str(), *quantity), (&order.id.to_string(), "widget", 1));
    assert_eq!(created_at.parse(), Ok(clock.now()));
    assert_eq!(created_at.parse::<Timestamp>().expect("a time").to_string(), *created_at);
}

#[tokio::test]
async fn a_write_from_outside_is_waited_for_and_seen() {
    let clock = ManualEnvironment::new(1);
    let fixture = SqliteFixture::fresh(clock.clone()).await;
    let path = fixture.path();
    let bench = Bench::over(fixture, clock);
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    let mut outside = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.expect("opens");
    for statement in ["BEGIN IMMEDIATE", "UPDATE stock_leases SET epoch = epoch + 1"] {
        sqlx::query(statement).execute(&mut outside).await.expect("written");
    }
    let batch = [order.clone()];
    let mut commit = bench.ledger.commit(&batch);
    // As far as it gets: an epoch read before the lock is had would be the old one.
    for _ in 0..200 {
        assert!(futures::poll!(&mut commit).is_pending(), "the lock is taken");
        sqlx::query("SELECT 1").execute(&mut outside).await.expect("answers");
    }
    sqlx::query("COMMIT").execute(&mut outside).await.expect("written");
    let outcome = commit.await.expect("answers").remove(0).expect("good data");
    assert_eq!(outcome, CommitOutcome::Fenced(order.stamp.epoch.next()));
}
