//! Many seeds on all cores, each in one thread.

use std::{
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    report::Report,
    run::{Outcome, Promise},
};

/// One seed in so many is run twice, to see that it does the same again.
pub const TWICE_ONE_IN: u64 = 20;
/// Most that are.
pub const TWICE_MAX: u64 = 1_000;

/// What a campaign found.
pub struct Found {
    /// The sum of all.
    pub report: Report,
    /// The lowest seed that failed.
    pub failed: Option<Outcome>,
    /// The lowest seed that did something else the second time.
    pub differed: Option<u64>,
}

impl Found {
    /// The exit code that tells what went wrong; 0 if nothing did.
    pub fn code(&self) -> u8 {
        match (&self.failed, self.differed) {
            (Some(outcome), _) => outcome.code(),
            (None, Some(_)) => DIFFERED,
            (None, None) => 0,
        }
    }
}

/// Exit code: what must never happen has happened.
pub const UNSAFE: u8 = 1;
/// Exit code: what must happen has not.
pub const LATE: u8 = 2;
/// Exit code: a seed did something else the second time.
pub const DIFFERED: u8 = 3;

impl Outcome {
    /// The exit code that tells what went wrong; 0 if nothing did.
    pub fn code(&self) -> u8 {
        self.failed.as_ref().map_or(0, |failed| match failed.promise {
            Promise::Safety => UNSAFE,
            Promise::Liveness => LATE,
        })
    }
}

/// Has the seeds from `first` on run by `run`, so many. Ends early when one fails; those below it are run all the same.
pub fn run(first: u64, seeds: u64, run: impl Fn(u64) -> Outcome + Sync, progress: impl Fn(u64) + Sync) -> Found {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let found = Mutex::new(Found { report: Report::default(), failed: None, differed: None });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= seeds {
                        break;
                    }
                    let outcome = run(seed);
                    let index = seed - first;
                    let twice = index.is_multiple_of(TWICE_ONE_IN) && index / TWICE_ONE_IN < TWICE_MAX;
                    let differs = twice && run(seed).hash != outcome.hash;
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.report.add(&outcome, twice);
                    if differs && found.differed.is_none_or(|other| seed < other) {
                        found.differed = Some(seed);
                    }
                    let lowest = found.failed.as_ref().is_none_or(|other| seed < other.seed);
                    if outcome.failed.is_some() && lowest {
                        found.failed = Some(outcome);
                    }
                    if found.failed.is_some() || found.differed.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let done = found.report.seeds;
                    drop(found);
                    progress(done);
                }
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.report.computed += computed();
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What this thread has had of a core: the machine may have other things to do as well.
fn computed() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
