//! Group commit.

use std::collections::{BTreeSet, HashMap};

use contracts::{
    event::OrderCreated,
    values::{Epoch, Item, Timestamp},
};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{OrderRow, SqliteLedger, bounded, corrupt, json_texts};
use crate::ledger::{COMMIT_BATCH_MAX, CommitOutcome, Fingerprint, KeyedOrder, LedgerError, NewOrder, Order};

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

/// What stands under an id.
enum Standing {
    Confirmed(Order),
    Aborted,
}

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
        let newest_of = |item: &Item| newest.get(item.as_str()).copied().unwrap_or(Epoch::NONE);
        // A hold of no lease is of no newest lease either.
        let is_fenced =
            |order: &NewOrder| order.stamp.epoch == Epoch::NONE || order.stamp.epoch != newest_of(&order.stamp.item);

        let admitted: Vec<usize> = (0..orders.len()).filter(|index| !is_fenced(&orders[*index])).collect();
        let mut created = vec![false; orders.len()];
        for index in insert_orders(&mut transaction, orders, &admitted).await? {
            created[index] = true;
        }
        let new: Vec<&NewOrder> = orders.iter().zip(&created).filter_map(|(o, created)| created.then_some(o)).collect();
        insert_events(&mut transaction, &new, self.env.now()).await?;

        let rest: Vec<&NewOrder> =
            orders.iter().zip(&created).filter_map(|(o, created)| (!created).then_some(o)).collect();
        let by_id = read_by_ids(&mut transaction, &rest).await?;
        let by_key = read_by_keys(&mut transaction, &rest).await?;
        let judge = |(order, created): (&NewOrder, &bool)| {
            if *created {
                return Ok(CommitOutcome::Created(as_made(order)));
            }
            match by_id.get(&order.id.to_string()) {
                Some(Standing::Confirmed(there)) if has_content(there, order) => {
                    return Ok(CommitOutcome::Existing(there.clone()));
                }
                Some(Standing::Confirmed(_)) => return Ok(CommitOutcome::OtherContent),
                Some(Standing::Aborted) => return Ok(CommitOutcome::Aborted),
                None => {}
            }
            if let Some(there) = order.key.as_ref().and_then(|(key, _)| by_key.get(key.as_str())) {
                return Ok(CommitOutcome::KeyTaken(there.clone()));
            }
            if is_fenced(order) {
                return Ok(CommitOutcome::Fenced(newest_of(&order.stamp.item)));
            }
            Err(corrupt("order", &format_args!("{} was neither inserted nor found", order.id)))
        };
        let outcomes = orders.iter().zip(&created).map(judge).collect::<Result<_, _>>()?;
        transaction.commit().await?;
        Ok(outcomes)
    }
}

fn as_made(order: &NewOrder) -> Order {
    Order { id: order.id, item: order.stamp.item.clone(), quantity: order.quantity, created_at: order.created_at }
}

fn has_content(there: &Order, order: &NewOrder) -> bool {
    there.item == order.stamp.item && there.quantity == order.quantity
}

async fn read_epochs(
    connection: &mut SqliteConnection,
    orders: &[NewOrder],
) -> Result<HashMap<String, Epoch>, LedgerError> {
    let items: BTreeSet<&Item> = orders.iter().map(|order| &order.stamp.item).collect();
    let rows: Vec<(String, i64)> = sqlx::query_as(EPOCHS).bind(json_texts(items)).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(item, epoch)| (item, Epoch(epoch))).collect())
}

/// Inserts those that meet neither their id nor their key, and says which.
async fn insert_orders(
    connection: &mut SqliteConnection,
    orders: &[NewOrder],
    admitted: &[usize],
) -> Result<Vec<usize>, LedgerError> {
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
    let inserted: Vec<(String, Option<String>)> =
        sqlx::query_as(INSERT_ORDERS).bind(rows).fetch_all(connection).await?;
    // Of several with the same id and key, the first is the one inserted: what stops it stops the others.
    let mut first = HashMap::with_capacity(admitted.len());
    for index in admitted {
        let order = &orders[*index];
        let key = order.key.as_ref().map(|(key, _)| key.as_str().to_owned());
        first.entry((order.id.to_string(), key)).or_insert(*index);
    }
    inserted.into_iter().map(|row| first.get(&row).copied().ok_or_else(|| corrupt("inserted order", &row.0))).collect()
}

async fn insert_events(
    connection: &mut SqliteConnection,
    orders: &[&NewOrder],
    now: Timestamp,
) -> Result<(), LedgerError> {
    if orders.is_empty() {
        return Ok(());
    }
    let row = |order: &&NewOrder| {
        let event = OrderCreated {
            id: order.id,
            stamp: order.stamp.clone(),
            quantity: order.quantity,
            created_at: order.created_at,
        };
        json!({
            "id": order.id.to_string(),
            "item": order.stamp.item.as_str(),
            "quantity": order.quantity.get(),
            "payload": String::from_utf8(event.to_json()).expect("JSON is UTF-8"),
            "traceparent": order.traceparent,
        })
    };
    let rows = orders.iter().map(row).collect::<Value>().to_string();
    let done = sqlx::query(INSERT_EVENTS).bind(rows).bind(now.0).execute(connection).await?;
    assert_eq!(done.rows_affected(), orders.len() as u64, "an order is committed with its event or not at all");
    Ok(())
}

#[derive(sqlx::FromRow)]
struct VerdictRow {
    id: String,
    state: String,
    item: String,
    quantity: Option<i64>,
    created_at: i64,
}

async fn read_by_ids(
    connection: &mut SqliteConnection,
    orders: &[&NewOrder],
) -> Result<HashMap<String, Standing>, LedgerError> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    let ids = json_texts(orders.iter().map(|order| order.id));
    let rows: Vec<VerdictRow> = sqlx::query_as(BY_ID).bind(ids).fetch_all(connection).await?;
    let standing = |row: VerdictRow| {
        let id = row.id.clone();
        let standing = match (row.state.as_str(), row.quantity) {
            ("aborted", None) => Standing::Aborted,
            ("confirmed", Some(quantity)) => Standing::Confirmed(
                OrderRow { id: row.id, item: row.item, quantity, created_at: row.created_at }.try_into()?,
            ),
            (state, _) => return Err(corrupt(&id, &state)),
        };
        Ok((id, standing))
    };
    rows.into_iter().map(standing).collect()
}

#[derive(sqlx::FromRow)]
pub(super) struct KeyedRow {
    #[sqlx(flatten)]
    order: OrderRow,
    request_key: String,
    fingerprint: Vec<u8>,
}

impl KeyedRow {
    /// The key, and what it stands for.
    pub(super) fn parse(self) -> Result<(String, KeyedOrder), LedgerError> {
        let fingerprint = Fingerprint::try_from(self.fingerprint)
            .map_err(|bytes| corrupt("fingerprint", &format_args!("of {} bytes", bytes.len())))?;
        Ok((self.request_key, KeyedOrder { order: self.order.try_into()?, fingerprint }))
    }
}

async fn read_by_keys(
    connection: &mut SqliteConnection,
    orders: &[&NewOrder],
) -> Result<HashMap<String, KeyedOrder>, LedgerError> {
    let keys: Vec<&str> = orders.iter().filter_map(|order| Some(order.key.as_ref()?.0.as_str())).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<KeyedRow> = sqlx::query_as(BY_KEY).bind(json_texts(keys)).fetch_all(connection).await?;
    rows.into_iter().map(KeyedRow::parse).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hexadecimal digit"));
        }
        text
    })
}
