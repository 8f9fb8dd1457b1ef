//! Breaks the real system in every way it can while clients order, and judges what they were told.
//!
//! - [`proxy`]: a link between two parts, which can be slowed, cut and silenced
//! - [`system`]: all parts, and the links between them
//! - [`load`]: the clients; [`calls`]: one call of theirs; [`tally`]: what they were told so far
//! - [`faults`]: what is done to the parts; [`schedule`]: what comes next
//! - [`campaign`]: a run of faults under load; [`figures`]: what is promised, measured
//! - [`report`]: what a run has to say
//! - [`history`]: what clients did and were told, and which faults there were, line by line; [`record`]: writes it
//! - [`checker`]: judges a run; [`kept`]: keeps what it judges, beside the history

#![expect(clippy::disallowed_methods, reason = "real processes are broken and waited for on the real clock")]

pub mod calls;
pub mod campaign;
pub mod checker;
pub mod faults;
pub mod figures;
pub mod history;
pub mod kept;
pub mod load;
pub mod proxy;
pub mod record;
pub mod report;
pub mod schedule;
pub mod system;
pub mod tally;

use service::manual::Dice;

/// One of them, as the dice fall.
fn one_of<'a, T>(dice: &mut Dice, all: &'a [T]) -> &'a T {
    &all[usize::try_from(dice.below(all.len() as u64)).expect("it was a length")]
}
