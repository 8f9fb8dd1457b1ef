//! What the SQL stores have in common: how their rows are read, and which outcome applies first.

use std::collections::{HashMap, HashSet};

use contracts::{
    event::OrderCreated,
    values::{Epoch, Item, Quantity, ReservationId, Stamp, Timestamp},
};

use super::{
    CLIENT_TOMBSTONE_SECONDS, CommitOutcome, Fingerprint, KeyedOrder, LedgerError, NewOrder, Order, OutboxEvent,
    ResolveQuery, Verdict,
};

/// Keeps a tombstone for ever: no item's epoch comes above it.
pub(super) const PINNED: Epoch = Epoch(i64::MAX);

/// A client's tombstone that is younger stays.
pub(super) fn client_tombstones_end(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_sub(CLIENT_TOMBSTONE_SECONDS * 1_000_000))
}

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

/// Refuses a batch that the port does not allow.
pub(super) fn bounded(rows: usize, rows_max: usize) -> Result<(), LedgerError> {
    if rows > rows_max {
        return Err(LedgerError::Store(format!("a batch of {rows}, at most {rows_max} are allowed").into()));
    }
    Ok(())
}

pub(super) fn corrupt(what: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> LedgerError {
    LedgerError::Corrupt(format!("{what}: {why}"))
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

/// What stands under an id.
enum Standing {
    Confirmed(Order),
    Aborted,
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

/// The newest lease of each item of a batch, as read under the items' locks.
pub(super) struct Epochs(HashMap<String, Epoch>);

impl FromIterator<(String, i64)> for Epochs {
    fn from_iter<T: IntoIterator<Item = (String, i64)>>(rows: T) -> Self {
        Self(rows.into_iter().map(|(item, epoch)| (item, Epoch(epoch))).collect())
    }
}

impl Epochs {
    fn newest(&self, item: &Item) -> Epoch {
        self.0.get(item.as_str()).copied().unwrap_or(Epoch::NONE)
    }

    /// A hold of no lease is of no newest lease either.
    fn fences(&self, order: &NewOrder) -> bool {
        order.stamp.epoch == Epoch::NONE || order.stamp.epoch != self.newest(&order.stamp.item)
    }

    /// Which orders may be inserted, each id and key once: of several with the same the first is the one, because what
    /// stops it stops the others.
    pub(super) fn admitted(&self, orders: &[NewOrder]) -> Vec<usize> {
        let mut seen = HashSet::with_capacity(orders.len());
        let is_admitted = |order: &NewOrder| !self.fences(order);
        (0..orders.len())
            .filter(|index| is_admitted(&orders[*index]) && seen.insert(identity(&orders[*index])))
            .collect()
    }
}

fn identity(order: &NewOrder) -> (ReservationId, Option<&str>) {
    (order.id, order.key.as_ref().map(|(key, _)| key.as_str()))
}

/// Marks the orders, among the admitted, whose ids and keys the store says it inserted.
pub(super) fn mark_created(
    orders: &[NewOrder],
    admitted: &[usize],
    inserted: Vec<(StoredId, Option<String>)>,
) -> Result<Vec<bool>, LedgerError> {
    let index_of: HashMap<_, usize> = admitted.iter().map(|index| (identity(&orders[*index]), *index)).collect();
    let mut created = vec![false; orders.len()];
    for (id, key) in inserted {
        let index = index_of.get(&(id.0, key.as_deref())).ok_or_else(|| corrupt(&"inserted order", &id.0))?;
        created[*index] = true;
    }
    Ok(created)
}

/// What was read back after the inserts.
#[derive(Default)]
pub(super) struct Found {
    by_id: HashMap<ReservationId, Standing>,
    by_key: HashMap<String, KeyedOrder>,
}

impl Found {
    /// Of all rows with the ids, and all with the keys, of the orders that were not created.
    pub(super) fn parse(by_id: Vec<VerdictRow>, by_key: Vec<KeyedRow>) -> Result<Self, LedgerError> {
        Ok(Self {
            by_id: by_id.into_iter().map(|row| Ok((row.id.0, row.try_into()?))).collect::<Result<_, LedgerError>>()?,
            by_key: by_key.into_iter().map(KeyedRow::parse).collect::<Result<_, _>>()?,
        })
    }

    /// What became of an order that was not created: the first that applies, and fenced only where nothing stands.
    fn judge(&self, order: &NewOrder, newest: &Epochs) -> Result<CommitOutcome, LedgerError> {
        match self.by_id.get(&order.id) {
            Some(Standing::Confirmed(there)) if has_content(there, order) => {
                return Ok(CommitOutcome::Existing(there.clone()));
            }
            Some(Standing::Confirmed(_)) => return Ok(CommitOutcome::OtherContent),
            Some(Standing::Aborted) => return Ok(CommitOutcome::Aborted),
            None => {}
        }
        if let Some(there) = order.key.as_ref().and_then(|(key, _)| self.by_key.get(key.as_str())) {
            return Ok(CommitOutcome::KeyTaken(there.clone()));
        }
        if newest.fences(order) {
            return Ok(CommitOutcome::Fenced(newest.newest(&order.stamp.item)));
        }
        Err(corrupt(&"order", &format_args!("{} was neither inserted nor found", order.id)))
    }
}

/// What became of each order of a batch.
pub(super) fn outcomes(
    orders: &[NewOrder],
    created: &[bool],
    newest: &Epochs,
    found: &Found,
) -> Result<Vec<CommitOutcome>, LedgerError> {
    let judge = |(order, created): (&NewOrder, &bool)| {
        if *created { Ok(CommitOutcome::Created(as_made(order))) } else { found.judge(order, newest) }
    };
    orders.iter().zip(created).map(judge).collect()
}

fn as_made(order: &NewOrder) -> Order {
    Order { id: order.id, item: order.stamp.item.clone(), quantity: order.quantity, created_at: order.created_at }
}

fn has_content(there: &Order, order: &NewOrder) -> bool {
    there.item == order.stamp.item && there.quantity == order.quantity
}

/// The message that says an order was made.
pub(super) fn event(order: &NewOrder) -> String {
    let event = OrderCreated {
        id: order.id,
        stamp: order.stamp.clone(),
        quantity: order.quantity,
        created_at: order.created_at,
    };
    String::from_utf8(event.to_json()).expect("JSON is UTF-8")
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

/// The verdicts on reservations, by what stands after the tombstones are written.
pub(super) fn verdicts(queries: &[ResolveQuery], rows: Vec<StampRow>) -> Result<Vec<Verdict>, LedgerError> {
    let standing: HashMap<ReservationId, Option<Stamp>> =
        rows.into_iter().map(StampRow::parse).collect::<Result<_, _>>()?;
    let verdict = |query: &ResolveQuery| match (standing.get(&query.id), &query.stamp) {
        (Some(None), _) => Ok(Verdict::Aborted),
        (Some(Some(_)), None) => Ok(Verdict::Confirmed),
        (Some(Some(there)), Some(asked)) if there == asked => Ok(Verdict::Confirmed),
        (Some(Some(_)), Some(_)) => Ok(Verdict::ConfirmedElsewhere),
        (None, None) => Ok(Verdict::Unknown),
        (None, Some(_)) => Err(corrupt(&"reservation", &format_args!("{} has no verdict", query.id))),
    };
    queries.iter().map(verdict).collect()
}

/// An event that waits.
#[derive(sqlx::FromRow)]
pub(super) struct EventRow {
    pub(super) seq: i64,
    order_id: StoredId,
    payload: String,
    traceparent: String,
}

impl From<EventRow> for OutboxEvent {
    fn from(row: EventRow) -> Self {
        Self { order_id: row.order_id.0, payload: row.payload.into_bytes(), traceparent: row.traceparent }
    }
}
