//! All items, what finds the due ones among them, and the hints. Nothing here waits or takes the time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::Bound,
    time::Duration,
};

use contracts::values::{Epoch, Item, Lease, ReservationId, Timestamp};

use super::{HINTS_MAX, expiring::Expiring, item::ItemState};
use crate::stock::{
    Counts, DUE_BATCH_MAX, Found, HINT_GRACE_SECONDS, Hold, Incarnation, LoadReply, OPEN_ITEMS_BATCH_MAX, Probe,
    ReserveReply, ReserveRequest,
};

/// One life of the data, and the data.
#[derive(Debug)]
pub struct Table {
    incarnation: Incarnation,
    items: BTreeMap<Item, Entry>,
    /// Items that have holds, by the deadline that comes first: what is due is found without looking at any other item.
    heads: BTreeSet<(Timestamp, Item)>,
    hints: Expiring<Item>,
}

#[derive(Debug)]
struct Entry {
    state: ItemState,
    /// Under which deadline it stands in `heads`.
    head: Option<Timestamp>,
}

impl Table {
    /// Nothing is open.
    pub fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, items: BTreeMap::new(), heads: BTreeSet::new(), hints: Expiring::new(HINTS_MAX) }
    }

    /// The same life without its data, as a `FLUSHALL` leaves it.
    pub fn emptied(&self) -> Self {
        Self::new(self.incarnation.clone())
    }

    /// The same data in another life: nothing is open.
    pub fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    /// The item, if it is open.
    pub fn open(&self, item: &Item) -> Option<&ItemState> {
        self.items.get(item).map(|entry| &entry.state).filter(|state| state.open(&self.incarnation))
    }

    /// Changes an item if it is open under this epoch or a later one; else `None`. What it leaves is open still.
    pub fn change<R>(&mut self, item: &Item, least: Epoch, work: impl FnOnce(&mut ItemState) -> R) -> Option<R> {
        let entry = self.items.get_mut(item)?;
        if !entry.state.open(&self.incarnation) || entry.state.epoch() < least {
            return None;
        }
        let result = work(&mut entry.state);
        assert!(entry.state.open(&self.incarnation), "a change left {item:?} unsound: {:?}", entry.state.numbers);
        index_head(&mut self.heads, item, entry);
        Some(result)
    }

    /// Changes an item as an operator would, without a check.
    pub fn edit(&mut self, item: &Item, change: impl FnOnce(&mut ItemState)) {
        if let Some(entry) = self.items.get_mut(item) {
            change(&mut entry.state);
            index_head(&mut self.heads, item, entry);
        }
    }

    /// See [`crate::stock::StockStore::reserve`].
    pub fn reserve(&mut self, request: &ReserveRequest, now: Timestamp) -> ReserveReply {
        let elsewhere = request.hint && self.hints.get(request.id, now).is_some_and(|item| *item != request.item);
        let done = self.change(&request.item, request.least_epoch, |state| {
            if elsewhere {
                return (ReserveReply::Mismatch, None);
            }
            let reply = state.reserve(request, now);
            // No deadline for what was refused and for what is confirmed already: only a hold has a hint.
            (reply, state.holds.get(&request.id).map(|held| held.deadline))
        });
        let (reply, deadline) = done.unwrap_or((ReserveReply::NotOpen, None));
        // The lock makes hint and hold one step. A store that writes them in two must write the hint first, and take it
        // back when the reserve is refused: a hold that cannot be found by its id is worse than a hint to nothing.
        if let (true, ReserveReply::Held { .. }, Some(deadline)) = (request.hint, &reply, deadline) {
            let end = deadline.plus(Duration::from_secs(HINT_GRACE_SECONDS));
            self.hints.put(request.id, request.item.clone(), end, now);
        }
        reply
    }

    /// See [`crate::stock::StockStore::load`]. Also gives what the item was before, so that it can be dropped elsewhere.
    pub fn load(&mut self, lease: &Lease, incarnation: &Incarnation) -> (LoadReply, Option<ItemState>) {
        if *incarnation != self.incarnation || self.stored(&lease.item) >= lease.epoch {
            return (LoadReply::Refused, None);
        }
        let Some(state) = ItemState::of_lease(lease, incarnation.clone()) else {
            return (LoadReply::Refused, None);
        };
        assert!(state.open(incarnation), "a lease opened {:?} unsound", lease.item);
        let old = self.items.insert(lease.item.clone(), Entry { state, head: None });
        if let Some(head) = old.as_ref().and_then(|entry| entry.head) {
            self.heads.remove(&(head, lease.item.clone()));
        }
        (LoadReply::Loaded, old.map(|entry| entry.state))
    }

    /// See [`crate::stock::StockStore::find`].
    pub fn find(&self, id: ReservationId, now: Timestamp) -> Option<Found> {
        let item = self.hints.get(id, now)?.clone();
        let hold = self.open(&item).and_then(|state| state.hold(id));
        Some(Found { item, hold })
    }

    /// See [`crate::stock::StockStore::probe`].
    pub fn probe(&self, item: &Item) -> Probe {
        Probe { incarnation: self.incarnation.clone(), stored: self.stored(item), open: self.open(item).is_some() }
    }

    /// See [`crate::stock::StockStore::due`].
    pub fn due(&self, now: Timestamp) -> Vec<Hold> {
        // The N longest overdue holds are among the N items whose first deadline is the oldest. Their lists are merged.
        let mut lists: Vec<_> = self
            .heads
            .iter()
            .take_while(|(head, _)| *head <= now)
            .filter_map(|(_, item)| self.open(item))
            .take(DUE_BATCH_MAX)
            .map(|state| (state, state.due.iter().take_while(|(deadline, _)| *deadline <= now)))
            .collect();
        let mut next = BinaryHeap::new();
        for (index, (_, list)) in lists.iter_mut().enumerate() {
            next.extend(list.next().map(|due| Reverse((due, index))));
        }
        let mut holds = Vec::new();
        while let Some(Reverse(((_, id), index))) = next.pop() {
            let (state, list) = &mut lists[index];
            holds.extend(state.hold(*id));
            if holds.len() == DUE_BATCH_MAX {
                break;
            }
            next.extend(list.next().map(|due| Reverse((due, index))));
        }
        holds
    }

    /// See [`crate::stock::StockStore::open_items`].
    pub fn open_items(&self, after: Option<&Item>) -> Vec<(Item, Epoch)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.items
            .range::<Item, _>((from, Bound::Unbounded))
            .filter(|(_, entry)| entry.state.open(&self.incarnation))
            .map(|(item, entry)| (item.clone(), entry.state.epoch()))
            .take(OPEN_ITEMS_BATCH_MAX)
            .collect()
    }

    /// See [`crate::stock::StockStore::counts`].
    pub fn counts(&self, item: &Item) -> Option<Counts> {
        self.items.get(item).map(|entry| entry.state.counts())
    }

    /// Entries that are remembered but count for nothing: (hints, confirmed markers of the item, release markers of it).
    pub fn remembered(&self, item: &Item) -> (usize, usize, usize) {
        let (confirmed, released) = self.items.get(item).map_or((0, 0), |entry| entry.state.markers());
        (self.hints.len(), confirmed, released)
    }

    fn stored(&self, item: &Item) -> Epoch {
        self.items.get(item).map_or(Epoch::NONE, |entry| entry.state.epoch())
    }
}

fn index_head(heads: &mut BTreeSet<(Timestamp, Item)>, item: &Item, entry: &mut Entry) {
    let head = entry.state.first_due();
    if head == entry.head {
        return;
    }
    if let Some(old) = entry.head {
        heads.remove(&(old, item.clone()));
    }
    if let Some(new) = head {
        heads.insert((new, item.clone()));
    }
    entry.head = head;
}
