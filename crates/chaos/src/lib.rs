//! Breaks the real system in every way it can while clients order, and judges what they were told.
//!
//! - [`proxy`]: a link between two parts, which can be slowed, cut and silenced
//! - [`system`]: all parts, and the links between them
//! - [`load`]: the clients; [`calls`]: one call of theirs; [`tally`]: what they were told so far
//! - [`faults`]: what is done to them; [`schedule`]: what comes next
//! - [`campaign`]: a run of faults under load; [`report`]: what it has to say
//! - [`history`]: what every client asked and was told, line by line; [`record`]: writes it

#![expect(clippy::disallowed_methods, reason = "real processes are broken and waited for on the real clock")]

pub mod calls;
pub mod campaign;
pub mod faults;
pub mod history;
pub mod load;
pub mod proxy;
pub mod record;
pub mod report;
pub mod schedule;
pub mod system;
pub mod tally;
