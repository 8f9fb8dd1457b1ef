//! A ledger in a database of its own.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use contracts::values::Timestamp;
use futures::future::BoxFuture;
use order::ledger::{
    Ledger,
    conformance::{Bench, LedgerFixture},
    postgres::PostgresLedger,
};
use servers::Postgres;
use service::{
    environment::{Env, Environment, RealEnvironment},
    manual::ManualEnvironment,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::task::TaskTracker;

/// A ledger in a database of its own.
pub struct PostgresFixture {
    /// Kept as long as the ledger.
    _server: Arc<Postgres>,
    pub url: String,
    pub ledger: Arc<PostgresLedger>,
}

impl PostgresFixture {
    /// In a fresh database of this server.
    pub async fn on(server: Arc<Postgres>, env: Env) -> Self {
        let url = server.database().await;
        Self::over(server, url, env).await
    }

    async fn over(server: Arc<Postgres>, url: String, env: Env) -> Self {
        let ledger = opened(&url, env).await;
        Self { _server: server, url, ledger }
    }

    /// As [`Self::on`], under a bench with the clock of the suite.
    pub async fn bench(server: Arc<Postgres>) -> (Bench, Arc<PostgresLedger>, String) {
        let url = server.database().await;
        Self::bench_over(server, url).await
    }

    /// The same in a database that is there already.
    pub async fn bench_over(server: Arc<Postgres>, url: String) -> (Bench, Arc<PostgresLedger>, String) {
        let clock = ManualEnvironment::new(1);
        let fixture = Self::over(server, url, Waiting::over(clock.clone())).await;
        let (ledger, url) = (fixture.ledger.clone(), fixture.url.clone());
        (Bench::over(fixture, clock), ledger, url)
    }
}

/// Waits in real time, as the server does, whatever the suite does to its clock.
pub struct Waiting {
    clock: Env,
    real: Env,
}

impl Waiting {
    /// With this wall clock.
    pub fn over(clock: Env) -> Env {
        Arc::new(Self { clock, real: real() })
    }
}

impl Environment for Waiting {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn uptime(&self) -> Duration {
        self.real.uptime()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.real.sleep(duration)
    }

    fn start(&self, task: BoxFuture<'static, ()>) {
        self.real.start(task);
    }

    fn random(&self) -> u128 {
        self.clock.random()
    }
}

/// A ledger that is migrated and open.
pub async fn opened(url: &str, env: Env) -> Arc<PostgresLedger> {
    let ledger = PostgresLedger::new(&url.parse().expect("a valid URL"), env);
    ledger.prepare(true).await.expect("it migrates");
    ledger
}

/// The real clock.
pub fn real() -> Env {
    Arc::new(RealEnvironment::new(TaskTracker::new()))
}

/// A connection past the ledger.
pub async fn outside(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connects")
}

/// Runs statements past the ledger.
pub async fn sql(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.expect("statements that Postgres takes");
}

/// Takes the lock of item `widget`, as a lease does, until the session lets go of it.
pub const LOCK_WIDGET: &str =
    "SELECT pg_advisory_lock(('x' || left(encode(sha256('widget'), 'hex'), 16))::bit(64)::bigint)";
/// Lets go of it.
pub const UNLOCK: &str = "SELECT pg_advisory_unlock_all()";

/// Asks for one number past the ledger.
pub async fn number(connection: &mut PgConnection, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(connection).await.expect("a number")
}

#[async_trait]
impl LedgerFixture for PostgresFixture {
    async fn fresh(env: Env) -> Self {
        Self::on(Arc::new(Postgres::shared().await), Waiting::over(env)).await
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
    }

    async fn sql(&self, statement: &'static str) -> Option<Result<(), String>> {
        let mut connection = outside(&self.url).await;
        Some(sqlx::query(statement).execute(&mut connection).await.map(drop).map_err(|e| e.to_string()))
    }
}
