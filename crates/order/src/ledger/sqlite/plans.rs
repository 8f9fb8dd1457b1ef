//! Whether statements find their rows by an index, and never by reading a whole table that only grows.

use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use super::{SqliteLedger, prune, reads, statements};
use service::manual::ManualEnvironment;

/// The steps of a statement's plan, as SQLite describes them.
async fn plan(statement: &str) -> Vec<String> {
    let directory = TempDir::new().expect("a temporary directory");
    let env = ManualEnvironment::new(1);
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), env).await.expect("opens");
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::query(explain).fetch_all(&ledger.writer).await.expect("a statement that SQLite knows");
    ledger.close().await;
    rows.iter().map(|row| row.get("detail")).collect()
}

#[tokio::test]
async fn statements_find_their_rows_by_an_index() {
    for (statement, index) in [
        (reads::PAGE, "orders_by_time"),
        (reads::PAGE_OF_ITEM, "orders_by_item"),
        (statements::BY_KEY, "order_keys"),
        (statements::BY_ID, "sqlite_autoindex_order_verdicts_1"),
        (statements::EPOCHS, "PRIMARY KEY"),
        (statements::STAMPS, "sqlite_autoindex_order_verdicts_1"),
        (prune::FIND_PRUNABLE, "tombstones (item=? AND epoch<?)"),
        (prune::PRUNE, "INTEGER PRIMARY KEY (rowid=?)"),
        (statements::COUNT, "COVERING INDEX outbox_by_item (item=?)"),
        (statements::COUNT, "COVERING INDEX restocks_by_item (item=?)"),
    ] {
        let plan = plan(statement).await;
        assert!(plan.iter().any(|step| step.starts_with("SEARCH") && step.contains(index)), "{statement}: {plan:?}");
        // `l` is the table of leases: one row for each item, and pruning looks at every item.
        let scan = |step: &&String| step.starts_with("SCAN") && !step.contains("VIRTUAL TABLE") && **step != "SCAN l";
        assert_eq!(plan.iter().find(scan), None, "{statement}");
        assert!(
            !plan.iter().any(|step| step.contains("ORDER BY") && statement.contains("LIMIT")),
            "{statement}: {plan:?}"
        );
    }
}
