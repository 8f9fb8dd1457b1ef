//! Stock is lent, counted and restocked.

use std::time::Duration;

use contracts::values::{Epoch, Item, Lease, Timestamp};
use sqlx::PgConnection;

use super::{PostgresLedger, Session, commit::LOCK_ITEMS, item_lock};
use crate::ledger::{
    ItemStock, LEASE_GRACE_MS, LedgerError, OpenOutcome, QUERY_BATCH_MAX, Restock, RestockOutcome,
    rows::{StoredTime, bounded, corrupt},
};

const LOCK_ITEM_ALONE: &str = "SELECT pg_advisory_xact_lock($1)";

/// Answers no row when the newest lease, made after $5 and not in the future, is to be left alone. A lease from the future
/// is of a clock that jumped back: it counts as old, or nobody would get one until the clock is there again.
const RAISE_EPOCH: &str = "
    INSERT INTO stock_leases AS l (item, epoch, initial, settled, leased_at) VALUES ($1, $2 + 1, $3, 0, $4)
    ON CONFLICT (item) DO UPDATE
        SET epoch = greatest(l.epoch, $2) + 1, leased_at = $4
        WHERE (l.epoch > $2 AND l.leased_at > $5 AND l.leased_at <= $4) IS NOT TRUE
    RETURNING epoch";

/// Epoch, received and sold, in the order of the items.
const COUNT: &str = "
    SELECT
        coalesce(l.epoch, 0),
        coalesce(l.initial, $2)
            + coalesce((SELECT sum(r.quantity) FROM restocks r WHERE r.item = wanted.item), 0)::bigint,
        coalesce(l.settled, 0)
            + coalesce((SELECT sum(o.quantity) FROM outbox o WHERE o.item = wanted.item), 0)::bigint
    FROM unnest($1::text[]) WITH ORDINALITY AS wanted (item, place) LEFT JOIN stock_leases l ON l.item = wanted.item
    ORDER BY wanted.place";

const INSERT_LEASE_ROW: &str = "
    INSERT INTO stock_leases (item, epoch, initial, settled) VALUES ($1, 0, $2, 0) ON CONFLICT DO NOTHING";

const INSERT_RESTOCK: &str = "
    INSERT INTO restocks (id, item, quantity, epoch, created_at)
    SELECT $1, item, $3, epoch, $4 FROM stock_leases WHERE item = $2
    ON CONFLICT DO NOTHING";

const RESTOCK: &str = "SELECT item, quantity, epoch FROM restocks WHERE id = $1";

async fn count(connection: &mut PgConnection, items: &[&str], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(COUNT).bind(items).bind(initial).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(epoch, received, sold)| ItemStock { epoch: Epoch(epoch), received, sold }).collect())
}

impl PostgresLedger {
    pub(super) async fn lend(
        &self,
        mut session: Session,
        item: &Item,
        initial: i64,
        dead: Epoch,
    ) -> Result<OpenOutcome, LedgerError> {
        let mut transaction = session.begin().await?;
        sqlx::query(LOCK_ITEM_ALONE).bind(item_lock(item)).execute(&mut *transaction).await?;
        let now = self.env.now();
        let raised: Option<(i64,)> = sqlx::query_as(RAISE_EPOCH)
            .bind(item.as_str())
            .bind(dead.0)
            .bind(initial)
            .bind(StoredTime(now))
            .bind(StoredTime(grace_began(now)))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some((epoch,)) = raised else {
            transaction.rollback().await?;
            session.keep();
            return Ok(OpenOutcome::Wait);
        };
        // After the epoch is raised: an order that this misses is of an older epoch and can no longer be committed.
        let counted = count(&mut transaction, &[item.as_str()], initial).await?;
        let [ItemStock { received, sold, .. }] = counted[..] else {
            return Err(corrupt(&"lease", item));
        };
        transaction.commit().await?;
        session.keep();
        // A hand has sold more than there is. Nobody gets the item, and orders under its old leases end too.
        if sold > received {
            return Err(corrupt(&"oversold", &format_args!("{item}: {sold} of {received}")));
        }
        Ok(OpenOutcome::Lease(Lease { item: item.clone(), epoch: Epoch(epoch), received, sold }))
    }

    pub(super) async fn count(
        &self,
        mut session: Session,
        items: &[Item],
        initial: i64,
    ) -> Result<Vec<ItemStock>, LedgerError> {
        bounded(items.len(), QUERY_BATCH_MAX)?;
        let items: Vec<&str> = items.iter().map(Item::as_str).collect();
        let counted = count(&mut session, &items, initial).await?;
        session.keep();
        Ok(counted)
    }

    pub(super) async fn journal(
        &self,
        mut session: Session,
        restock: &Restock,
        initial: i64,
    ) -> Result<RestockOutcome, LedgerError> {
        let mut transaction = session.begin().await?;
        let (item, quantity) = (restock.item.as_str(), restock.quantity.get());
        sqlx::query(LOCK_ITEMS).bind(vec![item_lock(&restock.item)]).execute(&mut *transaction).await?;
        sqlx::query(INSERT_LEASE_ROW).bind(item).bind(initial).execute(&mut *transaction).await?;
        sqlx::query(INSERT_RESTOCK)
            .bind(restock.id)
            .bind(item)
            .bind(quantity)
            .bind(StoredTime(self.env.now()))
            .execute(&mut *transaction)
            .await?;
        let there: (String, i64, i64) = sqlx::query_as(RESTOCK).bind(restock.id).fetch_one(&mut *transaction).await?;
        let outcome = if (there.0.as_str(), there.1) == (item, quantity) {
            transaction.commit().await?;
            RestockOutcome::Journalled(Epoch(there.2))
        } else {
            // Undone, so that a refusal leaves no lease row behind.
            transaction.rollback().await?;
            RestockOutcome::OtherContent
        };
        session.keep();
        Ok(outcome)
    }
}

/// Leases made after this moment are fresh.
fn grace_began(now: Timestamp) -> Timestamp {
    let grace = Duration::from_millis(LEASE_GRACE_MS).as_micros();
    Timestamp(now.0.saturating_sub(i64::try_from(grace).expect("a fraction of a second")))
}
