//! Which fault comes next: a seed decides, and every kind comes round before one comes again.

use service::manual::Dice;

use crate::faults::{KINDS, Kind};

/// Of so many steps about one is two faults at once.
const PAIR_IN: u64 = 6;

/// The faults to come.
#[derive(Debug)]
pub struct Schedule {
    dice: Dice,
    round: Vec<Kind>,
}

impl Schedule {
    /// The same seed gives the same faults in the same order.
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), round: Vec::new() }
    }

    /// One fault, or two that hit different parts at once.
    pub fn step(&mut self) -> Vec<Kind> {
        let first = self.draw();
        let mut step = vec![first];
        if first.may_overlap() && self.dice.below(PAIR_IN) == 0 {
            let meets = |other: &Kind| other.may_overlap() && other.part != first.part;
            if let Some(place) = self.round.iter().rposition(meets) {
                step.push(self.round.remove(place));
            }
        }
        step
    }

    fn draw(&mut self) -> Kind {
        if self.round.is_empty() {
            self.round = KINDS.to_vec();
            for last in (1..self.round.len()).rev() {
                let other = self.dice.below(last as u64 + 1);
                self.round.swap(last, usize::try_from(other).expect("small"));
            }
        }
        self.round.pop().expect("it was filled")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_kind_comes_round_and_two_at_once_hit_different_parts() {
        let mut schedule = Schedule::new(7);
        let (mut counts, mut pairs, mut steps) = (BTreeMap::new(), 0, 0);
        while counts.values().sum::<usize>() < 10 * KINDS.len() {
            let step = schedule.step();
            steps += 1;
            for kind in &step {
                *counts.entry(kind.name).or_default() += 1;
            }
            if let [one, other] = step[..] {
                pairs += 1;
                assert!(one.part != other.part && one.may_overlap() && other.may_overlap(), "{one:?} {other:?}");
            }
        }
        assert_eq!(counts.len(), KINDS.len());
        assert!(counts.values().all(|count| (10..=11).contains(count)), "{counts:?}");
        assert!(pairs * 10 > steps && pairs * 4 < steps, "{pairs} of {steps}");
    }

    #[test]
    fn a_seed_repeats_its_faults_and_another_one_has_others() {
        let names = |seed| {
            let mut schedule = Schedule::new(seed);
            (0..50).flat_map(|_| schedule.step()).map(|kind| kind.name).collect::<Vec<_>>()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
        assert_eq!(KINDS.iter().map(|kind| kind.name).collect::<BTreeSet<_>>().len(), KINDS.len());
    }
}
