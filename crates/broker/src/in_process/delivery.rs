//! Handing messages out and settling them.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::SqliteConnection;
use tracing::warn;

use super::{
    Shared,
    queue::{Hold, Queue, seq_list},
};
use crate::{BrokerError, Message};

/// A message that was just handed out.
pub(super) struct Taken {
    pub(super) hold: Hold,
    pub(super) message: Message,
    pub(super) earlier_deliveries: u32,
}

/// What becomes of a message that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is deleted.
    Forget,
    /// It is ready again.
    Keep,
    /// It becomes a dead letter; `spent` if because its redeliveries are used up.
    Doom { spent: bool },
}

/// A message of the queue that nobody has in hand.
#[derive(sqlx::FromRow)]
struct ReadyRow {
    seq: i64,
    message_id: String,
    headers: String,
    body: Vec<u8>,
    deliveries: i64,
}

impl Shared {
    /// Takes up to `max` ready messages, oldest first, and counts a delivery of each. Those whose redeliveries are used
    /// up, which their consumers' ends did not judge, become dead letters instead.
    pub(super) async fn take(&self, queue: &Arc<Queue>, max: usize) -> Result<Vec<Taken>, BrokerError> {
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let mut tx = self.store.begin().await?;
        let mut dooms = Vec::new();
        let rows = loop {
            let rows = ready(&mut tx, queue, limit).await?;
            let (spent, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| is_spent(queue, row));
            doom(&mut tx, &seq_list(spent.iter().map(|row| row.seq))).await?;
            let all_spent = rows.is_empty() && !spent.is_empty();
            dooms.extend(spent.into_iter().map(|row| row.message_id));
            if !all_spent {
                break rows;
            }
        };
        if rows.is_empty() && dooms.is_empty() {
            return Ok(Vec::new());
        }
        let buried = if dooms.is_empty() { Buried::default() } else { bury(&mut tx, queue).await? };
        let taken = rows.into_iter().map(|row| taken(queue, row)).collect::<Result<Vec<_>, _>>()?;
        sqlx::query("UPDATE messages SET deliveries = deliveries + 1 WHERE seq IN (SELECT value FROM json_each(?))")
            .bind(seq_list(taken.iter().map(|taken| taken.hold.seq)))
            .execute(&mut *tx)
            .await
            .map_err(BrokerError::of)?;
        tx.commit().await.map_err(BrokerError::of)?;
        self.tell(queue, &dooms, &buried, !dooms.is_empty());
        Ok(taken)
    }

    /// Settles messages of one queue in one transaction.
    pub(super) async fn settle(&self, queue: &Arc<Queue>, verdicts: Vec<(Hold, Verdict)>) -> Result<(), BrokerError> {
        let of = |wanted: fn(Verdict) -> bool| verdicts.iter().filter(move |(_, verdict)| wanted(*verdict));
        let forget = seq_list(of(|verdict| verdict == Verdict::Forget).map(|(hold, _)| hold.seq));
        let dooms = seq_list(of(|verdict| matches!(verdict, Verdict::Doom { .. })).map(|(hold, _)| hold.seq));
        let spent = seq_list(of(|verdict| verdict == Verdict::Doom { spent: true }).map(|(hold, _)| hold.seq));
        if of(|verdict| verdict != Verdict::Keep).next().is_none() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        sqlx::query("DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))")
            .bind(&forget)
            .execute(&mut *tx)
            .await
            .map_err(BrokerError::of)?;
        let any_doomed = dooms != "[]";
        // Acknowledging dead letters makes room for the doomed of their queue.
        let source = if any_doomed { Some(Arc::clone(queue)) } else { self.source_of(queue) };
        let spent: Vec<String> =
            sqlx::query_scalar("SELECT message_id FROM messages WHERE seq IN (SELECT value FROM json_each(?))")
                .bind(&spent)
                .fetch_all(&mut *tx)
                .await
                .map_err(BrokerError::of)?;
        doom(&mut tx, &dooms).await?;
        let buried = match &source {
            Some(source) => bury(&mut tx, source).await?,
            None => Buried::default(),
        };
        tx.commit().await.map_err(BrokerError::of)?;
        for (hold, verdict) in verdicts {
            if verdict != Verdict::Keep {
                hold.settled();
            }
        }
        if let Some(source) = &source {
            self.tell(source, &spent, &buried, any_doomed);
        }
        Ok(())
    }

    /// Says in the log what nobody else knows, and wakes readers of the dead letters. `doomed`: some were just now.
    fn tell(&self, queue: &Queue, spent: &[String], buried: &Buried, doomed: bool) {
        let name = &queue.row.name;
        for message_id in spent {
            warn!(queue = name, message_id, "message dead-lettered: its redeliveries are used up");
        }
        if doomed && buried.waiting > 0 {
            warn!(
                queue = name,
                waiting = buried.waiting,
                "the dead-letter queue is full: dead letters wait in their queue"
            );
        }
        if buried.moved > 0
            && let Some(dead) = self.find(|other| Some(other.row.id) == queue.row.dead_letters)
        {
            dead.ring();
        }
    }

    /// The queue whose dead letters this one holds.
    fn source_of(&self, dead: &Queue) -> Option<Arc<Queue>> {
        self.find(|other| other.row.dead_letters == Some(dead.row.id))
    }
}

fn is_spent(queue: &Queue, row: &ReadyRow) -> bool {
    queue.row.redeliveries_max().is_some_and(|max| row.deliveries > i64::from(max))
}

fn taken(queue: &Arc<Queue>, row: ReadyRow) -> Result<Taken, BrokerError> {
    let headers: BTreeMap<String, String> = serde_json::from_str(&row.headers).map_err(BrokerError::of)?;
    let message = Message { id: row.message_id, routing_key: queue.row.name.clone(), body: row.body, headers };
    let earlier_deliveries = u32::try_from(row.deliveries).unwrap_or(u32::MAX);
    Ok(Taken { hold: Hold::take(queue, row.seq), message, earlier_deliveries })
}

async fn ready(tx: &mut SqliteConnection, queue: &Queue, limit: i64) -> Result<Vec<ReadyRow>, BrokerError> {
    sqlx::query_as(
        "SELECT seq, message_id, headers, body, deliveries FROM messages
         WHERE queue = ? AND doomed = 0 AND seq NOT IN (SELECT value FROM json_each(?))
         ORDER BY seq LIMIT ?",
    )
    .bind(queue.row.id)
    .bind(queue.in_hand())
    .bind(limit)
    .fetch_all(tx)
    .await
    .map_err(BrokerError::of)
}

async fn doom(tx: &mut SqliteConnection, seqs: &str) -> Result<(), BrokerError> {
    sqlx::query("UPDATE messages SET doomed = 1 WHERE seq IN (SELECT value FROM json_each(?))")
        .bind(seqs)
        .execute(tx)
        .await
        .map_err(BrokerError::of)?;
    Ok(())
}

/// How many dead letters reached their queue, and how many wait for room.
#[derive(Default)]
struct Buried {
    moved: u64,
    waiting: i64,
}

/// Moves the doomed of a queue to its dead letters, oldest first, as many as find room.
async fn bury(tx: &mut SqliteConnection, queue: &Queue) -> Result<Buried, BrokerError> {
    let moved = sqlx::query(
        "UPDATE messages SET queue = ?1, doomed = 0, deliveries = 0 WHERE seq IN (
             SELECT seq FROM messages WHERE queue = ?2 AND doomed = 1 ORDER BY seq
             LIMIT (SELECT length_max - length FROM queues WHERE id = ?1)
         )",
    )
    .bind(queue.row.dead_letters)
    .bind(queue.row.id)
    .execute(&mut *tx)
    .await
    .map_err(BrokerError::of)?
    .rows_affected();
    let waiting = sqlx::query_scalar("SELECT count(*) FROM messages WHERE queue = ? AND doomed = 1")
        .bind(queue.row.id)
        .fetch_one(tx)
        .await
        .map_err(BrokerError::of)?;
    Ok(Buried { moved, waiting })
}
