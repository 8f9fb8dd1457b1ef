//! Group commit.

use std::collections::BTreeSet;

use contracts::values::{Item, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{PostgresLedger, item_lock};
use crate::ledger::{
    COMMIT_BATCH_MAX, CommitOutcome, LedgerError, NewOrder,
    rows::{self, Epochs, Found, KeyedRow, StoredId, StoredTime, VerdictRow, bounded},
};

/// In the order of the numbers, which is the same for all.
pub(super) const LOCK_ITEMS: &str = "SELECT pg_advisory_xact_lock_shared(number) FROM unnest($1::bigint[]) AS number";

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

pub(super) const BY_KEY: &str = "
    SELECT id, item, quantity, created_at, request_key, fingerprint FROM order_verdicts
    WHERE state = 'confirmed' AND request_key = ANY($1)";

/// Classes of SQLSTATE that one order, or what stands under its id or key, may be to blame for: data that does not fit, a
/// constraint, a limit; and a rollback for the sake of another transaction, which a single order cannot cause.
const DATA_ERRORS: [&str; 4] = ["22", "23", "54", "40"];

/// Whether the others may go through without the one to blame. In all these cases nothing was committed.
fn blames_data(error: &LedgerError) -> bool {
    let LedgerError::Store(source) = error else { return true };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref() else { return false };
    database.code().is_some_and(|code| DATA_ERRORS.iter().any(|class| code.starts_with(class)))
}

impl PostgresLedger {
    pub(super) async fn commit_batch(
        &self,
        orders: &[NewOrder],
    ) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        bounded(orders.len(), COMMIT_BATCH_MAX)?;
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        match self.call(self.commit_together(orders)).await {
            Ok(outcomes) => Ok(outcomes.into_iter().map(Ok).collect()),
            Err(error) if blames_data(&error) => self.commit_each_alone(orders).await,
            Err(error) => Err(error),
        }
    }

    async fn commit_each_alone(
        &self,
        orders: &[NewOrder],
    ) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        let mut outcomes = Vec::with_capacity(orders.len());
        for order in orders {
            outcomes.push(match self.call(self.commit_together(std::slice::from_ref(order))).await {
                Ok(mut one) => Ok(one.remove(0)),
                Err(error) if blames_data(&error) => Err(error),
                Err(error) => return Err(error),
            });
        }
        Ok(outcomes)
    }

    /// One transaction: the locks, the epochs, the orders of the newest epochs with their events, then what became of
    /// the rest. Each in a statement of its own: it sees what was committed before it began.
    async fn commit_together(&self, orders: &[NewOrder]) -> Result<Vec<CommitOutcome>, LedgerError> {
        let mut session = self.session().await?;
        let mut transaction = session.begin().await?;
        let items: BTreeSet<&Item> = orders.iter().map(|order| &order.stamp.item).collect();
        let locks: BTreeSet<i64> = items.iter().map(|item| item_lock(item)).collect();
        sqlx::query(LOCK_ITEMS).bind(Vec::from_iter(locks)).execute(&mut *transaction).await?;
        let items: Vec<&str> = items.into_iter().map(Item::as_str).collect();
        let newest: Vec<(String, i64)> = sqlx::query_as(EPOCHS).bind(items).fetch_all(&mut *transaction).await?;
        let newest: Epochs = newest.into_iter().collect();

        let admitted = newest.admitted(orders);
        let inserted = insert(&mut transaction, orders, &admitted, self.env.now()).await?;
        let created = rows::mark_created(orders, &admitted, inserted)?;
        let rest: Vec<&NewOrder> =
            orders.iter().zip(&created).filter_map(|(order, created)| (!created).then_some(order)).collect();
        let found = read_back(&mut transaction, &rest).await?;
        let outcomes = rows::outcomes(orders, &created, &newest, &found)?;
        transaction.commit().await?;
        session.keep();
        Ok(outcomes)
    }
}

/// Inserts those that meet neither their id nor their key, with their events, and says which.
async fn insert(
    connection: &mut PgConnection,
    orders: &[NewOrder],
    admitted: &[usize],
    now: Timestamp,
) -> Result<Vec<(StoredId, Option<String>)>, LedgerError> {
    if admitted.is_empty() {
        return Ok(Vec::new());
    }
    let orders = || admitted.iter().map(|index| &orders[*index]);
    let keys = || orders().map(|order| order.key.as_ref());
    Ok(sqlx::query_as(INSERT)
        .bind(orders().map(|order| order.id.0).collect::<Vec<Uuid>>())
        .bind(orders().map(|order| order.stamp.item.as_str()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.quantity.get()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.stamp.epoch.0).collect::<Vec<_>>())
        .bind(orders().map(|order| order.stamp.number).collect::<Vec<_>>())
        .bind(keys().map(|key| key.map(|(key, _)| key.as_str())).collect::<Vec<_>>())
        .bind(keys().map(|key| key.map(|(_, fingerprint)| fingerprint.as_slice())).collect::<Vec<_>>())
        .bind(orders().map(|order| StoredTime(order.created_at)).collect::<Vec<_>>())
        .bind(orders().map(rows::event).collect::<Vec<_>>())
        .bind(orders().map(|order| order.traceparent.as_str()).collect::<Vec<_>>())
        .bind(StoredTime(now))
        .fetch_all(connection)
        .await?)
}

/// What stands under the ids and the keys of these.
async fn read_back(connection: &mut PgConnection, orders: &[&NewOrder]) -> Result<Found, LedgerError> {
    if orders.is_empty() {
        return Ok(Found::default());
    }
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id.0).collect();
    let keys: Vec<&str> = orders.iter().filter_map(|order| Some(order.key.as_ref()?.0.as_str())).collect();
    let by_id: Vec<VerdictRow> = sqlx::query_as(BY_ID).bind(ids).fetch_all(&mut *connection).await?;
    let by_key: Vec<KeyedRow> = sqlx::query_as(BY_KEY).bind(keys).fetch_all(connection).await?;
    Found::parse(by_id, by_key)
}
