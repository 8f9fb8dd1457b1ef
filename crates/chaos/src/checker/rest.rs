//! What holds once everything has come to rest, and how soon it was served again.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    Case, Found,
    evidence::{Call, History, Outcome, Span},
};
use crate::history::Op;

/// Faults whose kinds have one of these in them destroy events that the broker had confirmed.
const LOSES_EVENTS: [&str; 2] = ["queue", "topology"];
/// How long an event may have waited in the queue when it was destroyed, in microseconds.
const EVENT_WAIT_MICROS_MAX: u64 = 120_000_000;

/// Reads what consumers logged before they acknowledged: every order is in it, and nothing that is no order. The event
/// of an order that was asked for shortly before a fault that destroys events may be missing, or of one of which nobody
/// knows when it was asked for: it is sold all the same, which I7 shows.
pub(super) fn i8_every_event_is_handled(case: &Case<'_>, found: &mut Found) {
    let Some(handled) = &case.evidence.events.handled else {
        found.notes.push("no logs of what was handled: implied by I7 and by the empty outbox and queues of I10".into());
        return;
    };
    for id in handled {
        found.expect(case.confirmed.contains_key(id), || format!("an event of {id} was handled, which is no order"));
    }
    let faults = &case.evidence.history.faults;
    let destroying: Vec<&Span> =
        faults.iter().filter(|fault| LOSES_EVENTS.iter().any(|kind| fault.fault.contains(kind))).collect();
    let asked_at = asked_at(case);
    let mut destroyed = 0;
    for order in case.confirmed.values() {
        let may_be_destroyed = |fault: &&Span| {
            let from = fault.begin.saturating_sub(EVENT_WAIT_MICROS_MAX);
            asked_at.get(&order.id).is_none_or(|at| (from..=fault.end).contains(at))
        };
        let is_handled = handled.contains(&order.id);
        if !is_handled && destroying.iter().any(may_be_destroyed) {
            destroyed += 1;
        } else {
            found.expect(is_handled, || format!("the event of {order:?} was not handled"));
        }
    }
    if destroyed > 0 {
        found.notes.push(format!("{destroyed} events were not handled, which a fault may have destroyed"));
    }
}

/// When orders were asked for the first time, as far as an answer or a name tells which call was for which.
fn asked_at(case: &Case<'_>) -> HashMap<Uuid, u64> {
    let mut asked_at = HashMap::new();
    for call in case.calls(Op::Order) {
        let of_key = call.key.as_deref().and_then(|key| case.order_of_key.get(key)).map(|order| order.id);
        if let Some(id) = of_key.or(call.id).or_else(|| call.told_id()) {
            asked_at.entry(id).or_insert(call.at);
        }
    }
    asked_at
}

/// Reads the history's last word, outbox, queues, leases and keys.
pub(super) fn i10_nothing_is_left_over(case: &Case<'_>, found: &mut Found) {
    let evidence = case.evidence;
    found.expect(evidence.history.rest.is_some(), || "the system did not come to rest".to_owned());
    for event in &evidence.ledger.outbox {
        found.add(|| format!("{event:?} is in the outbox"));
    }
    let events = &evidence.events;
    found.expect(events.waiting == 0, || format!("{} events wait in the queue", events.waiting));
    found.expect(events.dead_letters == 0, || format!("{} dead letters", events.dead_letters));
    for (item, keys) in evidence.stock.items.iter().filter(|(_, keys)| keys.open) {
        let left = (keys.held, keys.holds, keys.entries, keys.deadlines);
        found.expect(left == (0, 0, 0, 0), || format!("{item}: units are held: {keys:?}"));
        let newest = evidence.ledger.leases.get(item).map_or(0, |lease| lease.epoch);
        found.expect(keys.epoch == newest, || {
            format!("{item}: epoch {} in the stock store, {newest} in the ledger", keys.epoch)
        });
        found.expect(keys.available == case.received(item) - case.sold(item), || {
            format!("{item}: {keys:?}, where {} came in and {} are in orders", case.received(item), case.sold(item))
        });
    }
}

/// Reads the ends of faults and the answers after them: within the limit an order service has decided something again.
/// One that has not is excused by another fault in that time, and where nobody was asking.
pub(super) fn i11_success_after_healing(case: &Case<'_>, found: &mut Found) {
    let mut served: Vec<u64> = case.calls(Op::Order).filter(|call| is_served(call)).map(History::ended).collect();
    served.sort_unstable();
    let mut asked: Vec<u64> = case.calls(Op::Order).map(|call| call.at).collect();
    asked.sort_unstable();
    let faults = &case.evidence.history.faults;
    for fault in faults.iter().filter(|fault| fault.end != u64::MAX) {
        let limit = limit(case, fault);
        let end = fault.end.saturating_add(limit);
        let after = served.get(served.partition_point(|at| *at < fault.end)).map(|at| at - fault.end);
        let is_soon = after.is_some_and(|after| after <= limit);
        // Both are in the order of time; this fault is one of those that overlap it.
        let others = &faults[..faults.partition_point(|other| other.begin <= end)];
        let is_disturbed = others.iter().filter(|other| other.end >= fault.end).count() > 1;
        let is_asked = asked.partition_point(|at| *at < end) > asked.partition_point(|at| *at < fault.end);
        if is_soon || is_asked && !is_disturbed {
            found.expect(is_soon, || {
                format!("line {}: {} ended, and the first answer came after {after:?} µs", fault.line, fault.fault)
            });
        }
    }
}

fn is_served(call: &Call) -> bool {
    match call.outcome {
        Outcome::Ok => true,
        Outcome::Refused => call.is_short(),
        Outcome::Unknown => false,
    }
}

fn limit(case: &Case<'_>, fault: &Span) -> u64 {
    let setup = &case.evidence.setup;
    let own = setup.heal_micros_of.iter().find(|(kind, _)| fault.fault.starts_with(kind.as_str()));
    own.map_or(setup.heal_micros, |(_, limit)| *limit)
}

/// Reads the history as it is: every answer has its call, time goes forward, and every status is of its kind. An
/// answer that was cut off may have begun with any.
pub(super) fn the_history_is_whole(case: &Case<'_>, found: &mut Found) {
    for flaw in &case.evidence.history.flaws {
        found.add(|| flaw.clone());
    }
    for call in &case.evidence.history.calls {
        let Some(told) = &call.told else { continue };
        let fits = match call.outcome {
            Outcome::Ok => (200..300).contains(&told.status),
            Outcome::Refused => [400, 404, 409, 422].contains(&told.status) && told.reason.is_some(),
            Outcome::Unknown => true,
        };
        found.expect(fits, || format!("line {}: {:?} with status {}", told.line, call.outcome, told.status));
    }
}
