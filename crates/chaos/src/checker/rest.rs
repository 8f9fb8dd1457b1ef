//! What holds once everything has come to rest, and how soon it was served again.

use super::{
    Case, Found,
    evidence::{Call, History, Outcome, Span},
};
use crate::history::Op;

/// A fault whose kind has this in it destroys events that the broker had confirmed.
const LOSES_EVENTS: &str = "queue";

/// Reads what consumers logged before they acknowledged: every order is in it, and nothing that is no order. After a fault
/// that destroys events this cannot be: then every order is sold all the same, which I7 shows.
pub(super) fn i8_every_event_is_handled(case: &Case<'_>, found: &mut Found) {
    let events = &case.evidence.events;
    let Some(handled) = &events.handled else {
        found.notes.push("no logs of what was handled: implied by I7 and by the empty outbox and queues of I10".into());
        return;
    };
    for id in handled {
        found.expect(case.confirmed.contains_key(id), || format!("an event of {id} was handled, which is no order"));
    }
    let missing = case.confirmed.values().filter(|order| !handled.contains(&order.id));
    if let Some(fault) = case.evidence.history.faults.iter().find(|span| span.fault.contains(LOSES_EVENTS)) {
        let lost = missing.count();
        found.notes.push(format!(
            "{lost} events were not handled, which {} at {} may have destroyed",
            fault.fault, fault.begin
        ));
        return;
    }
    for order in missing {
        found.add(|| format!("the event of {order:?} was not handled"));
    }
    found.looked_at += case.confirmed.len() as u64;
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
/// Judged where the next fault leaves time for it, and somebody was asking.
pub(super) fn i11_success_after_healing(case: &Case<'_>, found: &mut Found) {
    let mut served: Vec<u64> = case.calls(Op::Order).filter(|call| is_served(call)).map(History::ended).collect();
    served.sort_unstable();
    let mut asked: Vec<u64> = case.calls(Op::Order).map(|call| call.at).collect();
    asked.sort_unstable();
    let faults = &case.evidence.history.faults;
    for fault in faults.iter().filter(|fault| fault.end != u64::MAX) {
        let limit = limit(case, fault);
        let end = fault.end.saturating_add(limit);
        // In order of their beginnings; this one overlaps itself.
        let others = faults.partition_point(|other| other.begin <= end);
        if faults[..others].iter().filter(|other| other.end >= fault.end && other.begin <= end).count() > 1 {
            continue;
        }
        if asked.partition_point(|at| *at < end) == asked.partition_point(|at| *at < fault.end) {
            continue;
        }
        let next = served.partition_point(|at| *at < fault.end);
        let after = served.get(next).map(|at| at - fault.end);
        found.expect(after.is_some_and(|after| after <= limit), || {
            format!("line {}: {} ended, and the first answer came after {after:?} µs", fault.line, fault.fault)
        });
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
