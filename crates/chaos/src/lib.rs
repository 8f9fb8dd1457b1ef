//! The real system, broken in every way, and a judge of what its clients were told.
//!
//! - [`history`]: what clients did and were told, and which faults there were, line by line
//! - [`checker`]: judges a run

pub mod checker;
pub mod history;
