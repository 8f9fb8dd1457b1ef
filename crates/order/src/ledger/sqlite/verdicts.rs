//! Reservations are judged, and tombstones that can no longer matter are deleted.

use serde_json::{Value, json};

use super::{SqliteLedger, json_numbers, json_texts};
use crate::ledger::{
    LedgerError, QUERY_BATCH_MAX, ResolveQuery, Verdict,
    rows::{self, PINNED, StampRow, bounded},
};

/// A tombstone may go once a commit under its item's older epochs is fenced. One that stands against holds of two items
/// has no such moment, so it is pinned.
const BURY: &str = "
    INSERT INTO order_verdicts (id, state, item, epoch, created_at)
    SELECT
        value ->> 'id', 'aborted', value ->> 'item',
        coalesce((SELECT l.epoch FROM stock_leases l WHERE l.item = value ->> 'item'), 0), $2
    FROM json_each($1) WHERE true
    ON CONFLICT (id) DO UPDATE
        SET epoch = iif(item = excluded.item, max(epoch, excluded.epoch), $3)
        WHERE state = 'aborted'";

pub(super) const STAMPS: &str = "
    SELECT id, state, item, epoch, number FROM order_verdicts WHERE id IN (SELECT value FROM json_each($1))";

/// Looks at every item, so it runs beside the writers. The 15th character of an id is its version: 4 for a client's.
pub(super) const FIND_PRUNABLE: &str = "
    SELECT v.rowid FROM stock_leases l CROSS JOIN order_verdicts v
    WHERE v.state = 'aborted' AND v.item = l.item AND v.epoch < l.epoch
        AND (substr(v.id, 15, 1) <> '4' OR v.created_at < $2)
    LIMIT $1";

/// Asks again: what was found may have been raised since.
pub(super) const PRUNE: &str = "
    DELETE FROM order_verdicts
    WHERE rowid IN (SELECT value FROM json_each($1)) AND state = 'aborted'
        AND epoch < (SELECT l.epoch FROM stock_leases l WHERE l.item = order_verdicts.item)";

impl SqliteLedger {
    pub(super) async fn judge(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        bounded(queries.len(), QUERY_BATCH_MAX)?;
        let ids = json_texts(queries.iter().map(|query| query.id));
        let holds: Vec<Value> = queries
            .iter()
            .filter_map(|query| {
                Some(json!({ "id": query.id.to_string(), "item": query.stamp.as_ref()?.item.as_str() }))
            })
            .collect();
        let rows: Vec<StampRow> = if holds.is_empty() {
            sqlx::query_as(STAMPS).bind(ids).fetch_all(&self.readers).await?
        } else {
            let mut transaction = self.begin().await?;
            sqlx::query(BURY)
                .bind(Value::from(holds).to_string())
                .bind(self.env.now().0)
                .bind(PINNED.0)
                .execute(&mut *transaction)
                .await?;
            let rows = sqlx::query_as(STAMPS).bind(ids).fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            rows
        };
        rows::verdicts(queries, rows)
    }

    pub(super) async fn prune(&self, limit: u32) -> Result<u64, LedgerError> {
        let found: Vec<i64> = sqlx::query_scalar(FIND_PRUNABLE)
            .bind(limit)
            .bind(rows::client_tombstones_end(self.env.now()).0)
            .fetch_all(&self.readers)
            .await?;
        if found.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.begin().await?;
        let done = sqlx::query(PRUNE).bind(json_numbers(found)).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}
