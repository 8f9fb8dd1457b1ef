//! Group commit.

use std::collections::BTreeSet;

use contracts::values::{Item, Timestamp};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{SqliteLedger, json_texts};
use crate::ledger::{
    COMMIT_BATCH_MAX, CommitOutcome, LedgerError, NewOrder,
    rows::{self, Epochs, Found, StoredId, bounded},
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

/// SQLite's primary result codes for "this value does not fit": too big, constraint, mismatch.
const DATA_ERRORS: [i32; 3] = [18, 19, 20];

/// Whether one order, or what stands under its id or key, is to blame, so that the others may go through without it.
fn blames_data(error: &LedgerError) -> bool {
    let LedgerError::Store(source) = error else { return true };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref() else { return false };
    let code: Option<i32> = database.code().and_then(|code| code.parse().ok());
    code.is_some_and(|extended| DATA_ERRORS.contains(&(extended & 0xff)))
}

impl SqliteLedger {
    pub(super) async fn commit_batch(
        &self,
        orders: &[NewOrder],
    ) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        bounded(orders.len(), COMMIT_BATCH_MAX)?;
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        match self.commit_together(orders).await {
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
            outcomes.push(match self.commit_together(std::slice::from_ref(order)).await {
                Ok(mut one) => Ok(one.remove(0)),
                Err(error) if blames_data(&error) => Err(error),
                Err(error) => return Err(error),
            });
        }
        Ok(outcomes)
    }

    /// One transaction: the epochs, the orders of the newest epochs with their events, then what became of the rest.
    async fn commit_together(&self, orders: &[NewOrder]) -> Result<Vec<CommitOutcome>, LedgerError> {
        let mut transaction = self.begin().await?;
        let newest = read_epochs(&mut transaction, orders).await?;
        let admitted = newest.admitted(orders);
        let inserted = insert_orders(&mut transaction, orders, &admitted).await?;
        let created = rows::mark_created(orders, &admitted, inserted)?;
        let (new, rest): (Vec<_>, Vec<_>) = orders.iter().zip(&created).partition(|(_, created)| **created);
        insert_events(&mut transaction, &new, self.env.now()).await?;
        let found = read_back(&mut transaction, &rest).await?;
        let outcomes = rows::outcomes(orders, &created, &newest, &found)?;
        transaction.commit().await?;
        Ok(outcomes)
    }
}

async fn read_epochs(connection: &mut SqliteConnection, orders: &[NewOrder]) -> Result<Epochs, LedgerError> {
    let items: BTreeSet<&Item> = orders.iter().map(|order| &order.stamp.item).collect();
    let rows: Vec<(String, i64)> = sqlx::query_as(EPOCHS).bind(json_texts(items)).fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

/// Inserts those that meet neither their id nor their key, and says which.
async fn insert_orders(
    connection: &mut SqliteConnection,
    orders: &[NewOrder],
    admitted: &[usize],
) -> Result<Vec<(StoredId, Option<String>)>, LedgerError> {
    if admitted.is_empty() {
        return Ok(Vec::new());
    }
    let row = |order: &NewOrder| {
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
    };
    let rows = admitted.iter().map(|index| row(&orders[*index])).collect::<Value>().to_string();
    Ok(sqlx::query_as(INSERT_ORDERS).bind(rows).fetch_all(connection).await?)
}

async fn insert_events(
    connection: &mut SqliteConnection,
    orders: &[(&NewOrder, &bool)],
    now: Timestamp,
) -> Result<(), LedgerError> {
    if orders.is_empty() {
        return Ok(());
    }
    let row = |(order, _): &(&NewOrder, &bool)| {
        json!({
            "id": order.id.to_string(),
            "item": order.stamp.item.as_str(),
            "quantity": order.quantity.get(),
            "payload": rows::event(order),
            "traceparent": order.traceparent,
        })
    };
    let rows = orders.iter().map(row).collect::<Value>().to_string();
    let done = sqlx::query(INSERT_EVENTS).bind(rows).bind(now.0).execute(connection).await?;
    assert_eq!(done.rows_affected(), orders.len() as u64, "an order is committed with its event or not at all");
    Ok(())
}

/// What stands under the ids and the keys of these.
async fn read_back(connection: &mut SqliteConnection, orders: &[(&NewOrder, &bool)]) -> Result<Found, LedgerError> {
    if orders.is_empty() {
        return Ok(Found::default());
    }
    let ids = json_texts(orders.iter().map(|(order, _)| order.id));
    let keys = json_texts(orders.iter().filter_map(|(order, _)| Some(order.key.as_ref()?.0.as_str())));
    let by_id = sqlx::query_as(BY_ID).bind(ids).fetch_all(&mut *connection).await?;
    let by_key = sqlx::query_as(BY_KEY).bind(keys).fetch_all(connection).await?;
    Found::parse(by_id, by_key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hexadecimal digit"));
        }
        text
    })
}
