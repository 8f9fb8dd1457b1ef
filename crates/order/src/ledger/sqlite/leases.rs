//! Stock is lent, counted and restocked.

use contracts::values::{Epoch, Item, Lease};
use sqlx::SqliteExecutor;

use super::{SqliteLedger, json_texts};
use crate::ledger::{
    ItemStock, LEASE_GRACE_MS, LedgerError, OpenOutcome, QUERY_BATCH_MAX, Restock, RestockOutcome,
    rows::{bounded, corrupt},
};

/// Answers no row when the newest lease is to be left alone. An age below zero is a clock that jumped back: such a lease
/// counts as old, or nobody would get one until the clock is there again.
const RAISE_EPOCH: &str = "
    INSERT INTO stock_leases (item, epoch, initial, settled, leased_at) VALUES ($1, $2 + 1, $3, 0, $4)
    ON CONFLICT (item) DO UPDATE
        SET epoch = max(epoch, $2) + 1, leased_at = $4
        WHERE NOT (epoch > $2 AND $4 - leased_at >= 0 AND $4 - leased_at < $5)
    RETURNING epoch";

/// Epoch, received and sold, in the order of the items.
pub(super) const COUNT: &str = "
    SELECT
        coalesce(l.epoch, 0),
        coalesce(l.initial, $2) + (SELECT coalesce(sum(r.quantity), 0) FROM restocks r WHERE r.item = wanted.value),
        coalesce(l.settled, 0) + (SELECT coalesce(sum(o.quantity), 0) FROM outbox o WHERE o.item = wanted.value)
    FROM json_each($1) wanted LEFT JOIN stock_leases l ON l.item = wanted.value
    ORDER BY wanted.key";

const INSERT_LEASE_ROW: &str = "
    INSERT INTO stock_leases (item, epoch, initial, settled, leased_at) VALUES ($1, 0, $2, 0, 0)
    ON CONFLICT DO NOTHING";

const INSERT_RESTOCK: &str = "
    INSERT INTO restocks (id, item, quantity, epoch, created_at)
    SELECT $1, item, $3, epoch, $4 FROM stock_leases WHERE item = $2
    ON CONFLICT DO NOTHING";

const RESTOCK: &str = "SELECT item, quantity, epoch FROM restocks WHERE id = $1";

async fn count(executor: impl SqliteExecutor<'_>, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
    let rows: Vec<(i64, i64, i64)> =
        sqlx::query_as(COUNT).bind(json_texts(items)).bind(initial).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|(epoch, received, sold)| ItemStock { epoch: Epoch(epoch), received, sold }).collect())
}

impl SqliteLedger {
    pub(super) async fn lend(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        let grace_micros = i64::try_from(LEASE_GRACE_MS * 1000).expect("a fraction of a second");
        let mut transaction = self.begin().await?;
        let raised: Option<(i64,)> = sqlx::query_as(RAISE_EPOCH)
            .bind(item.as_str())
            .bind(dead.0)
            .bind(initial)
            .bind(self.env.now().0)
            .bind(grace_micros)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some((epoch,)) = raised else {
            return Ok(OpenOutcome::Wait);
        };
        // After the epoch is raised: an order that this misses is of an older epoch and can no longer be committed.
        let counted = count(&mut *transaction, std::slice::from_ref(item), initial).await?;
        let [ItemStock { received, sold, .. }] = counted[..] else {
            return Err(corrupt(&"lease", item));
        };
        transaction.commit().await?;
        // A hand has sold more than there is. Nobody gets the item, and orders under its old leases end too.
        if sold > received {
            return Err(corrupt(&"oversold", &format_args!("{item}: {sold} of {received}")));
        }
        Ok(OpenOutcome::Lease(Lease { item: item.clone(), epoch: Epoch(epoch), received, sold }))
    }

    pub(super) async fn count(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        bounded(items.len(), QUERY_BATCH_MAX)?;
        count(&self.readers, items, initial).await
    }

    pub(super) async fn journal(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        let mut transaction = self.begin().await?;
        let (id, item) = (restock.id.hyphenated().to_string(), restock.item.as_str());
        sqlx::query(INSERT_LEASE_ROW).bind(item).bind(initial).execute(&mut *transaction).await?;
        sqlx::query(INSERT_RESTOCK)
            .bind(&id)
            .bind(item)
            .bind(restock.quantity.get())
            .bind(self.env.now().0)
            .execute(&mut *transaction)
            .await?;
        let there: (String, i64, i64) = sqlx::query_as(RESTOCK).bind(&id).fetch_one(&mut *transaction).await?;
        if (there.0.as_str(), there.1) != (item, restock.quantity.get()) {
            // Undone, so that a refusal leaves no lease row behind.
            transaction.rollback().await?;
            return Ok(RestockOutcome::OtherContent);
        }
        transaction.commit().await?;
        Ok(RestockOutcome::Journalled(Epoch(there.2)))
    }
}
