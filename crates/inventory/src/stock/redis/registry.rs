//! What the registry knows: which items were loaded, and which have holds that are due. So nothing ever scans the keys.
//!
//! It is written by the scripts that change an item. What it names need not be open: the item itself is asked each time,
//! and is taken out of the registry when only a load can open it again, so that nothing lives there for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contracts::values::{Epoch, Item, ReservationId};
use deadpool_redis::redis::{Value, from_redis_value};

use super::{
    answer::{Answer, nonsense},
    keys::Spread,
    scripts::{SCRIPTS, Script},
    wire::{Request, Wire},
};
use crate::stock::{DUE_BATCH_MAX, Hold, OPEN_ITEMS_BATCH_MAX, StockError};

/// Names that one registry gives at a time.
pub const NAMES_BATCH_MAX: usize = 500;
/// Least holds that one item is asked for.
const DUE_OF_ITEM_MIN: usize = 8;

/// Reads the registry.
pub struct Registry {
    wire: Arc<dyn Wire>,
    spread: Spread,
    /// In a cluster a page costs a look at every registry. What a look finds beyond its page is kept for the page after.
    rest: Mutex<Option<Rest>>,
}

/// Names after the last item of a page.
struct Rest {
    after: Item,
    names: Vec<String>,
}

/// The due holds of one item.
struct DueList {
    item: Item,
    holds: Vec<Hold>,
    /// There may be more.
    cut: bool,
}

impl Registry {
    /// Of these servers.
    pub fn new(wire: Arc<dyn Wire>, spread: Spread) -> Self {
        Self { wire, spread, rest: Mutex::default() }
    }

    /// See [`crate::stock::StockStore::open_items`].
    pub async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError> {
        let kept = self.rest().take().filter(|rest| Some(&rest.after) == after);
        let mut names = match kept {
            Some(rest) => rest.names,
            None => self.names(after.map(Item::as_str)).await?,
        };
        let mut open = Vec::new();
        while !names.is_empty() {
            let later = names.split_off(names.len().min(OPEN_ITEMS_BATCH_MAX - open.len()));
            let items: Vec<Item> = names.iter().filter_map(|name| item(name)).collect();
            for (item, mut answer) in self.ask_items(&SCRIPTS.listed, items, &[]).await? {
                if answer.word() == "open" {
                    open.push((item, Epoch(answer.number()?)));
                }
            }
            if open.len() == OPEN_ITEMS_BATCH_MAX {
                let last = open.last().map(|(item, _)| item.clone());
                *self.rest() = last.filter(|_| !later.is_empty()).map(|after| Rest { after, names: later });
                break;
            }
            let last = names.pop();
            names = if later.is_empty() && self.spread == Spread::OneServer {
                self.names(last.as_deref()).await?
            } else {
                later
            };
        }
        Ok(open)
    }

    /// Names after this one, in order: all of a cluster's, [`NAMES_BATCH_MAX`] of a server's. At least one if there is
    /// one.
    async fn names(&self, after: Option<&str>) -> Result<Vec<String>, StockError> {
        let from = after.map_or_else(|| "-".to_owned(), |name| format!("({name}"));
        let mut slots: Vec<(u16, String)> = (0..self.spread.registries()).map(|slot| (slot, from.clone())).collect();
        let mut names = Vec::new();
        // Ends, because each round begins after the one before.
        while !slots.is_empty() {
            let limit = NAMES_BATCH_MAX.to_string();
            let request = |(slot, from): &(u16, String)| {
                let key = self.spread.items(*slot);
                Request::command_of(*slot, ["ZRANGEBYLEX", &key, from, "+", "LIMIT", "0", &limit])
            };
            let requests: Vec<Request> = slots.iter().map(request).collect();
            let mut full = Vec::new();
            for ((slot, _), value) in slots.iter().zip(self.ask_all(&requests).await?) {
                // A registry that is none has nobody's name in it.
                let found: Vec<String> = from_redis_value(value).unwrap_or_default();
                if let (NAMES_BATCH_MAX.., Some(last)) = (found.len(), found.last()) {
                    full.push((*slot, format!("({last}")));
                }
                names.extend(found);
            }
            slots = if self.spread == Spread::Cluster { full } else { Vec::new() };
        }
        names.sort_unstable();
        Ok(names)
    }

    /// See [`crate::stock::StockStore::due`].
    pub async fn due(&self) -> Result<Vec<Hold>, StockError> {
        // The N longest overdue holds are among the N items whose first deadline is the oldest.
        let now = self.now().await?;
        let mut lists: Vec<DueList> = Vec::new();
        // Entries of a server's registry that have been looked at and are still in it.
        let mut passed = 0;
        loop {
            let heads = self.heads(now, passed).await?;
            let batch = heads.len();
            let mut heads = heads.as_slice();
            while !heads.is_empty() && lists.len() < DUE_BATCH_MAX {
                let (names, later) = heads.split_at(heads.len().min(DUE_BATCH_MAX - lists.len()));
                let items: Vec<Item> = names.iter().filter_map(|name| item(name)).collect();
                passed += names.len() - self.add_due(&mut lists, items).await?;
                heads = later;
            }
            // The registries of a cluster are read to the end, or nearly so, in one go.
            if lists.len() == DUE_BATCH_MAX || batch < NAMES_BATCH_MAX || self.spread == Spread::Cluster {
                return self.longest_overdue(lists).await;
            }
        }
    }

    /// Adds the due holds of these items; answers how many items were taken out of the registry.
    async fn add_due(&self, lists: &mut Vec<DueList>, items: Vec<Item>) -> Result<usize, StockError> {
        let most = (2 * DUE_BATCH_MAX / items.len().max(1)).clamp(DUE_OF_ITEM_MIN, DUE_BATCH_MAX);
        let mut gone = 0;
        for (item, mut answer) in self.ask_items(&SCRIPTS.due, items, &[most.to_string()]).await? {
            match answer.word() {
                "due" => lists.push(due_list(item, &mut answer)?),
                "not_open" => {
                    answer.text()?;
                    gone += usize::from(answer.number()? == 1);
                }
                _ => return answer.unknown(),
            }
        }
        Ok(gone)
    }

    /// Merges the lists. Where one was cut so short that holds of it may be missing, it is asked for again.
    async fn longest_overdue(&self, mut lists: Vec<DueList>) -> Result<Vec<Hold>, StockError> {
        let mut most = lists.iter().map(|list| list.holds.len()).max().unwrap_or(0).max(DUE_OF_ITEM_MIN);
        loop {
            let mut holds: Vec<&Hold> = lists.iter().flat_map(|list| &list.holds).collect();
            holds.sort_unstable_by_key(|hold| (hold.deadline, hold.id));
            holds.truncate(DUE_BATCH_MAX);
            let last = holds.last().filter(|_| holds.len() == DUE_BATCH_MAX).map(|hold| (hold.deadline, hold.id));
            let short = |list: &DueList| {
                let end = list.holds.last().map(|hold| (hold.deadline, hold.id));
                list.cut && list.holds.len() < DUE_BATCH_MAX && last.is_none_or(|last| end.is_none_or(|end| end < last))
            };
            let again: Vec<Item> = lists.iter().filter(|list| short(list)).map(|list| list.item.clone()).collect();
            if again.is_empty() || most >= DUE_BATCH_MAX {
                return Ok(holds.into_iter().cloned().collect());
            }
            // Few items at a time have that many among the first: what is read stays in proportion to a batch.
            most = (most * 4).min(DUE_BATCH_MAX);
            lists.retain(|list| !again.contains(&list.item));
            for (item, mut answer) in self.ask_items(&SCRIPTS.due, again, &[most.to_string()]).await? {
                if answer.word() == "due" {
                    lists.push(due_list(item, &mut answer)?);
                }
            }
        }
    }

    /// Items whose first deadline is past, the oldest first, without the first `passed` of a server.
    async fn heads(&self, now: i64, passed: usize) -> Result<Vec<String>, StockError> {
        let (now, passed, limit) = (now.to_string(), passed.to_string(), NAMES_BATCH_MAX.to_string());
        let request = |slot| {
            let key = self.spread.heads(slot);
            let words = ["ZRANGEBYSCORE", &key, "-inf", &now, "WITHSCORES", "LIMIT", &passed, &limit];
            Request::command_of(slot, words)
        };
        let requests: Vec<Request> = (0..self.spread.registries()).map(request).collect();
        let mut heads: Vec<(f64, String)> = Vec::new();
        for value in self.ask_all(&requests).await? {
            let found: Vec<(String, f64)> = from_redis_value(value).unwrap_or_default();
            heads.extend(found.into_iter().map(|(name, deadline)| (deadline, name)));
        }
        heads.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        Ok(heads.into_iter().map(|(_, name)| name).collect())
    }

    /// The latest time of the servers, in microseconds since 1970. Each judges by its own what is due.
    async fn now(&self) -> Result<i64, StockError> {
        let servers = self.wire.servers().await?;
        let requests: Vec<Request> = servers.into_iter().map(|slot| Request::command_of(slot, ["TIME"])).collect();
        let times = self.ask_all(&requests).await?.into_iter().filter_map(|value| {
            let (seconds, micros): (i64, i64) = from_redis_value(value).ok()?;
            Some(seconds.saturating_mul(1_000_000).saturating_add(micros))
        });
        times.max().ok_or_else(|| nonsense("no time"))
    }

    /// Runs a script on each item.
    async fn ask_items(
        &self,
        script: &'static Script,
        items: Vec<Item>,
        args: &[String],
    ) -> Result<Vec<(Item, Answer)>, StockError> {
        let request = |item: &Item| {
            let (slot, keys) = self.spread.item(item.as_str());
            Request::run(script, slot, keys, args.to_vec())
        };
        let requests: Vec<Request> = items.iter().map(request).collect();
        let values = self.ask_all(&requests).await?.into_iter();
        let answered = items.into_iter().zip(values).filter(|(_, value)| *value != Value::Nil);
        answered.map(|(item, value)| Ok((item, Answer::parse(value)?))).collect()
    }

    /// The answers, [`Value::Nil`] where a server is down: one must not keep the others' items from being found. An error
    /// if all of them are.
    async fn ask_all(&self, requests: &[Request]) -> Result<Vec<Value>, StockError> {
        let mut values = Vec::with_capacity(requests.len());
        let mut down = None;
        let mut any = requests.is_empty();
        for answer in self.wire.ask_all(requests).await {
            any |= answer.is_ok();
            values.push(answer.unwrap_or_else(|error| {
                down = Some(error);
                Value::Nil
            }));
        }
        down.filter(|_| !any).map_or(Ok(values), Err)
    }

    fn rest(&self) -> MutexGuard<'_, Option<Rest>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is no item's name was written by a hand.
fn item(name: &str) -> Option<Item> {
    Item::parse(name).ok().filter(|item| item.as_str() == name)
}

fn due_list(item: Item, answer: &mut Answer) -> Result<DueList, StockError> {
    let (epoch, cut) = (answer.number()?, answer.number()? == 1);
    let mut holds = Vec::new();
    while !answer.is_over() {
        // Neither can an id that was written by a hand be anybody's hold.
        match ReservationId::parse(&answer.text()?) {
            Ok(id) => holds.push(answer.hold(&item, id, epoch)?),
            Err(_) => drop((answer.number()?, answer.number()?, answer.number()?)),
        }
    }
    Ok(DueList { item, holds, cut })
}
