//! The file: one connection writes, others read.

use std::{collections::HashMap, path::Path, time::Duration};

use contracts::values::Timestamp;
use sqlx::{
    Connection, QueryBuilder, Sqlite, SqliteConnection, SqlitePool, Transaction, migrate,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{BrokerError, Message, PublishOutcome, QueueSpec};

/// Connections that read.
const READERS_MAX: u32 = 2;
/// Longest wait for a connection, and for another process that has the file locked.
const STORE_WAIT_MAX_MS: u64 = 5_000;
/// Most messages of one insert statement; more take several, in the same transaction.
const INSERT_ROWS_MAX: usize = 100;

/// A queue as it stands in the file.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct QueueRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) length_max: i64,
    redeliveries_max: Option<i64>,
    /// The id of its dead-letter queue; `None` if it is one.
    pub(super) dead_letters: Option<i64>,
}

impl QueueRow {
    /// How often a message may be delivered again; a dead-letter queue has no limit.
    pub(super) fn redeliveries_max(&self) -> Option<u32> {
        self.redeliveries_max.map(|max| u32::try_from(max).expect("written from a u32"))
    }
}

/// The file.
pub(super) struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Store {
    pub(super) async fn open(path: &Path) -> Result<Self, BrokerError> {
        let wait = Duration::from_millis(STORE_WAIT_MAX_MS);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(wait);
        let pool = |connections| {
            let options = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(wait);
            options
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                // After some disk errors SQLite itself rolls back, the ROLLBACK that follows fails, and sqlx takes the
                // connection to be in a transaction for ever. Such a one is thrown away.
                .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(BrokerError::of)?;
        migrate!().run(&writer).await.map_err(BrokerError::of)?;
        let reader = pool(READERS_MAX).connect_with(options.read_only(true)).await.map_err(BrokerError::of)?;
        Ok(Self { writer, reader })
    }

    /// The one transaction that writes.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, BrokerError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(BrokerError::of)
    }

    pub(super) async fn queues(&self) -> Result<Vec<QueueRow>, BrokerError> {
        let query = sqlx::query_as("SELECT id, name, length_max, redeliveries_max, dead_letters FROM queues");
        query.fetch_all(&self.reader).await.map_err(BrokerError::of)
    }

    pub(super) async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        let query = sqlx::query_scalar::<_, i64>("SELECT length FROM queues WHERE name = ?").bind(queue);
        let length = query.fetch_optional(&self.reader).await.map_err(BrokerError::of)?;
        let length = length.ok_or_else(|| BrokerError::text(format!("no queue {queue:?}")))?;
        Ok(u64::try_from(length).expect("a CHECK keeps it from being negative"))
    }

    pub(super) async fn declare(&self, spec: &QueueSpec) -> Result<(), BrokerError> {
        let mut tx = self.begin().await?;
        let dead = declare_one(&mut tx, &spec.dead_letter_queue(), spec.length_max, None).await?;
        declare_one(&mut tx, &spec.name, spec.length_max, Some((spec.redeliveries_max, dead))).await?;
        tx.commit().await.map_err(BrokerError::of)
    }

    pub(super) async fn publish(
        &self,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Vec<PublishOutcome>, BrokerError> {
        let mut tx = self.begin().await?;
        let rooms: Vec<(String, i64, i64)> = sqlx::query_as("SELECT name, id, length_max - length FROM queues")
            .fetch_all(&mut *tx)
            .await
            .map_err(BrokerError::of)?;
        let mut rooms: HashMap<String, (i64, i64)> =
            rooms.into_iter().map(|(name, id, room)| (name, (id, room))).collect();
        let mut accepted = Vec::with_capacity(messages.len());
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            outcomes.push(match rooms.get_mut(&message.routing_key) {
                None => PublishOutcome::Returned,
                Some((_, 0)) => PublishOutcome::Refused,
                Some((queue, room)) => {
                    *room -= 1;
                    accepted.push((*queue, message));
                    PublishOutcome::Confirmed
                }
            });
        }
        for rows in accepted.chunks(INSERT_ROWS_MAX) {
            insert(&mut tx, rows, now).await?;
        }
        tx.commit().await.map_err(BrokerError::of)?;
        Ok(outcomes)
    }
}

/// Makes a queue, or finds it with just these values; its id. `source` is what a queue that is no dead-letter queue
/// has: how often it redelivers, and its dead-letter queue.
async fn declare_one(
    tx: &mut SqliteConnection,
    name: &str,
    length_max: u32,
    source: Option<(u32, i64)>,
) -> Result<i64, BrokerError> {
    let (length_max, redeliveries_max) = (i64::from(length_max), source.map(|(max, _)| i64::from(max)));
    let dead_letters = source.map(|(_, dead)| dead);
    sqlx::query(
        "INSERT INTO queues (name, length_max, redeliveries_max, dead_letters) VALUES (?, ?, ?, ?)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(length_max)
    .bind(redeliveries_max)
    .bind(dead_letters)
    .execute(&mut *tx)
    .await
    .map_err(BrokerError::of)?;
    let row: QueueRow =
        sqlx::query_as("SELECT id, name, length_max, redeliveries_max, dead_letters FROM queues WHERE name = ?")
            .bind(name)
            .fetch_one(tx)
            .await
            .map_err(BrokerError::of)?;
    if (row.length_max, row.redeliveries_max, row.dead_letters) != (length_max, redeliveries_max, dead_letters) {
        let shown = |redeliveries: Option<i64>| redeliveries.map_or("none".to_owned(), |max| max.to_string());
        return Err(BrokerError::text(format!(
            "queue {name:?} was declared with other values: length_max {} and redeliveries_max {}, now {length_max} and {}",
            row.length_max,
            shown(row.redeliveries_max),
            shown(redeliveries_max),
        )));
    }
    Ok(row.id)
}

async fn insert(tx: &mut SqliteConnection, rows: &[(i64, &Message)], now: Timestamp) -> Result<(), BrokerError> {
    let mut insert = QueryBuilder::new("INSERT INTO messages (queue, message_id, headers, body, created_at) ");
    insert.push_values(rows, |mut values, (queue, message)| {
        let headers = serde_json::to_string(&message.headers).expect("a map of strings becomes JSON");
        values.push_bind(*queue).push_bind(&message.id).push_bind(headers);
        values.push_bind(&message.body).push_bind(now.0);
    });
    insert.build().execute(tx).await.map_err(BrokerError::of)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_transaction_sqlite_ended_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("broker.db")).await.expect("opened");
        let mut transaction = store.begin().await.expect("begun");
        // As SQLite does on an error of the disk, past sqlx.
        sqlx::query("ROLLBACK").execute(&mut *transaction).await.expect("ended");
        drop(transaction);
        store.begin().await.expect("begun on another connection");
    }
}
