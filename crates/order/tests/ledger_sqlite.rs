//! The ledger suite over SQLite, and what only a file can show.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use async_trait::async_trait;
use order::ledger::{
    CommitOutcome, Ledger, Verdict,
    conformance::{Bench, LedgerFixture, environment::ManualEnvironment, item},
    sqlite::SqliteLedger,
};
use service::environment::Env;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

struct SqliteFixture {
    directory: TempDir,
    ledger: Arc<SqliteLedger>,
}

#[async_trait]
impl LedgerFixture for SqliteFixture {
    async fn fresh(env: Env) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), env).await.expect("opens");
        Self { directory, ledger }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
    }

    async fn sql(&self, statement: &'static str) -> Option<Result<(), String>> {
        let options = SqliteConnectOptions::new().filename(self.directory.path().join("ledger.db"));
        let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
        Some(sqlx::query(statement).execute(&mut connection).await.map(drop).map_err(|e| e.to_string()))
    }
}

order::ledger_conformance!(SqliteFixture);
