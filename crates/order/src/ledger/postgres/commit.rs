//! Group commit.

use std::{collections::BTreeSet, time::Duration};

use contracts::values::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{PostgresLedger, Session, item_lock};
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

/// How long a batch waits for a lock, in milliseconds: all orders behind it wait too. With the committer's retries longer
/// than whoever has the lock may do nothing.
pub const COMMIT_LOCK_WAIT_MAX_MS: u64 = 400;
/// When a batch begins with no further order that is committed alone, in milliseconds: early enough for the last one to end
/// before the committer gives up the batch.
pub const COMMIT_ALONE_MAX_MS: u64 = 2_000;
/// How long a commit may take once it has a connection, in milliseconds: more than a statement, and with the wait for the
/// connection less than the committer waits for a batch. Then there is an outage.
pub const COMMIT_CALL_MAX_MS: u64 = 2_400;

/// Takes the locks that are free, and answers the others.
const LOCK_FREE_ITEMS: &str = "
    SELECT number FROM unnest($1::bigint[]) AS number WHERE NOT pg_try_advisory_xact_lock_shared(number)";

/// SQLSTATE of a wait for a lock that was too long.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATEs, or classes of them, that one order, or what stands under its id or key, may be to blame for: data that does
/// not fit, a constraint, a limit; a rollback for the sake of another transaction, which a single order cannot cause; and
/// a lock.
const ORDER_ERRORS: [&str; 5] = ["22", "23", "54", "40", LOCK_NOT_AVAILABLE];

/// Nothing was done for an order.
#[derive(Debug, thiserror::Error)]
enum NotTried {
    #[error("the item is locked")]
    ItemLocked,
    #[error("orders before it took too long")]
    NoTimeLeft,
}

impl From<NotTried> for LedgerError {
    fn from(error: NotTried) -> Self {
        Self::Store(Box::new(error))
    }
}

fn has_code(error: &LedgerError, codes: &[&str]) -> bool {
    let LedgerError::Store(source) = error else { return false };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref() else { return false };
    database.code().is_some_and(|code| codes.iter().any(|start| code.starts_with(start)))
}

/// Whether the others may go through without the one to blame. In all these cases nothing was committed.
fn blames_order(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Corrupt(_)) || has_code(error, &ORDER_ERRORS)
}

/// The numbers of the locks of these orders' items.
fn locks(orders: &[NewOrder]) -> Vec<i64> {
    let locks: BTreeSet<i64> = orders.iter().map(|order| item_lock(&order.stamp.item)).collect();
    Vec::from_iter(locks)
}

type Outcomes = Vec<Result<CommitOutcome, LedgerError>>;

impl PostgresLedger {
    pub(super) async fn commit_batch(&self, orders: &[NewOrder]) -> Result<Outcomes, LedgerError> {
        bounded(orders.len(), COMMIT_BATCH_MAX)?;
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let began = self.env.uptime();
        let mut committed = self.pool.call(COMMIT_CALL_MAX_MS, |session| self.commit_together(session, orders)).await;
        if committed.as_ref().is_err_and(|error| has_code(error, &[LOCK_NOT_AVAILABLE])) {
            committed = self.pool.call(COMMIT_CALL_MAX_MS, |session| self.commit_free(session, orders)).await;
        }
        match committed {
            Err(error) if blames_order(&error) => {
                self.commit_each_alone(orders, began + Duration::from_millis(COMMIT_ALONE_MAX_MS)).await
            }
            committed => committed,
        }
    }

    /// `until` is an uptime.
    async fn commit_each_alone(&self, orders: &[NewOrder], until: Duration) -> Result<Outcomes, LedgerError> {
        let mut outcomes = Vec::with_capacity(orders.len());
        for order in orders {
            if self.env.uptime() >= until {
                outcomes.push(Err(NotTried::NoTimeLeft.into()));
                continue;
            }
            let alone = std::slice::from_ref(order);
            match self.pool.call(COMMIT_CALL_MAX_MS, |session| self.commit_together(session, alone)).await {
                Ok(one) => outcomes.extend(one),
                Err(error) if blames_order(&error) => outcomes.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(outcomes)
    }

    /// One transaction.
    async fn commit_together(&self, mut session: Session, orders: &[NewOrder]) -> Result<Outcomes, LedgerError> {
        let mut transaction = session.begin_waiting(COMMIT_LOCK_WAIT_MAX_MS).await?;
        sqlx::query(LOCK_ITEMS).bind(locks(orders)).execute(&mut *transaction).await?;
        let outcomes = self.write(&mut transaction, orders).await?;
        transaction.commit().await?;
        session.keep();
        Ok(outcomes.into_iter().map(Ok).collect())
    }

    /// One transaction of the orders whose items' locks are free. One item that is locked stops no other.
    async fn commit_free(&self, mut session: Session, orders: &[NewOrder]) -> Result<Outcomes, LedgerError> {
        let mut transaction = session.begin_waiting(COMMIT_LOCK_WAIT_MAX_MS).await?;
        let locked: Vec<i64> =
            sqlx::query_scalar(LOCK_FREE_ITEMS).bind(locks(orders)).fetch_all(&mut *transaction).await?;
        let is_free = |order: &NewOrder| !locked.contains(&item_lock(&order.stamp.item));
        let free: Vec<NewOrder> = orders.iter().filter(|order| is_free(order)).cloned().collect();
        let mut outcomes = self.write(&mut transaction, &free).await?.into_iter();
        transaction.commit().await?;
        session.keep();
        let written = |order| is_free(order).then(|| outcomes.next().expect("one for each that is free"));
        Ok(orders.iter().map(written).map(|outcome| outcome.ok_or_else(|| NotTried::ItemLocked.into())).collect())
    }

    /// The epochs, the orders of the newest epochs with their events, then what became of the rest. Each in a statement of
    /// its own: it sees what was committed before it began. Their items are locked.
    async fn write(
        &self,
        connection: &mut PgConnection,
        orders: &[NewOrder],
    ) -> Result<Vec<CommitOutcome>, LedgerError> {
        let items: BTreeSet<&str> = orders.iter().map(|order| order.stamp.item.as_str()).collect();
        let newest: Vec<(String, i64)> =
            sqlx::query_as(EPOCHS).bind(Vec::from_iter(items)).fetch_all(&mut *connection).await?;
        let newest: Epochs = newest.into_iter().collect();
        let admitted = newest.admitted(orders);
        let inserted = insert(connection, orders, &admitted, self.env.now()).await?;
        let created = rows::mark_created(orders, &admitted, inserted)?;
        let rest: Vec<&NewOrder> =
            orders.iter().zip(&created).filter_map(|(order, created)| (!created).then_some(order)).collect();
        let found = read_back(connection, &rest).await?;
        rows::outcomes(orders, &created, &newest, &found)
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
