//! Which seed finds which planted bug, and by what: the proof that the simulation would find it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use service::planted::Bug;

use crate::{
    invariants::Violation,
    run::{self, Outcome},
};

/// Within so many seeds each bug is found.
pub const SEEDS_MAX: u64 = 1_000;

/// A bug, and a seed that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// The bug.
    pub bug: Bug,
    /// The seed. Without the bug it is well.
    pub seed: u64,
    /// What is violated.
    pub invariant: &'static str,
}

const fn caught(bug: Bug, seed: u64, invariant: &'static str) -> Caught {
    Caught { bug, seed, invariant }
}

/// All of them. A change of the workload or of the faults changes what a seed means: `just planted` finds others.
pub const CAUGHT: [Caught; 28] = [
    caught(Bug::NoFence, 2, "I4"),
    caught(Bug::NoTombstone, 0, "I5"),
    caught(Bug::NoDedupe, 2, "I7"),
    caught(Bug::HoldsExpire, 1, "I5"),
    caught(Bug::FreshIdOnRetry, 0, "I6"),
    caught(Bug::ReleaseOnDoubt, 475, "I5"),
    caught(Bug::IncarnationCached, 270, "I4"),
    caught(Bug::IncarnationIsRunId, 29, "I4"),
    caught(Bug::LeaseSentTwice, 8, "I7"),
    caught(Bug::LeaseSummedFirst, 46, "I7"),
    caught(Bug::EpochNotAboveStore, 31, "I11"),
    caught(Bug::FencedBeforeExisting, 26, "I6"),
    caught(Bug::VerdictWithoutStamp, 1, "I7"),
    caught(Bug::OutboxDeletedFirst, 0, "I8"),
    caught(Bug::ReturnsIgnored, 8, "I8"),
    caught(Bug::OutboxPagedById, 1, "I8"),
    caught(Bug::KeyCheckedThenInserted, 1, "I6"),
    caught(Bug::FingerprintIgnored, 1, "I6"),
    caught(Bug::TombstoneAfterRelease, 0, "I5"),
    caught(Bug::TombstonesByAge, 202, "I5"),
    caught(Bug::ReleaseWithoutVerdict, 0, "I5"),
    caught(Bug::CancelledWithCaller, 0, "ends"),
    caught(Bug::AcknowledgedOnError, 0, "I8"),
    caught(Bug::RejectLoop, 39, "I8"),
    caught(Bug::NegativeQuantity, 0, "I12"),
    caught(Bug::RestockAtAnyEpoch, 0, "I2"),
    caught(Bug::IdWithoutContent, 1, "errors"),
    caught(Bug::HoldsUncounted, 182, "I7"),
];

/// The bugs.
pub fn all() -> Vec<Bug> {
    CAUGHT.iter().map(|caught| caught.bug).collect()
}

/// The bug of that name.
pub fn named(name: &str) -> Option<Bug> {
    all().into_iter().find(|bug| format!("{bug:?}") == name)
}

/// Runs a seed, with the bug if one is named. A release build has none.
pub fn run(bug: Option<Bug>, seed: u64, record: bool) -> Outcome {
    #[cfg(debug_assertions)]
    let outcome = service::planted::with(bug, || run::run(seed, record));
    #[cfg(not(debug_assertions))]
    let outcome = {
        let _ = bug;
        run::run(seed, record)
    };
    outcome
}

/// The lowest of so many seeds that finds the bug, and what it sees.
pub fn search(bug: Bug, seeds: u64) -> Option<(u64, Violation)> {
    let next = AtomicU64::new(0);
    let found: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || lock().as_ref().is_some_and(|(lower, _)| *lower < seed) {
                        return;
                    }
                    if let Some(failed) = run(Some(bug), seed, false).failed {
                        let mut found = lock();
                        if found.as_ref().is_none_or(|(other, _)| seed < *other) {
                            *found = Some((seed, failed.violation));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
