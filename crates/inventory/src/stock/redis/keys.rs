//! What is stored under which key, and in which slot of a cluster.
//!
//! An item's name cannot contain braces, and every key of ours but `<item>` does: so no name reaches another key. The
//! item is the hash tag of its keys, so all of them are in one slot. The registry of the items of a slot has to be in
//! that slot too, since the scripts that change an item write it: its tag is a short text that belongs there.

use std::sync::LazyLock;

use contracts::values::ReservationId;

/// Slots of a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// The keys of an item: `KEYS[1..7]` of its scripts.
pub type ItemKeys = Vec<String>;

/// How keys are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All on one server: one registry, and slots do not matter.
    OneServer,
    /// By slot: a registry for each.
    Cluster,
}

impl Spread {
    /// The slot of an item's keys.
    pub fn slot_of(self, item: &str) -> u16 {
        match self {
            Self::OneServer => 0,
            Self::Cluster => slot(item),
        }
    }

    /// An item's keys, and their slot.
    pub fn item(self, item: &str) -> (u16, ItemKeys) {
        let slot = self.slot_of(item);
        let mut keys = vec![item.to_owned()];
        keys.extend(["ledger", "holds", "due", "restocks"].map(|name| format!("{{{item}}}:{name}")));
        keys.extend([self.items(slot), self.heads(slot)]);
        (slot, keys)
    }

    /// An item's keys with the marker of an id: `KEYS[1..8]`.
    pub fn item_and_id(self, item: &str, id: ReservationId) -> (u16, ItemKeys) {
        let (slot, mut keys) = self.item(item);
        keys.push(format!("{{{item}}}:marker:{id}"));
        (slot, keys)
    }

    /// The hint of an id, and its slot.
    pub fn hint(self, id: ReservationId) -> (u16, String) {
        let id = id.to_string();
        (self.slot_of(&id), format!("{{{id}}}:item"))
    }

    /// How many registries there are; registry n is that of slot n.
    pub fn registries(self) -> u16 {
        match self {
            Self::OneServer => 1,
            Self::Cluster => SLOTS,
        }
    }

    /// The registry of the items that were loaded, by name.
    pub fn items(self, slot: u16) -> String {
        format!("{{{}}}:items", self.tag(slot))
    }

    /// The registry of the items that have holds, by their first deadline.
    pub fn heads(self, slot: u16) -> String {
        format!("{{{}}}:heads", self.tag(slot))
    }

    fn tag(self, slot: u16) -> &'static str {
        match self {
            Self::OneServer => "registry",
            Self::Cluster => &TAGS[usize::from(slot)],
        }
    }
}

/// For each slot the first number that belongs there.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut tags = vec![String::new(); usize::from(SLOTS)];
    let mut missing = tags.len();
    // Ends: numbers reach every slot, the last one below 200,000.
    for number in 0_u32.. {
        let text = number.to_string();
        let tag = &mut tags[usize::from(slot(&text))];
        if tag.is_empty() {
            *tag = text;
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    tags
});

/// The slot of a hash tag, or of a key without one: CRC-16/XMODEM.
pub fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says.
        for (tag, expected) in [("123456789", 12_739), ("foo", 12_182), ("widget", 15_209), ("日本", 10_949)] {
            assert_eq!(slot(tag), expected, "{tag}");
        }
    }

    #[test]
    fn every_slot_has_a_registry_of_its_own_in_it() {
        for number in 0..SLOTS {
            let tag = Spread::Cluster.tag(number);
            assert_eq!(slot(tag), number, "{tag}");
            assert!(tag.len() <= 6, "{tag}");
        }
    }

    #[test]
    fn no_item_reaches_a_key_that_is_not_its_own() {
        let id = ReservationId(uuid::Uuid::from_u128(7));
        let id_text = id.to_string();
        let names = ["widget", "registry", "7", "widget:ledger", &id_text, "heads"];
        for spread in [Spread::OneServer, Spread::Cluster] {
            let mut seen = BTreeSet::from([spread.hint(id).1]);
            for number in 0..spread.registries() {
                seen.extend([spread.items(number), spread.heads(number)]);
            }
            for name in names {
                let (_, keys) = spread.item_and_id(name, id);
                for key in keys.into_iter().enumerate().filter(|(index, _)| !(5..7).contains(index)).map(|(_, key)| key)
                {
                    assert!(seen.insert(key.clone()), "{key}");
                }
            }
        }
    }
}
