//! What a campaign does with many seeds, whatever they do: how many are run twice, and what its exit codes tell.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use simulation::{
    campaign::{self, DIFFERED, Found, LATE, TWICE_MAX, UNSAFE},
    invariants::Violation,
    run::{Failed, Outcome, Promise},
};

fn outcome(seed: u64, hash: u128, promise: Option<Promise>) -> Outcome {
    let violation = Violation { invariant: "I0", seen: "a test".into() };
    Outcome {
        seed,
        hash,
        steps: 1,
        lasted: Duration::ZERO,
        faults: BTreeMap::new(),
        crashed: BTreeMap::new(),
        orders: BTreeMap::new(),
        failed: promise.map(|promise| Failed { promise, violation }),
        lines: Vec::new(),
    }
}

fn campaign(seeds: u64, run: impl Fn(u64) -> Outcome + Sync) -> Found {
    campaign::run(7, seeds, run, |_| {})
}

#[test]
fn one_hundred_of_two_thousand_seeds_are_run_twice_and_a_thousand_of_a_million() {
    let found = campaign(2_000, |seed| outcome(seed, 1, None));
    assert_eq!((found.report.seeds, found.report.twice, found.code()), (2_000, 100, 0));
    let found = campaign(25_000, |seed| outcome(seed, 1, None));
    assert_eq!((found.report.twice, found.code()), (TWICE_MAX, 0));
}

#[test]
fn a_seed_that_does_something_else_the_second_time_is_told() {
    let runs = AtomicU64::new(0);
    let found = campaign(100, |seed| {
        let second = seed == 47 && runs.fetch_add(1, Ordering::Relaxed) == 1;
        outcome(seed, u128::from(second), None)
    });
    assert_eq!((found.differed, found.code()), (Some(47), DIFFERED));
}

#[test]
fn the_exit_code_tells_what_kind_of_promise_the_lowest_failed_seed_broke() {
    for (promise, code) in [(Promise::Safety, UNSAFE), (Promise::Liveness, LATE)] {
        let found = campaign(100, |seed| {
            let other = if promise == Promise::Safety { Promise::Liveness } else { Promise::Safety };
            let broken = (seed > 30).then_some(if seed == 31 { promise } else { other });
            outcome(seed, 1, broken)
        });
        assert_eq!((found.failed.as_ref().map(|failed| failed.seed), found.code()), (Some(31), code));
    }
}
