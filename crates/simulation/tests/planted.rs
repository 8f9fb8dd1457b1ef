//! Each planted bug is found by its kept seed, and the same seed is well without it.

use service::planted::Bug;
use simulation::{
    planted::{CAUGHT, Caught, all},
    run::run,
};

fn check(part: usize, parts: usize) {
    let mut wrong = Vec::new();
    for (index, Caught { bug, seed, invariant }) in CAUGHT.into_iter().enumerate() {
        if index % parts != part {
            continue;
        }
        let seen = simulation::planted::run(Some(bug), seed, false).failed.map(|failed| failed.violation);
        if seen.as_ref().is_none_or(|violation| violation.invariant != invariant) {
            wrong.push(format!("{bug:?}: seed {seed} should violate {invariant}, and {seen:?}"));
        }
        if let Some(failed) = run(seed, false).failed {
            wrong.push(format!("{bug:?}: seed {seed} violates {} without it", failed.violation));
        }
    }
    assert!(wrong.is_empty(), "`just planted` finds other seeds:\n{}", wrong.join("\n"));
}

#[test]
fn each_planted_bug_is_found_by_its_seed_1() {
    check(0, 2);
}

#[test]
fn each_planted_bug_is_found_by_its_seed_2() {
    check(1, 2);
}

#[test]
fn no_planted_bug_is_forgotten() {
    let mut bugs = all();
    bugs.sort();
    bugs.dedup();
    assert_eq!((bugs.len(), bugs.last().copied()), (28, Some(Bug::HoldsUncounted)));
}
