//! Events are taken by relays and settled.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use contracts::values::Timestamp;
use sqlx::SqlitePool;

use super::{SqliteLedger, json_numbers};
use crate::ledger::{LedgerError, OUTBOX_COUNT_MAX, OutboxBacklog, OutboxBatch, OutboxEvent, rows::EventRow, steps};

/// Oldest first, whatever was taken before: an event that was given back is the next one again.
const OLDEST_FREE: &str = "
    SELECT seq, order_id, payload, traceparent FROM outbox
    WHERE seq NOT IN (SELECT value FROM json_each($1))
    ORDER BY seq LIMIT $2";

const RAISE_SETTLED: &str = "
    UPDATE stock_leases SET settled = settled + gone.units
    FROM (
        SELECT item, sum(quantity) AS units FROM outbox
        WHERE seq IN (SELECT value FROM json_each($1)) GROUP BY item
    ) AS gone
    WHERE stock_leases.item = gone.item";

const DELETE: &str = "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each($1))";

const BACKLOG: &str = "
    SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) AS counted),
           (SELECT created_at FROM outbox ORDER BY seq LIMIT 1)";

/// Which events relays of this process have in hand.
#[derive(Default)]
pub(super) struct InHand {
    /// Held while events are looked for and marked, so that no two relays find the same.
    taking: tokio::sync::Mutex<()>,
    seqs: Arc<Mutex<BTreeSet<i64>>>,
}

fn lock(seqs: &Mutex<BTreeSet<i64>>) -> MutexGuard<'_, BTreeSet<i64>> {
    // A set of numbers is whole after every step.
    seqs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Events in hand; free again when this is dropped.
struct SqliteOutboxBatch {
    writer: SqlitePool,
    in_hand: Arc<Mutex<BTreeSet<i64>>>,
    events: Vec<OutboxEvent>,
}

impl Drop for SqliteOutboxBatch {
    fn drop(&mut self) {
        let mut in_hand = lock(&self.in_hand);
        for event in &self.events {
            in_hand.remove(&event.seq);
        }
    }
}

#[async_trait]
impl OutboxBatch for SqliteOutboxBatch {
    fn events(&self) -> &[OutboxEvent] {
        &self.events
    }

    async fn settle(self: Box<Self>, published: &[bool]) -> Result<(), LedgerError> {
        let gone = steps::settled(&self.events, published);
        if gone.is_empty() {
            return Ok(());
        }
        let gone = json_numbers(gone);
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(RAISE_SETTLED).bind(&gone).execute(&mut *transaction).await?;
        sqlx::query(DELETE).bind(&gone).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}

impl SqliteLedger {
    pub(super) async fn take_events(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        let _taking = self.in_hand.taking.lock().await;
        // Read before the rows are: a row that is freed in between is settled and gone, or waits for the next take.
        let in_hand = json_numbers(lock(&self.in_hand.seqs).iter().copied());
        let rows: Vec<EventRow> =
            sqlx::query_as(OLDEST_FREE).bind(in_hand).bind(limit).fetch_all(&self.readers).await?;
        let events: Vec<OutboxEvent> = rows.into_iter().map(OutboxEvent::from).collect();
        lock(&self.in_hand.seqs).extend(events.iter().map(|event| event.seq));
        let in_hand = Arc::clone(&self.in_hand.seqs);
        Ok(Box::new(SqliteOutboxBatch { writer: self.writer.clone(), in_hand, events }))
    }

    pub(super) async fn backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        let (events, oldest): (i64, Option<i64>) =
            sqlx::query_as(BACKLOG).bind(OUTBOX_COUNT_MAX).fetch_one(&self.readers).await?;
        Ok(OutboxBacklog { events: u64::try_from(events).unwrap_or_default(), oldest: oldest.map(Timestamp) })
    }
}
