//! Tombstones that can no longer matter are deleted.

use super::{SqliteLedger, json_numbers};
use crate::ledger::{LedgerError, steps::Prunable};

/// Looks at every item, so it runs beside the writers. The 15th character of an id is its version: 4 for a client's.
pub(super) const FIND_PRUNABLE: &str = "
    SELECT v.rowid FROM stock_leases l CROSS JOIN order_verdicts v
    WHERE v.state = 'aborted' AND v.item = l.item AND v.epoch <= l.epoch - $3
        AND (substr(v.id, 15, 1) <> '4' OR v.created_at < $2)
    LIMIT $1";

/// Asks again: what was found may have been raised since.
pub(super) const PRUNE: &str = "
    DELETE FROM order_verdicts
    WHERE rowid IN (SELECT value FROM json_each($1)) AND state = 'aborted'
        AND epoch <= (SELECT l.epoch - $2 FROM stock_leases l WHERE l.item = order_verdicts.item)";

impl SqliteLedger {
    pub(super) async fn prune(&self, limit: u32) -> Result<u64, LedgerError> {
        let prunable = Prunable::at(self.env.now());
        let found: Vec<i64> = sqlx::query_scalar(FIND_PRUNABLE)
            .bind(limit)
            .bind(prunable.client_end.0)
            .bind(prunable.epochs_behind)
            .fetch_all(&self.readers)
            .await?;
        if found.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.begin().await?;
        let done = sqlx::query(PRUNE)
            .bind(json_numbers(found))
            .bind(prunable.epochs_behind)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}
