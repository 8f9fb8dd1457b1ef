//! Tombstones that can no longer matter are deleted.

use super::{PostgresLedger, Session};
use crate::ledger::{
    LedgerError,
    rows::StoredTime,
    steps::{Prunable, Statements},
};

/// What was raised before its row was locked is asked about again by the lock; what another instance deletes is skipped.
/// Item by item, along the index of tombstones, which are few among the orders. The 15th character of an id is its version: 4
/// for a client's.
const PRUNE: &str = "
    DELETE FROM order_verdicts WHERE id = ANY(ARRAY(
        SELECT dead.id FROM stock_leases l CROSS JOIN LATERAL (
            SELECT v.id FROM order_verdicts v
            WHERE v.state = 'aborted' AND v.item = l.item AND v.epoch <= l.epoch - $3
                AND (substr(v.id::text, 15, 1) <> '4' OR v.created_at < $2)
            LIMIT $1 FOR UPDATE SKIP LOCKED
        ) dead
        LIMIT $1
    ))";

impl PostgresLedger {
    pub(super) async fn prune(&self, session: Session, limit: u32) -> Result<u64, LedgerError> {
        let mut transaction = session.begin().await?;
        let prunable = Prunable::at(self.env.now());
        let done = sqlx::query(PRUNE)
            .bind(i64::from(limit))
            .bind(StoredTime(prunable.client_end))
            .bind(prunable.epochs_behind)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}
