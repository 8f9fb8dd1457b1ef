//! Events are taken by relays and settled. A batch is a transaction that has its rows locked until it is settled, so that
//! no two relays have one event, wherever they run.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use tokio::sync::watch;

use super::{CALL_MAX_MS, IDLE_IN_TRANSACTION_MAX_MS, Pool, PostgresLedger, Session};
use crate::ledger::{
    LedgerError, OUTBOX_COUNT_MAX, OutboxBacklog, OutboxBatch, OutboxEvent,
    rows::{EventRow, StoredTime},
    steps::{self, Statements},
};

/// How long a relay may have a batch, in milliseconds: twice what the broker may take to judge it. Then the server takes
/// the relay to be frozen, ends its transaction, and the events are free for the others.
pub const OUTBOX_HOLD_MAX_MS: u64 = 10_000;

const OLDEST_FREE: &str = "
    SELECT seq, order_id, payload, traceparent FROM outbox ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED";

/// In the order of the items: two relays whose batches meet in several would else wait for each other in turn.
const LOCK_LEASES: &str = "
    SELECT FROM stock_leases WHERE item IN (SELECT item FROM outbox WHERE seq = ANY($1)) ORDER BY item FOR NO KEY UPDATE";

const SETTLE: &str = "
    WITH gone AS (
        DELETE FROM outbox WHERE seq = ANY($1) RETURNING item, quantity
    ), sold AS (
        SELECT item, sum(quantity)::bigint AS units FROM gone GROUP BY item
    )
    UPDATE stock_leases l SET settled = l.settled + sold.units FROM sold WHERE l.item = sold.item";

const BACKLOG: &str = "
    SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) AS counted),
           (SELECT created_at FROM outbox ORDER BY seq LIMIT 1)";

/// How many dropped batches are on their way back. The next one is taken after them, so that it finds their events.
#[derive(Clone)]
pub(super) struct GivingBack(Arc<watch::Sender<usize>>);

impl Default for GivingBack {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl GivingBack {
    fn begin(&self) -> OnTheWay {
        self.0.send_modify(|count| *count += 1);
        OnTheWay(self.clone())
    }

    async fn settled(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

struct OnTheWay(GivingBack);

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Events in hand, locked by the session's transaction.
struct PostgresOutboxBatch {
    pool: Pool,
    giving_back: GivingBack,
    /// None once it is settled, or has nothing to settle.
    session: Option<Session>,
    events: Vec<OutboxEvent>,
}

impl Drop for PostgresOutboxBatch {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let (pool, on_the_way) = (self.pool.clone(), self.giving_back.begin());
        self.pool.env().start(Box::pin(async move {
            // Without an answer the connection is closed, which undoes it too.
            let _ = pool.within(CALL_MAX_MS, session.rollback()).await;
            drop(on_the_way);
        }));
    }
}

#[async_trait]
impl OutboxBatch for PostgresOutboxBatch {
    fn events(&self) -> &[OutboxEvent] {
        &self.events
    }

    async fn settle(mut self: Box<Self>, published: &[bool]) -> Result<(), LedgerError> {
        let gone = steps::settled(&self.events, published);
        let Some(session) = self.session.take() else { return Ok(()) };
        if gone.is_empty() {
            return self.pool.within(CALL_MAX_MS, session.rollback()).await;
        }
        self.pool.within(CALL_MAX_MS, delete(session, gone)).await
    }
}

/// Deletes the events and counts their units as settled.
async fn delete(mut session: Session, gone: Vec<i64>) -> Result<(), LedgerError> {
    // From here on leases are locked: the server is to be as impatient as with everyone.
    sqlx::raw_sql(AssertSqlSafe(idle_limit(IDLE_IN_TRANSACTION_MAX_MS))).execute(&mut *session).await?;
    sqlx::query(LOCK_LEASES).bind(&gone).execute(&mut *session).await?;
    sqlx::query(SETTLE).bind(&gone).execute(&mut *session).await?;
    session.commit().await
}

fn idle_limit(limit_ms: u64) -> String {
    format!("SET LOCAL idle_in_transaction_session_timeout = {limit_ms}")
}

impl PostgresLedger {
    pub(super) async fn take_events(&self, session: Session, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        self.giving_back.settled().await;
        let mut session = session.begin_with(&idle_limit(OUTBOX_HOLD_MAX_MS)).await?;
        let rows: Vec<EventRow> = sqlx::query_as(OLDEST_FREE).bind(i64::from(limit)).fetch_all(&mut *session).await?;
        let session = if rows.is_empty() {
            session.rollback().await?;
            None
        } else {
            Some(session)
        };
        Ok(Box::new(PostgresOutboxBatch {
            pool: self.pool.clone(),
            giving_back: self.giving_back.clone(),
            session,
            events: rows.into_iter().map(OutboxEvent::from).collect(),
        }))
    }

    pub(super) async fn backlog(&self, mut session: Session) -> Result<OutboxBacklog, LedgerError> {
        let (events, oldest): (i64, Option<StoredTime>) =
            sqlx::query_as(BACKLOG).bind(OUTBOX_COUNT_MAX).fetch_one(&mut *session).await?;
        session.keep();
        Ok(OutboxBacklog { events: u64::try_from(events).unwrap_or_default(), oldest: oldest.map(|time| time.0) })
    }
}
