//! Judges a run: reads what stands in the stores, what the services were told by them and what callers were told, after
//! every step. Only what has changed since is looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use broker::queues;
use contracts::{
    Reason,
    values::{Epoch, Item, ReservationId, Stamp},
};
use uuid::Uuid;

use crate::{
    books::{Books, Shelf, Shelves},
    history::{Event, History, OrderRequest},
    invariants::{self as rule, HoldKey, Holds, broken},
    watch::{Seen, Watch},
    workload::{ITEMS, item},
    world::World,
};

/// How orders ended, for the report.
pub type Outcomes = BTreeMap<&'static str, u64>;

/// The judge of one run.
pub struct Oracle {
    watch: Arc<Watch>,
    history: Arc<History>,
    books: Books,
    books_version: u64,
    shelves: Shelves,
    shelves_version: u64,
    hands: u64,
    losses: u64,
    /// Leases whose numbers a hand may have changed.
    touched: HashSet<(Item, Epoch)>,
    /// Leases of which holds were made.
    used: HashSet<(Item, Epoch)>,
    /// The hold of each stamp.
    stamps: HashMap<Stamp, ReservationId>,
    /// Every hold that a stock store ever answered, with its units.
    held: HashMap<HoldKey, i64>,
    /// Those whose sale a store has answered, or that it belongs to a lease that has passed.
    had_effect: HashSet<HoldKey>,
    /// The highest epoch that the ledger has told anybody.
    newest: HashMap<Item, Epoch>,
    /// Orders whose event the consumer has handled.
    handled: HashSet<ReservationId>,
    /// All ids that ever had a tombstone.
    aborted: HashSet<ReservationId>,
    /// What was asked for under each key.
    requests: HashMap<String, Vec<Arc<OrderRequest>>>,
    /// The order of each key.
    orders: HashMap<String, ReservationId>,
    /// When each key's order was first answered, as the number of the last request before.
    answered: HashMap<String, (ReservationId, u64)>,
    /// Holds that callers were told to be no orders.
    refused: HashSet<ReservationId>,
    restocked: BTreeMap<Uuid, (Item, i64)>,
    outcomes: Outcomes,
}

impl Oracle {
    /// Of a run that has not begun.
    pub fn new(watch: Arc<Watch>, history: Arc<History>) -> Self {
        Self {
            watch,
            history,
            books: Books::default(),
            books_version: 0,
            shelves: Shelves::new(),
            shelves_version: 0,
            hands: 0,
            losses: 0,
            touched: HashSet::new(),
            used: HashSet::new(),
            stamps: HashMap::new(),
            held: HashMap::new(),
            had_effect: HashSet::new(),
            newest: HashMap::new(),
            handled: HashSet::new(),
            aborted: HashSet::new(),
            requests: HashMap::new(),
            orders: HashMap::new(),
            answered: HashMap::new(),
            refused: HashSet::new(),
            restocked: BTreeMap::new(),
            outcomes: Outcomes::new(),
        }
    }

    /// The ledger as it stood after the last step.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// How orders ended.
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// What was asked for, by key.
    pub fn requests(&self) -> &HashMap<String, Vec<Arc<OrderRequest>>> {
        &self.requests
    }

    /// The order of a key, or of an attempt.
    pub fn order_of(&self, key: &str) -> Option<ReservationId> {
        self.orders.get(key).copied()
    }

    /// Whether there ever was a hold of this id.
    pub fn was_held(&self, id: ReservationId) -> bool {
        self.held.keys().any(|(of, _)| *of == id)
    }

    /// Judges the step that has just been made.
    pub fn step(&mut self, world: &World) -> Holds {
        // First what was asked for and held: an order may be committed in the very step that tells of its hold.
        let events = self.history.take();
        for event in &events {
            if let Event::Asked(request, _) = event {
                let asked = self.requests.entry(request.key().as_str().to_owned()).or_default();
                if !asked.contains(request) {
                    asked.push(request.clone());
                }
            }
        }
        let seen = self.watch.take();
        for seen in &seen {
            if let Seen::Held(id, stamp, quantity) = seen {
                let is_touched = self.touched.contains(&(stamp.item.clone(), stamp.epoch));
                let other = self.stamps.insert(stamp.clone(), *id);
                rule::i4_stamp(*id, stamp, other.as_ref().filter(|_| !is_touched))?;
                self.held.insert((*id, stamp.clone()), quantity.get());
            }
        }
        self.read_books(world)?;
        self.read_shelves(world)?;
        seen.into_iter().try_for_each(|seen| self.heard(seen))?;
        events.into_iter().try_for_each(|event| self.told(event))
    }

    fn read_books(&mut self, world: &World) -> Holds {
        let version = world.database().version();
        if version == self.books_version {
            return Ok(());
        }
        self.books_version = version;
        let now = Books::read(world.database());
        rule::i3(&now)?;
        rule::i9(&self.books, &now)?;
        rule::i5_one_verdict(&self.books, &now)?;
        for (id, order) in now.orders.iter().filter(|(id, _)| !self.books.orders.contains_key(id)) {
            rule::i4(*id, order, &self.held)?;
            rule::i4_newest(*id, order, &self.books, &now)?;
            rule::i6_orders(*id, order, &self.orders, &self.requests)?;
            if let Some((key, _)) = &order.key {
                self.orders.insert(key.clone(), *id);
            }
            if self.refused.contains(id) {
                rule::i5_refused(*id, &now)?;
            }
        }
        rule::i12_books(&now)?;
        self.aborted.extend(now.tombstones.keys());
        self.books = now;
        Ok(())
    }

    fn read_shelves(&mut self, world: &World) -> Holds {
        let version = world.redis().version();
        if version == self.shelves_version {
            return Ok(());
        }
        self.shelves_version = version;
        let (hands, losses) = world.redis().touched();
        let (by_hand, lost) = (hands != self.hands, losses != self.losses);
        (self.hands, self.losses) = (hands, losses);
        let now = Shelf::read_all(world.redis());
        for (place, shelf) in &now {
            let (before, lease) = (self.shelves.get(place), (place.1.clone(), shelf.epoch));
            if by_hand {
                // What a hand has done may show later only.
                self.touched.insert(lease.clone());
            }
            if before == Some(shelf) {
                continue;
            }
            rule::i1(&place.1, before, shelf, by_hand || lost)?;
            if !by_hand && !self.touched.contains(&lease) {
                rule::never_ahead(&place.1, shelf, &self.books)?;
                if !lost {
                    rule::i7_loaded(&place.1, shelf, before, &self.used)?;
                }
            }
        }
        self.shelves = now;
        Ok(())
    }

    /// Something that a service heard from a store or told one.
    fn heard(&mut self, seen: Seen) -> Holds {
        match seen {
            // Only now: the load may have come in the same step.
            Seen::Held(_, stamp, _) => {
                self.used.insert((stamp.item, stamp.epoch));
                Ok(())
            }
            Seen::Sold(id, stamp) => {
                rule::i5_sold(id, &stamp, &self.books)?;
                self.had_effect.insert((id, stamp));
                Ok(())
            }
            Seen::Superseded(id, stamp) => {
                self.had_effect.insert((id, stamp));
                Ok(())
            }
            Seen::Lent(lease) => rule::i7_lease(&lease, &self.books),
            Seen::Fenced(id, stamp) => rule::i6_fenced(id, &stamp, &self.books),
            Seen::Released(id, stamp) => rule::i5_released(id, &stamp, &self.books, &self.aborted),
            Seen::Newest(item, epoch) => {
                let newest = self.newest.entry(item).or_default();
                *newest = epoch.max(*newest);
                Ok(())
            }
            Seen::Handled(id, stamp) => {
                let passed = self.newest.get(&stamp.item).is_some_and(|newest| *newest > stamp.epoch);
                let had_effect = passed || self.had_effect.contains(&(id, stamp.clone()));
                rule::i8_handled(id, &stamp, had_effect)?;
                self.handled.insert(id);
                Ok(())
            }
        }
    }

    /// Something that a caller was told.
    fn told(&mut self, event: Event) -> Holds {
        match event {
            Event::Asked(..) | Event::Held(..) | Event::Declined(..) => Ok(()),
            Event::Ordered(request, id, item, quantity) => {
                *self.outcomes.entry("ordered").or_default() += 1;
                rule::i6_answer(&request, id, &item, quantity, &self.books)?;
                let now = self.history.now();
                self.answered.entry(request.key().as_str().to_owned()).or_insert((id, now));
                Ok(())
            }
            Event::Refused(request, reason, number) => self.refused(&request, reason, number),
            Event::Unknown(_, Reason::Internal) => broken("errors", "a caller was told of an internal error"),
            Event::Unknown(what, _) => {
                if what == "order" {
                    *self.outcomes.entry("unknown").or_default() += 1;
                }
                Ok(())
            }
            Event::Restocked(id, item, quantity) => {
                let journalled = self.books.restocks.get(&id);
                if journalled.is_none_or(|(of, units, _)| *of != item || *units != quantity) {
                    return broken("I9", format!("restock {id} was answered and the ledger has {journalled:?}"));
                }
                self.restocked.insert(id, (item, quantity));
                Ok(())
            }
            Event::Stock(item, units) => {
                let received = self.books.received(&item);
                if units < 0 || received.is_some_and(|received| units > received) {
                    return broken("I1", format!("{units} of {received:?} {item} were answered to be free"));
                }
                Ok(())
            }
            Event::Found(id, found, number) => {
                let answered = self.answered.values().any(|(of, at)| *of == id && *at < number);
                if !found && answered {
                    return broken("I9", format!("order {id} was answered, and is not found"));
                }
                Ok(())
            }
            Event::Malformed(what) => broken("answers", what),
        }
    }

    fn refused(&mut self, request: &OrderRequest, reason: Reason, number: u64) -> Holds {
        *self.outcomes.entry(reason.name()).or_default() += 1;
        let key = request.key();
        let order = self.orders.get(key.as_str()).and_then(|id| self.books.orders.get(id));
        let same = order.and_then(|order| order.key.as_ref()).is_some_and(|(_, of)| *of == request.fingerprint());
        // One that came after the answer to an earlier one must be answered alike.
        let late = self.answered.get(key.as_str()).is_some_and(|(_, at)| *at < number);
        if same && late {
            return broken("I6", format!("{request:?} has an order, and was refused: {}", reason.name()));
        }
        match (reason, request.hold) {
            (Reason::ReservationReleased, Some(hold)) => {
                self.refused.insert(hold);
                rule::i5_refused(hold, &self.books)
            }
            (Reason::IdempotencyKeyReused, _) if order.is_none() || same => {
                broken("I6", format!("{request:?} was told that its key is taken by another, and it is by {order:?}"))
            }
            (Reason::ReservationConfirmed, Some(hold)) if !self.books.orders.contains_key(&hold) => {
                broken("I6", format!("{request:?} was told that its hold is an order, which it is not"))
            }
            _ => Ok(()),
        }
    }

    /// Judges what only holds when all faults are healed and nothing is under way any more.
    pub fn at_rest(&self, world: &World) -> Holds {
        let books = &self.books;
        rule::i8(books, &self.handled)?;
        let dead = world.broker().messages(&queues::order_created().dead_letter_queue());
        rule::i10_events(books, dead.map_or(0, |dead| dead.len()))?;
        for item in books.leases.keys() {
            rule::i10_settled(item, books)?;
        }
        let serving = world.redis().primary();
        for item in ITEMS.map(item) {
            let Some(now) = Shelf::read(world.redis(), serving, &item).filter(|now| now.open) else { continue };
            rule::i1(&item, None, &now, false)?;
            rule::i7(&item, &now, books)?;
            rule::i2(&item, &now, books)?;
            rule::i10_item(&item, &now, books)?;
        }
        let dump = world.redis().dump(serving);
        rule::i12_keys(dump.keys().map(String::as_str))?;
        for (id, (item, quantity)) in &self.restocked {
            let journalled = books.restocks.get(id);
            if journalled.is_none_or(|(of, units, _)| of != item || units != quantity) {
                return broken("I9", format!("restock {id} was answered and the ledger has {journalled:?}"));
            }
        }
        Ok(())
    }
}
