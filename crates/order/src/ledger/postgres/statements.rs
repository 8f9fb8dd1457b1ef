//! The statements of the ledger's transactions, in Postgres.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId, Stamp, Timestamp};
use uuid::Uuid;

use super::{Session, item_lock};
use crate::ledger::{
    ItemStock, KeyedOrder, LedgerError, NewOrder, Restock,
    judging::event,
    rows::{self, KeyedRow, StampRow, StoredId, StoredTime, VerdictRow},
    steps::{Epochs, PINNED, Raise, Standing, Statements, Tombstone},
};

/// In the order of the numbers, which is the same for all.
const LOCK_ITEMS: &str = "SELECT pg_advisory_xact_lock_shared(number) FROM unnest($1::bigint[]) AS number";

const LOCK_ITEM_ALONE: &str = "SELECT pg_advisory_xact_lock($1)";

const EPOCHS: &str = "SELECT item, epoch FROM stock_leases WHERE item = ANY($1)";

/// Orders and their events in one statement. Two batches that meet in several ids or keys would wait for each other in
/// turn if each inserted in an order of its own: so all insert by key. Their events stay as they came.
const INSERT: &str = r#"
    WITH wanted AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[],
            $8::timestamptz[], $9::text[], $10::text[]
        ) WITH ORDINALITY AS w (
            id, item, quantity, epoch, number, request_key, fingerprint, created_at, payload, traceparent, place
        )
    ), inserted AS (
        INSERT INTO order_verdicts (id, state, item, quantity, epoch, number, request_key, fingerprint, created_at)
        SELECT id, 'confirmed', item, quantity, epoch, number, request_key, fingerprint, created_at FROM wanted
        ORDER BY request_key COLLATE "C", CASE WHEN request_key IS NULL THEN id END, place
        ON CONFLICT DO NOTHING
        RETURNING id, request_key
    ), events AS (
        INSERT INTO outbox (order_id, item, quantity, payload, traceparent, created_at)
        SELECT w.id, w.item, w.quantity, w.payload, w.traceparent, $11
        FROM wanted w JOIN inserted i ON i.id = w.id AND i.request_key IS NOT DISTINCT FROM w.request_key
        ORDER BY w.place
        RETURNING order_id
    )
    SELECT i.id, i.request_key FROM inserted i JOIN events e ON e.order_id = i.id"#;

const BY_ID: &str = "SELECT id, state, item, quantity, created_at FROM order_verdicts WHERE id = ANY($1)";

const BY_KEY: &str = "
    SELECT id, item, quantity, created_at, request_key, fingerprint FROM order_verdicts
    WHERE state = 'confirmed' AND request_key = ANY($1)";

/// Answers no row when the newest lease is to be left alone.
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

/// The numbers of the locks of items, in their order, which is the same for all.
pub(super) fn locks<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<i64> {
    Vec::from_iter(items.into_iter().map(item_lock).collect::<BTreeSet<i64>>())
}

fn uuids(ids: &[ReservationId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

/// Of the transaction that the session is in. Those that only read may stand alone.
#[async_trait]
impl Statements for Session {
    async fn lock_shared(&mut self, items: &BTreeSet<&Item>) -> Result<(), LedgerError> {
        sqlx::query(LOCK_ITEMS).bind(locks(items.iter().copied())).execute(&mut **self).await?;
        Ok(())
    }

    async fn lock_alone(&mut self, item: &Item) -> Result<(), LedgerError> {
        sqlx::query(LOCK_ITEM_ALONE).bind(item_lock(item)).execute(&mut **self).await?;
        Ok(())
    }

    async fn newest_epochs(&mut self, items: &BTreeSet<&Item>) -> Result<Epochs, LedgerError> {
        let items: Vec<&str> = items.iter().map(|item| item.as_str()).collect();
        let rows: Vec<(String, i64)> = sqlx::query_as(EPOCHS).bind(items).fetch_all(&mut **self).await?;
        Ok(rows.into_iter().collect())
    }

    async fn insert_orders(&mut self, orders: &[&NewOrder], now: Timestamp) -> Result<Vec<bool>, LedgerError> {
        let keys = || orders.iter().map(|order| order.key.as_ref());
        let rows: Vec<(StoredId, Option<String>)> = sqlx::query_as(INSERT)
            .bind(orders.iter().map(|order| order.id.0).collect::<Vec<Uuid>>())
            .bind(orders.iter().map(|order| order.stamp.item.as_str()).collect::<Vec<_>>())
            .bind(orders.iter().map(|order| order.quantity.get()).collect::<Vec<_>>())
            .bind(orders.iter().map(|order| order.stamp.epoch.0).collect::<Vec<_>>())
            .bind(orders.iter().map(|order| order.stamp.number).collect::<Vec<_>>())
            .bind(keys().map(|key| key.map(|(key, _)| key.as_str())).collect::<Vec<_>>())
            .bind(keys().map(|key| key.map(|(_, fingerprint)| fingerprint.as_slice())).collect::<Vec<_>>())
            .bind(orders.iter().map(|order| StoredTime(order.created_at)).collect::<Vec<_>>())
            .bind(orders.iter().map(|order| event(order)).collect::<Vec<_>>())
            .bind(orders.iter().map(|order| order.traceparent.as_str()).collect::<Vec<_>>())
            .bind(StoredTime(now))
            .fetch_all(&mut **self)
            .await?;
        rows::inserted(orders, rows)
    }

    async fn by_ids(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Standing>, LedgerError> {
        let rows: Vec<VerdictRow> = sqlx::query_as(BY_ID).bind(uuids(ids)).fetch_all(&mut **self).await?;
        rows::standing(rows)
    }

    async fn by_keys(&mut self, keys: &[&str]) -> Result<HashMap<String, KeyedOrder>, LedgerError> {
        let rows: Vec<KeyedRow> = sqlx::query_as(BY_KEY).bind(keys).fetch_all(&mut **self).await?;
        rows.into_iter().map(KeyedRow::parse).collect()
    }

    async fn raise_epoch(&mut self, raise: &Raise<'_>) -> Result<Option<Epoch>, LedgerError> {
        let raised: Option<i64> = sqlx::query_scalar(RAISE_EPOCH)
            .bind(raise.item.as_str())
            .bind(raise.dead.0)
            .bind(raise.initial)
            .bind(StoredTime(raise.now))
            .bind(StoredTime(raise.fresh_after))
            .fetch_optional(&mut **self)
            .await?;
        Ok(raised.map(Epoch))
    }

    async fn count(&mut self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        let items: Vec<&str> = items.iter().map(Item::as_str).collect();
        let rows = sqlx::query_as(COUNT).bind(items).bind(initial).fetch_all(&mut **self).await?;
        Ok(rows::counted(rows))
    }

    async fn insert_lease_row(&mut self, item: &Item, initial: i64) -> Result<(), LedgerError> {
        sqlx::query(INSERT_LEASE_ROW).bind(item.as_str()).bind(initial).execute(&mut **self).await?;
        Ok(())
    }

    async fn insert_restock(&mut self, restock: &Restock, now: Timestamp) -> Result<(), LedgerError> {
        sqlx::query(INSERT_RESTOCK)
            .bind(restock.id)
            .bind(restock.item.as_str())
            .bind(restock.quantity.get())
            .bind(StoredTime(now))
            .execute(&mut **self)
            .await?;
        Ok(())
    }

    async fn restock(&mut self, id: Uuid) -> Result<(Restock, Epoch), LedgerError> {
        rows::restock(id, sqlx::query_as(RESTOCK).bind(id).fetch_one(&mut **self).await?)
    }

    async fn bury(&mut self, tombstones: &[Tombstone<'_>], now: Timestamp) -> Result<(), LedgerError> {
        sqlx::query(BURY)
            .bind(tombstones.iter().map(|tombstone| tombstone.id.0).collect::<Vec<Uuid>>())
            .bind(tombstones.iter().map(|tombstone| tombstone.item.as_str()).collect::<Vec<_>>())
            .bind(tombstones.iter().map(|tombstone| tombstone.is_pinned).collect::<Vec<_>>())
            .bind(PINNED.0)
            .bind(StoredTime(now))
            .execute(&mut **self)
            .await?;
        Ok(())
    }

    async fn stamps(&mut self, ids: &[ReservationId]) -> Result<HashMap<ReservationId, Option<Stamp>>, LedgerError> {
        let rows: Vec<StampRow> = sqlx::query_as(STAMPS).bind(uuids(ids)).fetch_all(&mut **self).await?;
        rows::stamps(rows)
    }

    async fn commit(self) -> Result<(), LedgerError> {
        self.end("COMMIT").await
    }

    async fn rollback(self) -> Result<(), LedgerError> {
        self.end("ROLLBACK").await
    }
}
