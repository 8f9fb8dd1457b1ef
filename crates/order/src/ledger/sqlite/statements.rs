//! The statements of the ledger's transactions, in SQLite.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId, Stamp, Timestamp};
use serde_json::{Value, json};
use sqlx::{Sqlite, SqliteExecutor, Transaction};
use uuid::Uuid;

use super::json_texts;
use crate::ledger::{
    ItemStock, KeyedOrder, LedgerError, NewOrder, Restock,
    judging::event,
    rows::{self, KeyedRow, StampRow, StoredId, VerdictRow},
    steps::{Epochs, PINNED, Raise, Standing, Statements, Tombstone},
};

pub(super) const EPOCHS: &str = "SELECT item, epoch FROM stock_leases WHERE item IN (SELECT value FROM json_each($1))";

const INSERT_ORDERS: &str = "
    INSERT INTO order_verdicts
        (id, state, item, quantity, epoch, number, request_key, fingerprint, created_at)
    SELECT
        value ->> 'id', 'confirmed', value ->> 'item', value ->> 'quantity', value ->> 'epoch', value ->> 'number',
        value ->> 'key', unhex(value ->> 'fingerprint'), value ->> 'created_at'
    FROM json_each($1) WHERE true
    ON CONFLICT DO NOTHING
    RETURNING id, request_key";

const INSERT_EVENTS: &str = "
    INSERT INTO outbox (order_id, item, quantity, payload, traceparent, created_at)
    SELECT
        value ->> 'id', value ->> 'item', value ->> 'quantity', value ->> 'payload', value ->> 'traceparent', $2
    FROM json_each($1)";

pub(super) const BY_ID: &str = "
    SELECT id, state, item, quantity, created_at FROM order_verdicts WHERE id IN (SELECT value FROM json_each($1))";

pub(super) const BY_KEY: &str = "
    SELECT id, item, quantity, created_at, request_key, fingerprint FROM order_verdicts
    WHERE state = 'confirmed' AND request_key IN (SELECT value FROM json_each($1))";

/// Answers no row when the newest lease is to be left alone.
const RAISE_EPOCH: &str = "
    INSERT INTO stock_leases (item, epoch, initial, settled, leased_at) VALUES ($1, $2 + 1, $3, 0, $4)
    ON CONFLICT (item) DO UPDATE
        SET epoch = max(epoch, $2) + 1, leased_at = $4
        WHERE NOT (epoch > $2 AND leased_at > $5 AND leased_at <= $4)
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

const BURY: &str = "
    INSERT INTO order_verdicts (id, state, item, epoch, created_at)
    SELECT
        value ->> 'id', 'aborted', value ->> 'item',
        iif(value ->> 'pinned', $3, coalesce((SELECT l.epoch FROM stock_leases l WHERE l.item = value ->> 'item'), 0)), $2
    FROM json_each($1) WHERE true
    ON CONFLICT (id) DO UPDATE
        SET epoch = iif(item = excluded.item, max(epoch, excluded.epoch), $3)
        WHERE state = 'aborted'";

pub(super) const STAMPS: &str = "
    SELECT id, state, item, epoch, number FROM order_verdicts WHERE id IN (SELECT value FROM json_each($1))";

/// As [`Statements::by_keys`].
pub(super) async fn by_keys(
    executor: impl SqliteExecutor<'_>,
    keys: &[&str],
) -> Result<HashMap<String, KeyedOrder>, LedgerError> {
    let rows: Vec<KeyedRow> = sqlx::query_as(BY_KEY).bind(json_texts(keys)).fetch_all(executor).await?;
    rows.into_iter().map(KeyedRow::parse).collect()
}

/// As [`Statements::stamps`].
pub(super) async fn stamps(
    executor: impl SqliteExecutor<'_>,
    ids: &[ReservationId],
) -> Result<HashMap<ReservationId, Option<Stamp>>, LedgerError> {
    let rows: Vec<StampRow> = sqlx::query_as(STAMPS).bind(json_texts(ids)).fetch_all(executor).await?;
    rows::stamps(rows)
}

/// As [`Statements::count`].
pub(super) async fn count(
    executor: impl SqliteExecutor<'_>,
    items: &[Item],
    initial: i64,
) -> Result<Vec<ItemStock>, LedgerError> {
    let rows = sqlx::query_as(COUNT).bind(json_texts(items)).bind(initial).fetch_all(executor).await?;
    Ok(rows::counted(rows))
}

/// There is one writer, so nothing is locked.
#[async_trait]
impl Statements for Transaction<'static, Sqlite> {
    async fn lock_shared(&mut self, _items: &BTreeSet<&Item>) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn lock_alone(&mut self, _item: &Item) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn newest_epochs(&mut self, items: &BTreeSet<&Item>) -> Result<Epochs, LedgerError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(EPOCHS).bind(json_texts(items)).fetch_all(&mut **self).await?;
        Ok(rows.into_iter().collect())
    }

    /// In two statements: SQLite has none that inserts into two tables.
    async fn insert_orders(&mut self, orders: &[&NewOrder], now: Timestamp) -> Result<Vec<bool>, LedgerError> {
        let rows = orders.iter().map(|order| order_row(order)).collect::<Value>().to_string();
        let rows: Vec<(StoredId, Option<String>)> =
            sqlx::query_as(INSERT_ORDERS).bind(rows).fetch_all(&mut **self).await?;
        let inserted = rows::inserted(orders, rows)?;
        let new: Vec<Value> =
            orders.iter().zip(&inserted).filter_map(|(order, inserted)| inserted.then(|| event_row(order))).collect();
        if new.is_empty() {
            return Ok(inserted);
        }
        let count = new.len() as u64;
        let done =
            sqlx::query(INSERT_EVENTS).bind(Value::from(new).to_string()).bind(now.0).execute(&mut **self).await?;
        assert_eq!(done.rows_affected(), count, "an order is committed with its event or not at all");
        Ok(inserted)
    }

    async fn by_ids(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Standing>, LedgerError> {
        let rows: Vec<VerdictRow> = sqlx::query_as(BY_ID).bind(json_texts(ids)).fetch_all(&mut **self).await?;
        rows::standing(rows)
    }

    async fn by_keys(&mut self, keys: &[&str]) -> Result<HashMap<String, KeyedOrder>, LedgerError> {
        by_keys(&mut **self, keys).await
    }

    async fn raise_epoch(&mut self, raise: &Raise<'_>) -> Result<Option<Epoch>, LedgerError> {
        let raised: Option<i64> = sqlx::query_scalar(RAISE_EPOCH)
            .bind(raise.item.as_str())
            .bind(raise.dead.0)
            .bind(raise.initial)
            .bind(raise.now.0)
            .bind(raise.fresh_after.0)
            .fetch_optional(&mut **self)
            .await?;
        Ok(raised.map(Epoch))
    }

    async fn count(&mut self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        count(&mut **self, items, initial).await
    }

    async fn insert_lease_row(&mut self, item: &Item, initial: i64) -> Result<(), LedgerError> {
        sqlx::query(INSERT_LEASE_ROW).bind(item.as_str()).bind(initial).execute(&mut **self).await?;
        Ok(())
    }

    async fn insert_restock(&mut self, restock: &Restock, now: Timestamp) -> Result<(), LedgerError> {
        sqlx::query(INSERT_RESTOCK)
            .bind(restock.id.hyphenated().to_string())
            .bind(restock.item.as_str())
            .bind(restock.quantity.get())
            .bind(now.0)
            .execute(&mut **self)
            .await?;
        Ok(())
    }

    async fn restock(&mut self, id: Uuid) -> Result<(Restock, Epoch), LedgerError> {
        rows::restock(id, sqlx::query_as(RESTOCK).bind(id.hyphenated().to_string()).fetch_one(&mut **self).await?)
    }

    async fn bury(&mut self, tombstones: &[Tombstone<'_>], now: Timestamp) -> Result<(), LedgerError> {
        let row = |tombstone: &Tombstone<'_>| {
            json!({
                "id": tombstone.id.to_string(),
                "item": tombstone.item.as_str(),
                "pinned": tombstone.is_pinned,
            })
        };
        let rows = tombstones.iter().map(row).collect::<Value>().to_string();
        sqlx::query(BURY).bind(rows).bind(now.0).bind(PINNED.0).execute(&mut **self).await?;
        Ok(())
    }

    async fn stamps(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Option<Stamp>>, LedgerError> {
        stamps(&mut **self, ids).await
    }

    async fn commit(self) -> Result<(), LedgerError> {
        Ok(Transaction::commit(self).await?)
    }

    async fn rollback(self) -> Result<(), LedgerError> {
        Ok(Transaction::rollback(self).await?)
    }
}

fn order_row(order: &NewOrder) -> Value {
    json!({
        "id": order.id.to_string(),
        "item": order.stamp.item.as_str(),
        "quantity": order.quantity.get(),
        "epoch": order.stamp.epoch.0,
        "number": order.stamp.number,
        "key": order.key.as_ref().map(|(key, _)| key.as_str()),
        "fingerprint": order.key.as_ref().map(|(_, fingerprint)| hex(fingerprint)),
        "created_at": order.created_at.0,
    })
}

fn event_row(order: &NewOrder) -> Value {
    json!({
        "id": order.id.to_string(),
        "item": order.stamp.item.as_str(),
        "quantity": order.quantity.get(),
        "payload": event(order),
        "traceparent": order.traceparent,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hexadecimal digit"));
        }
        text
    })
}
