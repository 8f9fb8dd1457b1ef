//! Which outcome applies first.

use std::collections::{HashMap, HashSet};

use contracts::{
    event::OrderCreated,
    values::{Epoch, Item, ReservationId, Stamp},
};
use service::planted::{self, Bug};

use super::{CommitOutcome, KeyedOrder, LedgerError, NewOrder, Order, ResolveQuery, Verdict};

/// What stands under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// An order.
    Confirmed(Order),
    /// A tombstone.
    Aborted,
}

/// The newest lease of each item of a batch, as read under the items' locks.
#[derive(Debug)]
pub struct Epochs(HashMap<String, Epoch>);

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
        !planted::is(Bug::NoFence)
            && (order.stamp.epoch == Epoch::NONE || order.stamp.epoch != self.newest(&order.stamp.item))
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

/// What an order is known by.
pub(super) fn identity(order: &NewOrder) -> (ReservationId, Option<&str>) {
    (order.id, order.key.as_ref().map(|(key, _)| key.as_str()))
}

/// What stands under the ids and the keys of the orders that were not created.
#[derive(Default)]
pub(super) struct Found {
    pub(super) by_id: HashMap<ReservationId, Standing>,
    pub(super) by_key: HashMap<String, KeyedOrder>,
}

impl Found {
    /// What became of an order that was not created: the first that applies, and fenced only where nothing stands.
    fn judge(&self, order: &NewOrder, newest: &Epochs) -> Result<CommitOutcome, LedgerError> {
        let fenced = || CommitOutcome::Fenced(newest.newest(&order.stamp.item));
        if planted::is(Bug::FencedBeforeExisting) && newest.fences(order) {
            return Ok(fenced());
        }
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
            return Ok(fenced());
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
pub fn event(order: &NewOrder) -> String {
    let event = OrderCreated {
        id: order.id,
        stamp: order.stamp.clone(),
        quantity: order.quantity,
        created_at: order.created_at,
    };
    String::from_utf8(event.to_json()).expect("JSON is UTF-8")
}

/// The verdicts on reservations, by what stands after the tombstones are written.
pub(super) fn verdicts(
    queries: &[ResolveQuery],
    standing: &HashMap<ReservationId, Option<Stamp>>,
) -> Result<Vec<Verdict>, LedgerError> {
    let is_same = |there: &Stamp, asked: &Stamp| there == asked || planted::is(Bug::VerdictWithoutStamp);
    let verdict = |query: &ResolveQuery| match (standing.get(&query.id), &query.stamp) {
        (Some(None), _) => Ok(Verdict::Aborted),
        (Some(Some(_)), None) => Ok(Verdict::Confirmed),
        (Some(Some(there)), Some(asked)) if is_same(there, asked) => Ok(Verdict::Confirmed),
        (Some(Some(_)), Some(_)) => Ok(Verdict::ConfirmedElsewhere),
        (None, None) => Ok(Verdict::Unknown),
        (None, Some(_)) if planted::is(Bug::NoTombstone) => Ok(Verdict::Aborted),
        (None, Some(_)) => Err(corrupt(&"reservation", &format_args!("{} has no verdict", query.id))),
    };
    queries.iter().map(verdict).collect()
}

/// The store holds what the ledger never wrote.
pub(super) fn corrupt(what: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> LedgerError {
    LedgerError::Corrupt(format!("{what}: {why}"))
}

/// Refuses a batch that the port does not allow.
pub fn bounded(rows: usize, rows_max: usize) -> Result<(), LedgerError> {
    if rows > rows_max {
        return Err(LedgerError::Store(format!("a batch of {rows}, at most {rows_max} are allowed").into()));
    }
    Ok(())
}
