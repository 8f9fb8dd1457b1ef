//! What a run has to say at its end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use crate::campaign::Outcome;
use crate::faults::KINDS;
use crate::figures::Figure;
use crate::history::Op;
use crate::tally::{statuses, within};

/// A line for whoever runs it. Nobody reading is no failure.
pub fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// Faults by kind, with the longest and the median unavailability; of two at once only the count.
pub fn faults(outcome: &Outcome) {
    say(&format!("{:<30}{:>6}{:>16}{:>16}{:>16}", "fault", "count", "longest gap", "median gap", "longest return"));
    for kind in KINDS {
        let all = outcome.steps.iter().filter(|step| step.kinds.contains(&kind));
        let alone: Vec<_> = all.clone().filter(|step| step.kinds.len() == 1).collect();
        let mut gaps: Vec<Duration> = alone.iter().map(|step| step.gap).collect();
        gaps.sort();
        let time = |time: Option<Duration>| {
            time.map_or_else(String::new, |time| format!("{:.0} ms", 1e3 * time.as_secs_f64()))
        };
        let (longest, median) = (time(gaps.last().copied()), time(gaps.get(gaps.len() / 2).copied()));
        let back = time(alone.iter().filter_map(|step| step.recovery).max());
        say(&format!("{:<30}{:>6}{longest:>16}{median:>16}{back:>16}", kind.name, all.count()));
    }
    let pairs = outcome.steps.iter().filter(|step| step.kinds.len() > 1).count();
    say(&format!(
        "{} faults, in {pairs} cases two at once, in {:.0?}",
        count(outcome).values().sum::<usize>(),
        outcome.took
    ));
}

/// What was promised, and what was measured.
pub fn figures(figures: &[Figure]) {
    for Figure { what, goal, measured, is_met } in figures {
        let verdict = if *is_met { "met" } else { "MISSED" };
        say(&format!("{what}\n  goal      {goal}: {verdict}\n  measured  {measured}"));
    }
}

/// How often each kind came.
pub fn count(outcome: &Outcome) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<_, _> = KINDS.iter().map(|kind| (kind.name, 0)).collect();
    for kind in outcome.steps.iter().flat_map(|step| &step.kinds) {
        *counts.entry(kind.name).or_default() += 1;
    }
    counts
}

/// Orders that were placed.
pub fn orders(outcome: &Outcome) -> usize {
    outcome.asked.iter().filter(|asked| asked.is_placed).count()
}

/// What the clients were told.
pub fn answers(outcome: &Outcome) {
    for (name, op) in [
        ("orders", Op::Order),
        ("reserves", Op::Reserve),
        ("releases", Op::Release),
        ("restocks", Op::Restock),
        ("reads of stock", Op::Stock),
        ("reads of orders", Op::Read),
    ] {
        let statuses = statuses(&outcome.asked, op);
        let told = |status: &u16| if *status == 0 { "no answer".to_owned() } else { status.to_string() };
        let told: Vec<String> = statuses.iter().map(|(status, count)| format!("{}: {count}", told(status))).collect();
        say(&format!("{name:<16} {}", told.join(", ")));
    }
    let count = |wanted: fn(u16) -> bool| outcome.asked.iter().filter(|one| wanted(one.status.unwrap_or(0))).count();
    let refused = count(|status| matches!(status, 400 | 404 | 409 | 422));
    let unknown = count(|status| !matches!(status, 200..=299 | 400 | 404 | 409 | 422));
    let rate = orders(outcome) / usize::try_from(outcome.took.as_secs().max(1)).expect("no run lasts that long");
    say(&format!(
        "{} calls: {} orders placed ({rate}/s), {refused} refused, {unknown} unknown; half answered within {:.0?}, \
         99 of 100 within {:.0?}, all within {:.1?}",
        outcome.asked.len(),
        orders(outcome),
        within(&outcome.asked, 50),
        within(&outcome.asked, 99),
        within(&outcome.asked, 100)
    ));
}
