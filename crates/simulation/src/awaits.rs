//! Which awaits of the product a crash has hit. Every await that waits ends in a call of a port, a sleep or a queue.

use crate::executor::{Kind, Waits};

/// A sleep.
pub const SLEEP: &str = "sleep";
/// An item that another task opens.
pub const FLIGHT: &str = "flight";
/// A queue, or an answer from one.
pub const QUEUE: &str = "queue";

/// Sleeps that are no time-outs are shorter, in microseconds: back-offs and intervals.
const PAUSE_MICROS_MAX: u64 = 1_000_000;

/// What a task waits in. A time-out beside a port's call is none of it.
pub fn waits(waits: &Waits) -> Vec<&'static str> {
    if !waits.leaves.is_empty() {
        return waits.leaves.clone();
    }
    match waits.sleeps.iter().map(|(_, micros)| *micros).min() {
        Some(..=PAUSE_MICROS_MAX) => vec![SLEEP],
        Some(_) => vec![FLIGHT],
        None => vec![QUEUE],
    }
}

/// What is to be crashed: a task of this kind, waiting there.
pub const PLACES: [(Kind, &str); 1] = [(Kind::Committer, QUEUE)];
