//! What a hand does to an item, past the product.

use inventory::stock::redis::keys::Spread;
use service::manual::Dice;

use super::{Data, Redis};

/// What no script takes for a number.
const GARBAGE: [&str; 5] = ["12abc", "1e3", "007", "", "nan"];
/// An item's numbers, beside those available.
const NUMBERS: [&str; 7] = ["epoch", "received", "held", "sold", "number", "holds", "restocks"];
/// Most that a hand adds to a number, or takes away.
const EDIT_UNITS_MAX: u64 = 5;

impl Redis {
    /// Changes one item on the primary, so that it shows; what was done, or `None` without an item.
    pub fn edit(&self, dice: &mut Dice) -> Option<String> {
        let primary = self.primary();
        let commands = self.an_edit(primary, dice)?;
        for words in &commands {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.command(primary, &words);
        }
        Some(commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join("; "))
    }

    /// The commands of an edit of one of the items that a server has.
    pub fn an_edit(&self, server: usize, dice: &mut Dice) -> Option<Vec<Vec<String>>> {
        let dump = self.dump(server);
        let (registry, _) = dump.get(&Spread::OneServer.items(0))?;
        let Data::SortedSet(items) = registry else { return None };
        let (_, item) = pick(dice, items.members())?;
        let item = std::str::from_utf8(item).ok()?;
        let (_, keys) = Spread::OneServer.item(item);
        let [available, ledger, holds, due, ..] = keys.as_slice() else { unreachable!("an item has more keys") };
        let ids: Vec<(String, String)> = match dump.get(holds) {
            Some((Data::Hash(holds), _)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                holds.iter().map(|(id, hold)| (text(id), text(hold))).collect()
            }
            _ => Vec::new(),
        };
        let hold = pick(dice, &ids);
        let number = pick(dice, &NUMBERS)?;
        let by = some_units(dice);
        let touched = hold.map_or_else(String::new, |(_, text)| another_hold(dice, text));
        let commands: Vec<Vec<&str>> = match (dice.below(12), hold) {
            (0, _) => vec![vec!["INCRBY", available, &by]],
            (1, _) => vec![vec!["HINCRBY", ledger, number, &by]],
            (2, _) => vec![vec!["DEL", pick(dice, &keys)?]],
            (3, _) => vec![vec!["SET", available, pick(dice, &GARBAGE)?]],
            (4, _) => vec![vec!["HSET", ledger, number, pick(dice, &GARBAGE)?]],
            (5, _) => {
                let key = pick(dice, &keys)?;
                vec![vec!["DEL", key], vec!["RPUSH", key, "7"]]
            }
            (6, Some((id, _))) => vec![vec!["HDEL", holds, id]],
            (7, Some((id, _))) => vec![vec!["ZREM", due, id]],
            // Half of the time what a hand does to a hold, for it shows least.
            (8 | 9, Some((id, _))) => vec![vec!["HDEL", holds, id], vec!["ZREM", due, id]],
            (_, Some((id, _))) => vec![vec!["HSET", holds, id, &touched]],
            (_, None) => vec![vec!["DEL", ledger]],
        };
        Some(commands.into_iter().map(|words| words.into_iter().map(str::to_owned).collect()).collect())
    }
}

fn pick<'a, T>(dice: &mut Dice, among: &'a [T]) -> Option<&'a T> {
    let count = u64::try_from(among.len()).ok().filter(|count| *count > 0)?;
    among.get(usize::try_from(dice.below(count)).ok()?)
}

fn some_units(dice: &mut Dice) -> String {
    let sign = if dice.below(2) == 0 { "-" } else { "" };
    format!("{sign}{}", dice.below(EDIT_UNITS_MAX) + 1)
}

/// A hold's text with one of its numbers changed.
fn another_hold(dice: &mut Dice, text: &str) -> String {
    let mut parts: Vec<String> = text.split(':').map(str::to_owned).collect();
    let index = usize::try_from(dice.below(parts.len() as u64)).expect("small");
    let number: u64 = parts[index].parse().unwrap_or(0);
    parts[index] = (number + 1 + dice.below(EDIT_UNITS_MAX)).to_string();
    parts.join(":")
}
