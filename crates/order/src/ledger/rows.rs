//! What the SQL stores have in common: how their rows are read.

use std::collections::HashMap;

use contracts::values::{Epoch, Item, Quantity, ReservationId, Stamp, Timestamp};
use uuid::Uuid;

use super::{
    Fingerprint, ItemStock, KeyedOrder, LedgerError, NewOrder, Order, OutboxEvent, Restock,
    judging::{Standing, corrupt, identity},
};

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt(error.to_string())
            }
            error => Self::Store(Box::new(error)),
        }
    }
}

/// An id as the store keeps it: its text in SQLite, a `uuid` in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StoredId(pub ReservationId);

/// A time as the store keeps it: microseconds in SQLite, a `timestamptz` in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredTime(pub Timestamp);

/// A confirmed row.
#[derive(sqlx::FromRow)]
pub(super) struct OrderRow {
    id: StoredId,
    item: String,
    quantity: i64,
    created_at: StoredTime,
}

impl TryFrom<OrderRow> for Order {
    type Error = LedgerError;

    fn try_from(row: OrderRow) -> Result<Self, LedgerError> {
        let id = row.id.0;
        Ok(Self {
            id,
            item: Item::parse(&row.item).map_err(|e| corrupt(&id, &e))?,
            quantity: Quantity::parse(row.quantity).map_err(|e| corrupt(&id, &e))?,
            created_at: row.created_at.0,
        })
    }
}

/// A confirmed row that has a key.
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
            .map_err(|bytes| corrupt(&"fingerprint", &format_args!("of {} bytes", bytes.len())))?;
        Ok((self.request_key, KeyedOrder { order: self.order.try_into()?, fingerprint }))
    }
}

/// A row of either state.
#[derive(sqlx::FromRow)]
pub(super) struct VerdictRow {
    id: StoredId,
    state: String,
    item: String,
    quantity: Option<i64>,
    created_at: StoredTime,
}

/// What stands under ids.
pub(super) fn standing(rows: Vec<VerdictRow>) -> Result<HashMap<ReservationId, Standing>, LedgerError> {
    rows.into_iter().map(|row| Ok((row.id.0, row.try_into()?))).collect()
}

impl TryFrom<VerdictRow> for Standing {
    type Error = LedgerError;

    fn try_from(row: VerdictRow) -> Result<Self, LedgerError> {
        match (row.state.as_str(), row.quantity) {
            ("aborted", None) => Ok(Self::Aborted),
            ("confirmed", Some(quantity)) => {
                let row = OrderRow { id: row.id, item: row.item, quantity, created_at: row.created_at };
                Ok(Self::Confirmed(row.try_into()?))
            }
            (state, _) => Err(corrupt(&row.id.0, &state)),
        }
    }
}

/// Which of the orders the store says it inserted, by their ids and keys.
pub(super) fn inserted(orders: &[&NewOrder], rows: Vec<(StoredId, Option<String>)>) -> Result<Vec<bool>, LedgerError> {
    let index_of: HashMap<_, usize> =
        orders.iter().enumerate().map(|(index, order)| (identity(order), index)).collect();
    let mut inserted = vec![false; orders.len()];
    for (id, key) in rows {
        let index = index_of.get(&(id.0, key.as_deref())).ok_or_else(|| corrupt(&"inserted order", &id.0))?;
        inserted[*index] = true;
    }
    Ok(inserted)
}

/// Epoch, received and sold.
pub(super) fn counted(rows: Vec<(i64, i64, i64)>) -> Vec<ItemStock> {
    rows.into_iter().map(|(epoch, received, sold)| ItemStock { epoch: Epoch(epoch), received, sold }).collect()
}

/// A journalled restock.
pub(super) fn restock(id: Uuid, row: (String, i64, i64)) -> Result<(Restock, Epoch), LedgerError> {
    let item = Item::parse(&row.0).map_err(|e| corrupt(&id, &e))?;
    let quantity = Quantity::parse(row.1).map_err(|e| corrupt(&id, &e))?;
    Ok((Restock { id, item, quantity }, Epoch(row.2)))
}

/// A row as judging sees it.
#[derive(sqlx::FromRow)]
pub(super) struct StampRow {
    id: StoredId,
    state: String,
    item: String,
    epoch: i64,
    number: Option<i64>,
}

impl StampRow {
    /// The stamp of a confirmed row; none for a tombstone.
    fn parse(self) -> Result<(ReservationId, Option<Stamp>), LedgerError> {
        let id = self.id.0;
        match (self.state.as_str(), self.number) {
            ("aborted", None) => Ok((id, None)),
            ("confirmed", Some(number)) => {
                let item = Item::parse(&self.item).map_err(|e| corrupt(&id, &e))?;
                Ok((id, Some(Stamp { item, epoch: Epoch(self.epoch), number })))
            }
            (state, _) => Err(corrupt(&id, &state)),
        }
    }
}

/// The stamps of orders; none for a tombstone.
pub(super) fn stamps(rows: Vec<StampRow>) -> Result<HashMap<ReservationId, Option<Stamp>>, LedgerError> {
    rows.into_iter().map(StampRow::parse).collect()
}

/// An event that waits.
#[derive(sqlx::FromRow)]
pub(super) struct EventRow {
    seq: i64,
    order_id: StoredId,
    payload: String,
    traceparent: String,
}

impl From<EventRow> for OutboxEvent {
    fn from(row: EventRow) -> Self {
        Self { seq: row.seq, order_id: row.order_id.0, payload: row.payload.into_bytes(), traceparent: row.traceparent }
    }
}
