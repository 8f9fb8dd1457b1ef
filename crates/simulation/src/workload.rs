//! What the callers of a seed do and when, decided beforehand: hot items that sell out, keys repeated one after another and
//! at once, the same key with other content, attempts that a gateway repeats, holds and what may become of them, releases
//! that overtake their reserves, restocks, reads, and requests that have to be refused.

use std::{ops::Range, sync::Arc, time::Duration};

use contracts::values::{IdempotencyKey, Item, Quantity, ReservationId, Token};
use order::attempt::Identity;
use service::manual::Dice;
use uuid::{Builder, Uuid};

use crate::history::OrderRequest;

/// What is sold.
pub const ITEMS: [&str; 3] = ["widget", "gadget", "gizmo"];
/// What nobody ever gets, so that it leaves no trace anywhere.
pub const QUIET: &str = "unsold";
/// More than there ever is of anything.
pub const TOO_MANY: i64 = 100_000;
/// For so long callers come, in milliseconds.
pub const BUSY_MS: u64 = 8_000;
/// The same in one of [`LONG_ONE_IN`] runs, and in another one nobody comes for so long at its end: long enough for what is
/// done once a minute.
pub const LONG_MS: u64 = 62_000;
/// See [`LONG_MS`].
pub const LONG_ONE_IN: u64 = 16;
/// Longest life of a client's hold, in seconds.
pub const TTL_MAX_S: u64 = 3;

const KEYS: usize = 8;
const KEYED: usize = 14;
const UNKEYED: usize = 8;
const HOLDS: usize = 6;
const RESTOCKS: usize = 4;
const READS: usize = 6;
const HOPELESS: usize = 5;

/// How a caller waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For one call, in milliseconds.
    pub timeout_ms: u64,
    /// How often the same is asked when nobody knows whether it was done.
    pub tries: u32,
    /// After this it hangs up the first call, in microseconds.
    pub hang_up_micros: Option<u64>,
    /// Whether it asks once more although it was answered.
    pub again: bool,
}

/// What is done with a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// An order on it.
    Order(Arc<OrderRequest>, Patience),
    /// It is given back. With the item an unknown id is refused from then on.
    Release(bool),
    /// The same reserve again.
    Again,
    /// Another item, or another quantity, under the same id.
    Other(Item, i64),
}

/// What a caller does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Orders.
    Order(Arc<OrderRequest>, Patience),
    /// Holds units for some seconds, and uses the hold: so long after (in milliseconds) the call for it has left.
    Hold(ReservationId, Item, i64, u64, Vec<(u64, Use)>),
    /// Holds units without naming the hold, and forgets it.
    Nameless(Item, i64),
    /// Counts units in until it is answered; perhaps once more.
    Restock(Uuid, Item, i64, bool),
    /// Reads an item's stock, the newest order, and the list of orders.
    Read(Item),
    /// Asks for what cannot be had of an item that is never sold.
    Hopeless(u64),
}

/// What all callers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// For so long, in milliseconds.
    pub busy_ms: u64,
    /// For so long nobody comes at the end, in milliseconds.
    pub quiet_ms: u64,
    /// What and when, in milliseconds from the start.
    pub acts: Vec<(u64, Act)>,
}

/// An item that is known to be one.
pub fn item(name: &str) -> Item {
    Item::parse(name).expect("an item's name")
}

/// Units that are known to be some.
pub fn units(n: i64) -> Quantity {
    Quantity::parse(n).expect("a quantity")
}

/// Milliseconds.
pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A request under a key.
pub fn keyed(key: &str, name: &Item, quantity: i64, hold: Option<ReservationId>) -> Arc<OrderRequest> {
    let identity = Identity::Key(IdempotencyKey::parse(key).expect("a key"));
    Arc::new(OrderRequest { item: name.clone(), quantity: units(quantity), identity, hold })
}

struct Planner {
    dice: Dice,
    busy_ms: u64,
    acts: Vec<(u64, Act)>,
}

impl Planner {
    fn below(&mut self, end: u64) -> u64 {
        self.dice.below(end)
    }

    fn in_range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.below(u64::MAX).to_be_bytes());
        bytes[8..].copy_from_slice(&self.below(u64::MAX).to_be_bytes());
        Builder::from_random_bytes(bytes).into_uuid()
    }

    fn item(&mut self) -> Item {
        let index = usize::try_from(self.below(ITEMS.len() as u64)).expect("an index");
        item(ITEMS[index])
    }

    fn quantity(&mut self) -> i64 {
        1 + i64::try_from(self.below(3)).expect("small")
    }

    fn moment(&mut self) -> u64 {
        self.below(self.busy_ms)
    }

    fn patience(&mut self) -> Patience {
        let timeouts = [250, 1_000, 3_000, 5_000];
        let timeout_ms = timeouts[usize::try_from(self.below(4)).expect("an index")];
        let hang_up_micros = self.chance(15).then(|| self.below(60_000));
        Patience {
            timeout_ms,
            tries: 1 + u32::try_from(self.below(4)).expect("small"),
            hang_up_micros,
            again: self.chance(20),
        }
    }

    fn unkeyed(&mut self, item: Item, quantity: i64, hold: Option<ReservationId>) -> Arc<OrderRequest> {
        let identity = Identity::Attempt(Token::from(self.uuid()));
        Arc::new(OrderRequest { item, quantity: units(quantity), identity, hold })
    }

    /// Mostly honest repeats: a key has a content of its own.
    fn keyed_orders(&mut self) {
        let contents: Vec<(Item, i64)> = (0..KEYS).map(|_| (self.item(), self.quantity())).collect();
        for _ in 0..KEYED {
            let key = usize::try_from(self.below(KEYS as u64)).expect("an index");
            let (item, quantity) = if self.chance(80) { contents[key].clone() } else { (self.item(), self.quantity()) };
            let request = keyed(&format!("key-{key}"), &item, quantity, None);
            let at = self.moment();
            // Some at once, as from a client that clicks twice.
            let copies = if self.chance(25) { 1 + self.below(3) } else { 1 };
            for _ in 0..copies {
                let (patience, late) = (self.patience(), self.below(20));
                self.acts.push((at + late, Act::Order(request.clone(), patience)));
            }
        }
    }

    fn unkeyed_orders(&mut self) {
        for _ in 0..UNKEYED {
            let (item, quantity) = (self.item(), self.quantity());
            let request = self.unkeyed(item, quantity, None);
            let at = self.moment();
            // A gateway that repeats what failed, or gives up on the first too early.
            let copies = if self.chance(30) { 2 } else { 1 };
            for copy in 0..copies {
                let (patience, late) = (self.patience(), copy * self.below(1_200));
                self.acts.push((at + late, Act::Order(request.clone(), patience)));
            }
        }
    }

    fn holds(&mut self) {
        for number in 0..HOLDS {
            let (id, item, quantity) = (ReservationId(self.uuid()), self.item(), self.quantity());
            let mut uses = Vec::new();
            let life_ms = 1_000 * TTL_MAX_S + 500;
            if self.chance(75) {
                let request = if self.chance(50) {
                    keyed(&format!("hold-{number}"), &item, quantity, Some(id))
                } else {
                    self.unkeyed(item.clone(), quantity, Some(id))
                };
                let at = self.below(life_ms);
                for _ in 0..=self.below(3) {
                    let (patience, late) = (self.patience(), self.below(30));
                    uses.push((at + late, Use::Order(request.clone(), patience)));
                }
                if self.chance(20) {
                    let other = keyed(&format!("rival-{number}"), &item, quantity, Some(id));
                    let (patience, late) = (self.patience(), self.below(300));
                    uses.push((at + late, Use::Order(other, patience)));
                }
            }
            if self.chance(50) {
                // At once: it may overtake the reserve.
                let at = if self.chance(30) { self.below(10) } else { self.below(life_ms) };
                let named = self.chance(60);
                uses.push((at, Use::Release(named)));
            }
            if self.chance(30) {
                let at = self.below(life_ms);
                uses.push((at, Use::Again));
            }
            if self.chance(20) {
                let (at, other, quantity) = (self.below(life_ms), self.item(), self.quantity());
                uses.push((at, Use::Other(other, quantity)));
            }
            let (at, ttl) = (self.moment(), self.in_range(1..TTL_MAX_S + 1));
            self.acts.push((at, Act::Hold(id, item, quantity, ttl, uses)));
        }
    }

    fn others(&mut self) {
        for _ in 0..RESTOCKS {
            let (id, item, quantity, again) = (self.uuid(), self.item(), self.quantity() + 1, self.chance(40));
            let at = self.moment();
            self.acts.push((at, Act::Restock(id, item, quantity, again)));
        }
        for _ in 0..READS {
            let (at, item) = (self.moment(), self.item());
            self.acts.push((at, Act::Read(item)));
        }
        for _ in 0..HOPELESS {
            let (at, which) = (self.moment(), self.below(6));
            self.acts.push((at, Act::Hopeless(which)));
        }
        let (at, item, quantity) = (self.moment(), self.item(), self.quantity());
        self.acts.push((at, Act::Nameless(item, quantity)));
    }
}

impl Plan {
    /// By these dice.
    pub fn new(mut dice: Dice) -> Self {
        let (busy_ms, quiet_ms) = match dice.below(LONG_ONE_IN) {
            0 => (LONG_MS, 0),
            1 => (BUSY_MS, LONG_MS),
            _ => (BUSY_MS, 0),
        };
        let mut planner = Planner { dice, busy_ms, acts: Vec::new() };
        planner.keyed_orders();
        planner.unkeyed_orders();
        planner.holds();
        planner.others();
        Self { busy_ms, quiet_ms, acts: planner.acts }
    }
}
