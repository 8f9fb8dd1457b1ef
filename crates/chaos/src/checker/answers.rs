//! What clients were told, against the tables.

use std::collections::{HashMap, HashSet};

use contracts::Reason;
use uuid::Uuid;

use super::{
    Case, Found,
    evidence::{Call, History, Name, Outcome, Verdict},
};
use crate::history::Op;

/// What a client was told about the end of a hold, first of all.
struct End<'a> {
    call: &'a Call,
    at: u64,
}

/// Reads verdicts and all that clients were told about holds: an id that was told as released is no order, one that was
/// told as ordered is, and nobody is told otherwise or holds it again afterwards.
pub(super) fn i5_one_verdict(case: &Case<'_>, found: &mut Found) {
    let mut ids = HashSet::new();
    for verdict in &case.evidence.ledger.verdicts {
        found.expect(ids.insert(verdict.id), || format!("{} has two verdicts", verdict.id));
    }
    let mut ends: HashMap<Uuid, End<'_>> = HashMap::new();
    for call in &case.evidence.history.calls {
        let (Some(id), Some(is_order)) = (call.id, told_end(call)) else { continue };
        found.expect(case.confirmed.contains_key(&id) == is_order, || {
            let (told, verdict) = (word(is_order), word(!is_order));
            format!("line {}: {id} was told as {told}, and is {verdict}", call.line)
        });
        let at = History::ended(call);
        let end = ends.entry(id).or_insert(End { call, at });
        if at < end.at {
            *end = End { call, at };
        }
    }
    for call in &case.evidence.history.calls {
        let Some(end) = call.id.and_then(|id| ends.get(&id)).filter(|end| end.at < call.at) else { continue };
        let held = call.op == Op::Reserve && call.is_ok() && !call.is_short();
        let unknown = call.op == Op::Release && call.reason() == Some(Reason::ReservationNotFound);
        found.expect(!held && !unknown, || {
            format!(
                "line {}: {:?} is answered as if it had not ended, which line {} told",
                call.line, call.id, end.call.line
            )
        });
    }
}

fn word(is_order: bool) -> &'static str {
    if is_order { "an order" } else { "no order" }
}

/// Whether the answer says that the hold which the call names is an order; `None` if it says nothing of its end.
fn told_end(call: &Call) -> Option<bool> {
    match (call.op, call.outcome, call.reason()) {
        (Op::Order, Outcome::Ok, _)
        | (Op::Order | Op::Reserve | Op::Release, Outcome::Refused, Some(Reason::ReservationConfirmed)) => Some(true),
        (Op::Release, Outcome::Ok, _)
        | (Op::Order | Op::Reserve, Outcome::Refused, Some(Reason::ReservationReleased)) => Some(false),
        _ => None,
    }
}

/// Reads the calls under each key and the orders that have it: all 2xx name the one order, 422 is for other content alone,
/// and no key without a hold is refused for what became of one. Without keys no two calls are the same order.
pub(super) fn i6_one_order_for_a_key(case: &Case<'_>, found: &mut Found) {
    let mut keys: HashMap<&str, &Verdict> = HashMap::new();
    for order in case.confirmed.values() {
        if let Some(key) = order.key.as_deref() {
            let other = keys.insert(key, order);
            found.expect(other.is_none(), || format!("{key:?} has orders {} and {:?}", order.id, other.map(|o| o.id)));
        }
    }
    for (key, calls) in &case.by_key {
        let order = case.order_of_key.get(key).copied();
        for call in calls {
            under_key(call, calls, order, found);
        }
    }
    let mut named: HashMap<Uuid, &Call> = HashMap::new();
    for call in case.calls(Op::Order).filter(|call| call.is_ok() && call.key.is_none() && call.id.is_none()) {
        let Some(id) = call.told_id() else { continue };
        let other = named.insert(id, call);
        found.expect(other.is_none(), || {
            format!("lines {} and {:?} are one order, {id}", call.line, other.map(|other| other.line))
        });
    }
}

fn under_key(call: &Call, calls: &[&Call], order: Option<&Verdict>, found: &mut Found) {
    if call.is_ok() {
        found.expect(call.told_id() == order.map(|order| order.id), || {
            format!(
                "line {}: {:?} is answered for key {:?}, whose order is {:?}",
                call.line,
                call.told_id(),
                call.key,
                order
            )
        });
    }
    if call.reason() == Some(Reason::IdempotencyKeyReused) {
        let other = |other: &&&Call| {
            other.at < History::ended(call)
                && (&other.item, other.quantity, other.id) != (&call.item, call.quantity, call.id)
        };
        let sent = calls.iter().find(other);
        found.expect(sent.is_some() && order.is_some_and(|order| !call.orders(order) || call.id.is_some()), || {
            format!(
                "line {}: key {:?} is refused as reused, sent otherwise by {sent:?}, by {order:?}",
                call.line, call.key
            )
        });
    }
    let dead = [Reason::ReservationReleased, Reason::ReservationConfirmed, Reason::ReservationMismatch];
    found.expect(call.id.is_some() || call.reason().is_none_or(|reason| !dead.contains(&reason)), || {
        format!("line {}: key {:?} is dead: {:?}", call.line, call.key, call.reason())
    });
}

/// Reads the orders that clients were told: each is in the ledger as it was told, and readable from then on.
pub(super) fn i9_answers_stand(case: &Case<'_>, found: &mut Found) {
    let mut told_at: HashMap<Uuid, u64> = HashMap::new();
    for call in case.evidence.history.calls.iter().filter(|call| call.is_ok()) {
        let (Some(told), Op::Order | Op::Read) = (&call.told, call.op) else { continue };
        let order = told.id.and_then(|id| case.confirmed.get(&id));
        let stands = order.is_some_and(|order| {
            told.item.as_ref().is_none_or(|item| *item == order.item)
                && told.quantity.is_none_or(|quantity| quantity == order.quantity)
                && call.id.is_none_or(|id| id == order.id)
                && (call.op == Op::Read || call.orders(order))
        });
        found.expect(stands, || {
            let (line, id, quantity, item) = (told.line, told.id, call.quantity, &call.item);
            format!("line {line}: order {id:?} was answered for {quantity} of {item:?}, and stored is {order:?}")
        });
        if let Some(id) = told.id {
            let at = told_at.entry(id).or_insert(told.at);
            *at = told.at.min(*at);
        }
    }
    for call in case.calls(Op::Read).filter(|call| call.reason() == Some(Reason::OrderNotFound)) {
        let known = call.id.and_then(|id| told_at.get(&id)).is_some_and(|at| *at < call.at);
        found.expect(!known, || format!("line {}: order {:?} was answered, and is not found", call.line, call.id));
    }
}

/// Reads leases, restocks, orders, events and keys of items of which clients only read, or which they were refused for
/// want of units: there are none.
pub(super) fn i12_refusals_create_nothing(case: &Case<'_>, found: &mut Found) {
    let idle = |call: &&Call| matches!(call.op, Op::Stock | Op::Read) || call.is_short();
    let (only_idle, busy): (Vec<&Call>, Vec<&Call>) = case.evidence.history.calls.iter().partition(idle);
    let busy: HashSet<&Name> = busy.into_iter().filter_map(|call| call.item.as_ref()).collect();
    let untouched: HashSet<&Name> =
        only_idle.into_iter().filter_map(|call| call.item.as_ref()).filter(|item| !busy.contains(item)).collect();
    let (ledger, stock) = (&case.evidence.ledger, &case.evidence.stock);
    for item in untouched {
        let mut traces = Vec::new();
        traces.extend(ledger.leases.get(item).map(|row| format!("{row:?}")));
        traces.extend(ledger.verdicts.iter().find(|row| row.item == *item).map(|row| format!("{row:?}")));
        traces.extend(ledger.outbox.iter().find(|row| row.item == *item).map(|row| format!("{row:?}")));
        traces.extend(stock.items.get(item).map(|keys| format!("{keys:?}")));
        found.expect(traces.is_empty(), || format!("{item} was only read or refused, and left {traces:?}"));
    }
    for key in &stock.stray {
        found.add(|| format!("key {key:?} is nobody's"));
    }
}

/// Reads every row that a client can have made, and the calls: it has one that was not refused, with its content. An order
/// without key and hold has no name in common with its call; so there are no more of one content than calls without an
/// answer.
pub(super) fn every_row_has_its_call(case: &Case<'_>, found: &mut Found) {
    let of_hold = ids(case.calls(Op::Order), |call| call.id);
    let answered = ids(case.calls(Op::Order).filter(|call| call.is_ok()), Call::told_id);
    let mut doubtful: HashMap<(&Name, i64), i64> = HashMap::new();
    for call in case.calls(Op::Order) {
        if let (None, None, Some(item), Outcome::Unknown) = (&call.key, call.id, &call.item, call.outcome) {
            *doubtful.entry((item, call.quantity)).or_insert(0) += 1;
        }
    }
    for order in case.confirmed.values() {
        let keyed = order.key.as_deref().and_then(|key| key.strip_prefix("key:"));
        let calls = match keyed {
            Some(key) => case.by_key.get(key),
            None => of_hold.get(&order.id).or_else(|| answered.get(&order.id)),
        };
        if let Some(calls) = calls {
            let has_content = |call: &&&Call| call.orders(order) && call.id.is_none_or(|id| id == order.id);
            let mut fitting = calls.iter().filter(has_content).peekable();
            found.expect(fitting.peek().is_some(), || format!("{order:?} has no call of its content"));
            let lines: Vec<usize> = fitting.clone().map(|call| call.line).collect();
            found.expect(lines.is_empty() || fitting.any(|call| call.may_have_acted()), || {
                format!("{order:?} was refused at lines {lines:?}")
            });
        } else {
            let left = doubtful.get_mut(&(&order.item, order.quantity)).filter(|left| **left > 0 && keyed.is_none());
            found.expect(left.is_some(), || format!("{order:?} comes from no call"));
            if let Some(left) = left {
                *left -= 1;
            }
        }
    }
    let restocked = ids(case.calls(Op::Restock), |call| call.id);
    for row in &case.evidence.ledger.restocks {
        let made = |call: &&Call| {
            call.item.as_ref() == Some(&row.item) && call.quantity == row.quantity && call.may_have_acted()
        };
        found.expect(restocked.get(&row.id).is_some_and(|calls| calls.iter().any(made)), || {
            format!("{row:?} comes from no call")
        });
    }
}

fn ids<'a>(calls: impl Iterator<Item = &'a Call>, id: impl Fn(&Call) -> Option<Uuid>) -> HashMap<Uuid, Vec<&'a Call>> {
    let mut by_id: HashMap<Uuid, Vec<&Call>> = HashMap::new();
    for call in calls {
        if let Some(id) = id(call) {
            by_id.entry(id).or_default().push(call);
        }
    }
    by_id
}
