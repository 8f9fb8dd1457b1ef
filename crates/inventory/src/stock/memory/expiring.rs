//! What is remembered about an id for a while: bounded, and forgotten a little at every call.

use std::collections::{BTreeSet, HashMap};

use contracts::values::{ReservationId, Timestamp};

/// Most entries that one [`Expiring::put`] forgets because they are over. More than one, so that what is over shrinks
/// while entries come in; a constant, so that no call pays for what thousands left behind.
const EXPIRED_PER_PUT_MAX: usize = 2;

/// Values by id, each until a moment of its own. A clock that jumps changes only when they are forgotten.
#[derive(Debug)]
pub struct Expiring<V> {
    values: HashMap<ReservationId, (Timestamp, V)>,
    /// The same entries by their end.
    ends: BTreeSet<(Timestamp, ReservationId)>,
    entries_max: usize,
}

impl<V> Expiring<V> {
    /// Keeps at most `entries_max`; beyond it those that end first are forgotten.
    pub fn new(entries_max: usize) -> Self {
        Self { values: HashMap::new(), ends: BTreeSet::new(), entries_max }
    }

    /// What is remembered of this id.
    pub fn get(&self, id: ReservationId, now: Timestamp) -> Option<&V> {
        self.values.get(&id).filter(|(end, _)| *end > now).map(|(_, value)| value)
    }

    /// Remembers a value until `end`, in place of an earlier one.
    pub fn put(&mut self, id: ReservationId, value: V, end: Timestamp, now: Timestamp) {
        self.remove(id);
        self.values.insert(id, (end, value));
        self.ends.insert((end, id));
        for _ in 0..EXPIRED_PER_PUT_MAX {
            match self.ends.first() {
                Some((end, id)) if *end <= now || self.ends.len() > self.entries_max => self.remove(*id),
                Some(_) | None => break,
            }
        }
        assert!(self.values.len() == self.ends.len() && self.ends.len() <= self.entries_max, "entries are kept twice");
    }

    /// Forgets this id.
    pub fn remove(&mut self, id: ReservationId) {
        if let Some((end, _)) = self.values.remove(&id) {
            self.ends.remove(&(end, id));
        }
    }

    /// How many are remembered, those that are over but not yet forgotten included.
    pub fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> ReservationId {
        ReservationId(Uuid::from_u128(number))
    }

    #[test]
    fn a_value_is_there_until_its_end() {
        let mut values = Expiring::new(10);
        values.put(id(1), "a", Timestamp(5), Timestamp(0));
        assert_eq!(values.get(id(1), Timestamp(4)), Some(&"a"));
        assert_eq!(values.get(id(1), Timestamp(5)), None);
        values.put(id(1), "b", Timestamp(9), Timestamp(0));
        assert_eq!(values.get(id(1), Timestamp(8)), Some(&"b"), "a later one takes its place");
        assert_eq!(values.len(), 1);
    }

    #[test]
    fn what_is_over_is_forgotten_a_little_at_every_put() {
        let mut values = Expiring::new(1000);
        for number in 0..100 {
            values.put(id(number), (), Timestamp(10), Timestamp(0));
        }
        for number in 100..150 {
            values.put(id(number), (), Timestamp(100), Timestamp(10));
            assert!(values.len() >= 50, "no call does all the work");
        }
        assert_eq!(values.len(), 50, "only what lasts is left");
    }

    #[test]
    fn beyond_the_bound_those_that_end_first_are_forgotten() {
        let mut values = Expiring::new(3);
        for number in 1..=5 {
            values.put(id(number), (), Timestamp(10 + i64::try_from(number).expect("small")), Timestamp(0));
        }
        let left: Vec<_> = (1..=5).filter(|number| values.get(id(*number), Timestamp(0)).is_some()).collect();
        assert_eq!(left, [3, 4, 5]);
    }
}
