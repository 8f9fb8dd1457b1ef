//! Whether units that clients were told, or refused for, can have been so.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    Case, Found,
    evidence::{Call, History, Outcome, Span},
};
use crate::history::Op;

/// How long after a deadline the reaper may take to give a hold back, in microseconds.
const REAP_MICROS_MAX: u64 = 5_000_000;

/// No client was told of fewer units than none, nor of more than may have come in by then.
pub(super) fn no_more_than_came_in(case: &Case<'_>, found: &mut Found) {
    let mut restocks: HashMap<&str, Weights> = HashMap::new();
    for call in case.calls(Op::Restock).filter(|call| call.outcome != Outcome::Refused) {
        if let Some(item) = &call.item {
            restocks.entry(item).or_default().add(call.at, call.quantity);
        }
    }
    restocks.values_mut().for_each(Weights::sort);
    for call in &case.evidence.history.calls {
        let (Some(item), Some(told)) = (&call.item, &call.told) else { continue };
        let Some(free) = told.free else { continue };
        let most = case.evidence.setup.initial + restocks.get(&**item).map_or(0, |weights| weights.until(told.at));
        found.expect((0..=most).contains(&free), || {
            format!("line {}: {free} units of {item} are free, where at most {most} came in", told.line)
        });
    }
}

/// What may be taken of one item.
#[derive(Default)]
struct Takers {
    begun: Weights,
    ended: Weights,
    /// Came in for certain.
    came_in: Weights,
}

/// No order or reserve was refused for want of units while, for its whole time, more were free than it asked for. Every
/// doubt is the system's: each order takes its units from its call on for ever, each other call as long as its hold may
/// live, and a restock counts from its answer on. A call that was refused so itself has had no hold, unless a fault
/// made it try more than once.
pub(super) fn refused_only_when_short(case: &Case<'_>, found: &mut Found) {
    let rough = Rough::new(&case.evidence.history.faults, case.evidence.setup.hold_micros);
    let (mut items, mut counted): (HashMap<&str, Takers>, HashSet<Uuid>) = Default::default();
    for call in &case.evidence.history.calls {
        let Some(item) = &call.item else { continue };
        let takers = items.entry(item).or_default();
        let taken = match call.op {
            Op::Order | Op::Reserve => taken(case, &rough, &mut counted, call),
            // A repeat counts nothing.
            Op::Restock if call.is_ok() && call.id.is_some_and(|id| counted.insert(id)) => {
                takers.came_in.add(History::ended(call), call.quantity);
                continue;
            }
            Op::Restock | Op::Release | Op::Stock | Op::Read => continue,
        };
        match taken {
            Taken::Never => {}
            Taken::Until(end) => {
                takers.begun.add(call.at, call.quantity);
                takers.ended.add(end, call.quantity);
            }
            Taken::ForEver => takers.begun.add(call.at, call.quantity),
        }
    }
    for takers in items.values_mut() {
        [&mut takers.begun, &mut takers.ended, &mut takers.came_in].into_iter().for_each(Weights::sort);
    }
    for call in case.evidence.history.calls.iter().filter(|call| call.is_short()) {
        let (Some(item), Some(told)) = (&call.item, &call.told) else { continue };
        let Some(takers) = items.get(&**item) else { continue };
        let taken = takers.begun.until(told.at) - takers.ended.until(call.at);
        let free = case.evidence.setup.initial + takers.came_in.until(call.at) - taken;
        found.expect(free < call.quantity, || {
            format!(
                "line {}: {} units of {item} were refused, where {free} or more were free from line {} on",
                told.line, call.quantity, call.line
            )
        });
        found.expect(told.free.is_none_or(|free| free < call.quantity), || {
            format!(
                "line {}: {} units of {item} were refused, and told free are {:?}",
                told.line, call.quantity, told.free
            )
        });
    }
}

/// How long the units of a call may be taken.
enum Taken {
    Never,
    Until(u64),
    ForEver,
}

fn taken(case: &Case<'_>, rough: &Rough, counted: &mut HashSet<Uuid>, call: &Call) -> Taken {
    let ended = History::ended(call);
    if call.is_short() && !rough.is_at(call.at, ended) {
        return Taken::Never;
    }
    let of_key = call.key.as_deref().and_then(|key| case.order_of_key.get(key)).map(|order| order.id);
    let named = call.id.or_else(|| call.told_id()).filter(|id| case.confirmed.contains_key(id));
    match of_key.or(named) {
        Some(order) if counted.insert(order) => Taken::ForEver,
        // The very same hold.
        Some(order) if call.id == Some(order) => Taken::Never,
        // Which order a call without key and answer made, nobody knows.
        None if call.op == Op::Order && call.key.is_none() && call.outcome == Outcome::Unknown => Taken::ForEver,
        Some(_) | None => Taken::Until(rough.given_back(ended)),
    }
}

/// Units at moments, and their sum up to a moment.
#[derive(Default)]
struct Weights {
    /// When, and units until then; once sorted.
    sums: Vec<(u64, i64)>,
}

impl Weights {
    fn add(&mut self, at: u64, units: i64) {
        self.sums.push((at, units));
    }

    fn sort(&mut self) {
        self.sums.sort_unstable();
        let mut sum = 0;
        for (_, units) in &mut self.sums {
            sum += *units;
            *units = sum;
        }
    }

    /// Units of all moments up to this one, itself too.
    fn until(&self, at: u64) -> i64 {
        let count = self.sums.partition_point(|(moment, _)| *moment <= at);
        count.checked_sub(1).map_or(0, |last| self.sums[last].1)
    }
}

/// Times in which holds may be left lying: faults, and as long after them as a hold lives and the reaper takes.
struct Rough {
    grace: u64,
    /// Without overlaps, in order.
    spans: Vec<(u64, u64)>,
}

impl Rough {
    fn new(faults: &[Span], hold_micros: u64) -> Self {
        let grace = hold_micros.saturating_add(REAP_MICROS_MAX);
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for fault in faults {
            let end = fault.end.saturating_add(grace);
            match spans.last_mut().filter(|last| last.1 >= fault.begin) {
                Some(last) => last.1 = last.1.max(end),
                None => spans.push((fault.begin, end)),
            }
        }
        Self { grace, spans }
    }

    /// Whether any of them touches this time.
    fn is_at(&self, from: u64, to: u64) -> bool {
        let first = self.spans.partition_point(|(_, end)| *end < from);
        self.spans.get(first).is_some_and(|(begin, _)| *begin <= to)
    }

    /// When the hold of a call that was over then is given back at last.
    fn given_back(&self, ended: u64) -> u64 {
        let mut back = ended.saturating_add(self.grace);
        let first = self.spans.partition_point(|(_, end)| *end < ended);
        for (begin, end) in &self.spans[first..] {
            if *begin > back {
                break;
            }
            back = back.max(*end);
        }
        back
    }
}
