//! Reservations are judged, and tombstones that can no longer matter are deleted.

use std::collections::BTreeMap;

use contracts::values::{Item, ReservationId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{PostgresLedger, Session};
use crate::ledger::{
    LedgerError, QUERY_BATCH_MAX, ResolveQuery, Verdict,
    rows::{self, PINNED, StampRow, StoredTime, bounded},
};

/// A tombstone may go once a commit under its item's older epochs is fenced. One that stands against holds of two items
/// has no such moment, so it is pinned.
const BURY: &str = "
    INSERT INTO order_verdicts AS v (id, state, item, epoch, created_at)
    SELECT
        w.id, 'aborted', w.item,
        CASE WHEN w.pinned THEN $4
            ELSE coalesce((SELECT l.epoch FROM stock_leases l WHERE l.item = w.item), 0) END,
        $5
    FROM unnest($1::uuid[], $2::text[], $3::bool[]) AS w (id, item, pinned)
    ON CONFLICT (id) DO UPDATE
        SET epoch = CASE WHEN v.item = excluded.item THEN greatest(v.epoch, excluded.epoch) ELSE $4 END
        WHERE v.state = 'aborted'";

const STAMPS: &str = "SELECT id, state, item, epoch, number FROM order_verdicts WHERE id = ANY($1)";

/// What was raised before its row was locked is asked about again by the lock; what another instance deletes is skipped.
/// Item by item, along the index of tombstones, which are few among the orders. The 15th character of an id is its version: 4
/// for a client's.
const PRUNE: &str = "
    DELETE FROM order_verdicts WHERE id = ANY(ARRAY(
        SELECT dead.id FROM stock_leases l CROSS JOIN LATERAL (
            SELECT v.id FROM order_verdicts v
            WHERE v.state = 'aborted' AND v.item = l.item AND v.epoch < l.epoch
                AND (substr(v.id::text, 15, 1) <> '4' OR v.created_at < $2)
            LIMIT $1 FOR UPDATE SKIP LOCKED
        ) dead
        LIMIT $1
    ))";

/// The item of the hold to judge, for each id once, and whether holds of another item are to be judged too. In the order
/// of the ids, or two who bury the same ones would wait for each other in turn.
fn holds(queries: &[ResolveQuery]) -> BTreeMap<ReservationId, (&Item, bool)> {
    let mut holds = BTreeMap::new();
    for query in queries {
        if let Some(stamp) = &query.stamp {
            let (item, pinned) = holds.entry(query.id).or_insert((&stamp.item, false));
            *pinned |= *item != &stamp.item;
        }
    }
    holds
}

impl PostgresLedger {
    pub(super) async fn judge(
        &self,
        mut session: Session,
        queries: &[ResolveQuery],
    ) -> Result<Vec<Verdict>, LedgerError> {
        bounded(queries.len(), QUERY_BATCH_MAX)?;
        let holds = holds(queries);
        let rows = if holds.is_empty() {
            stamps(&mut session, queries).await?
        } else {
            let mut transaction = session.begin().await?;
            sqlx::query(BURY)
                .bind(holds.keys().map(|id| id.0).collect::<Vec<Uuid>>())
                .bind(holds.values().map(|(item, _)| item.as_str()).collect::<Vec<_>>())
                .bind(holds.values().map(|(_, pinned)| *pinned).collect::<Vec<_>>())
                .bind(PINNED.0)
                .bind(StoredTime(self.env.now()))
                .execute(&mut *transaction)
                .await?;
            let rows = stamps(&mut transaction, queries).await?;
            transaction.commit().await?;
            rows
        };
        session.keep();
        rows::verdicts(queries, rows)
    }

    pub(super) async fn prune(&self, mut session: Session, limit: u32) -> Result<u64, LedgerError> {
        let mut transaction = session.begin().await?;
        let client_end = StoredTime(rows::client_tombstones_end(self.env.now()));
        let done = sqlx::query(PRUNE).bind(i64::from(limit)).bind(client_end).execute(&mut *transaction).await?;
        transaction.commit().await?;
        session.keep();
        Ok(done.rows_affected())
    }
}

async fn stamps(connection: &mut PgConnection, queries: &[ResolveQuery]) -> Result<Vec<StampRow>, LedgerError> {
    let ids: Vec<Uuid> = queries.iter().map(|query| query.id.0).collect();
    Ok(sqlx::query_as(STAMPS).bind(ids).fetch_all(connection).await?)
}
