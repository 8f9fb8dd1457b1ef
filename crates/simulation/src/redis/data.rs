//! What a simulated server stores, and how it was a few operations ago.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Operations that a server's data can be rolled back by, at most.
pub const HISTORY_OPERATIONS_MAX: usize = 256;

/// Keys and values. Shared, so that an entry is cheap to keep as it was.
pub type Bytes = Arc<[u8]>;

/// The value of a key, by its type.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "Redis' own names")]
pub enum Data {
    String(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    Set(BTreeSet<Bytes>),
    SortedSet(SortedSet),
    List(Vec<Bytes>),
}

impl Data {
    /// Redis keeps no empty collections.
    fn is_empty(&self) -> bool {
        match self {
            Self::String(_) => false,
            Self::Hash(fields) => fields.is_empty(),
            Self::Set(members) => members.is_empty(),
            Self::SortedSet(members) => members.0.is_empty(),
            Self::List(values) => values.is_empty(),
        }
    }
}

/// Members in order of their scores, then of their bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SortedSet(Vec<(f64, Bytes)>);

impl SortedSet {
    /// In order.
    pub fn members(&self) -> &[(f64, Bytes)] {
        &self.0
    }

    /// A member's score.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.place(member).map(|index| self.0[index].0)
    }

    /// Whether it is new.
    pub fn insert(&mut self, score: f64, member: &[u8]) -> bool {
        let old = self.place(member).map(|index| self.0.remove(index));
        let index = self.0.partition_point(|(other, name)| (*other, &**name) < (score, member));
        let new = old.is_none();
        self.0.insert(index, (score, old.map_or_else(|| member.into(), |(_, name)| name)));
        new
    }

    /// Whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.place(member).map(|index| self.0.remove(index)).is_some()
    }

    fn place(&self, member: &[u8]) -> Option<usize> {
        self.0.iter().position(|(_, name)| **name == *member)
    }
}

/// A key's value and end.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The value.
    pub data: Data,
    /// It is there up to and including this millisecond since 1970; without, for ever.
    pub until_ms: Option<i64>,
}

/// What an operation replaced, in its order.
type Replaced = Vec<(Bytes, Option<Arc<Entry>>)>;

/// All keys of a server. Entries that are over count as gone; that they are still stored is not to be seen.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    entries: BTreeMap<Bytes, Arc<Entry>>,
    history: VecDeque<Replaced>,
    operation: Replaced,
}

impl Keys {
    /// A key's entry, if there is one at this time.
    pub fn get(&self, key: &[u8], now_ms: i64) -> Option<&Entry> {
        self.entries.get(key).map(|entry| &**entry).filter(|entry| entry.until_ms.is_none_or(|until| now_ms <= until))
    }

    /// All that are there at this time, in order.
    pub fn all(&self, now_ms: i64) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.entries.keys().filter_map(move |key| Some((key, self.get(key, now_ms)?)))
    }

    /// Changes an entry, or a new one with this data. A collection that `change` leaves empty is no key any more.
    pub fn change<T>(
        &mut self,
        key: &[u8],
        now_ms: i64,
        empty: impl FnOnce() -> Data,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> T {
        if self.get(key, now_ms).is_none() {
            self.put(key, Some(Entry { data: empty(), until_ms: None }));
        } else {
            self.remember(key);
        }
        let entry = Arc::make_mut(self.entries.get_mut(key).expect("it was just looked at"));
        let result = change(entry);
        if entry.data.is_empty() {
            self.entries.remove(key);
        }
        result
    }

    /// Replaces an entry, or deletes it.
    pub fn put(&mut self, key: &[u8], entry: Option<Entry>) {
        let name = self.remember(key);
        match entry {
            Some(entry) => self.entries.insert(name, Arc::new(entry)),
            None => self.entries.remove(key),
        };
    }

    /// Deletes everything.
    pub fn clear(&mut self) {
        let all = std::mem::take(&mut self.entries);
        self.operation.extend(all.into_iter().map(|(key, entry)| (key, Some(entry))));
    }

    /// Keeps how a key was before the operation under way.
    fn remember(&mut self, key: &[u8]) -> Bytes {
        if let Some((name, _)) = self.operation.iter().find(|(name, _)| **name == *key) {
            return Arc::clone(name);
        }
        let before = self.entries.get_key_value(key);
        let name = before.map_or_else(|| key.into(), |(name, _)| Arc::clone(name));
        self.operation.push((Arc::clone(&name), before.map(|(_, entry)| Arc::clone(entry))));
        name
    }

    /// What was changed since the last end is one operation: it is rolled back whole. Says whether anything was.
    pub fn end_operation(&mut self) -> bool {
        if self.operation.is_empty() {
            return false;
        }
        if self.history.len() == HISTORY_OPERATIONS_MAX {
            self.history.pop_front();
        }
        self.history.push_back(std::mem::take(&mut self.operation));
        true
    }

    /// Makes it what it was so many operations ago, as far as that is known.
    pub fn roll_back(&mut self, operations: usize) {
        for _ in 0..operations {
            for (key, before) in self.history.pop_back().into_iter().flatten().rev() {
                match before {
                    Some(entry) => self.entries.insert(key, entry),
                    None => self.entries.remove(&key),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &mut Keys, key: &[u8], text: &[u8]) {
        keys.put(key, Some(Entry { data: Data::String(text.into()), until_ms: None }));
    }

    fn add(keys: &mut Keys, key: &[u8], score: f64, member: &[u8]) {
        keys.change(
            key,
            0,
            || Data::SortedSet(SortedSet::default()),
            |entry| {
                let Data::SortedSet(set) = &mut entry.data else { panic!("another type") };
                set.insert(score, member)
            },
        );
    }

    #[test]
    fn operations_are_taken_back_whole_and_the_last_one_first() {
        let mut keys = Keys::default();
        let mut states = vec![keys.entries.clone()];
        for round in 0..10_u8 {
            set(&mut keys, b"text", &[round]);
            set(&mut keys, &[round], b"x");
            add(&mut keys, b"sorted", f64::from(round % 3), &[round % 5]);
            if round == 6 {
                keys.clear();
                add(&mut keys, b"sorted", 1.0, b"again");
            }
            keys.end_operation();
            states.push(keys.entries.clone());
        }
        let last = keys.clone();
        for (operations, state) in states.iter().rev().enumerate() {
            let mut keys = last.clone();
            keys.roll_back(operations);
            assert_eq!(keys.entries, *state, "{operations}");
        }
    }

    #[test]
    fn history_is_bounded() {
        let mut keys = Keys::default();
        for round in 0..2 * HISTORY_OPERATIONS_MAX {
            set(&mut keys, b"a", round.to_string().as_bytes());
            keys.end_operation();
        }
        assert_eq!(keys.history.len(), HISTORY_OPERATIONS_MAX);
        keys.roll_back(10 * HISTORY_OPERATIONS_MAX);
        let expected = (HISTORY_OPERATIONS_MAX - 1).to_string();
        assert_eq!(keys.get(b"a", 0).map(|entry| &entry.data), Some(&Data::String(expected.as_bytes().into())));
    }
}
