//! One open item: its numbers, its holds and what it remembers of ids. Each method is one change, made whole or not at
//! all; whether the item may be changed has been checked before.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp, Timestamp};
use uuid::Uuid;

use super::{MARKERS_PER_ITEM_MAX, expiring::Expiring, numbers::Numbers};
use crate::stock::{
    CONFIRMED_MARKER_SECONDS, ConfirmReply, Counts, Hold, Incarnation, RELEASE_MARKER_SECONDS, RESTOCKS_PER_LEASE_MAX,
    ReleaseReply, ReserveReply, ReserveRequest, RestockReply,
};

/// Units set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldUnits {
    /// Units.
    pub quantity: Quantity,
    /// The hold's number within the lease.
    pub number: i64,
    /// When it is due.
    pub deadline: Timestamp,
}

/// One item under one lease.
#[derive(Debug)]
pub struct ItemState {
    /// Its units.
    pub numbers: Numbers,
    /// Its holds.
    pub holds: HashMap<ReservationId, HeldUnits>,
    /// The same holds by their deadline.
    pub due: BTreeSet<(Timestamp, ReservationId)>,
    item: Item,
    epoch: Epoch,
    incarnation: Incarnation,
    /// Number of the newest hold.
    last_number: i64,
    confirmed: Expiring<HeldUnits>,
    released: Expiring<()>,
    restocks: HashSet<Uuid>,
}

impl ItemState {
    /// An item at the start of its lease, if the lease makes sense.
    pub fn of_lease(lease: &Lease, incarnation: Incarnation) -> Option<Self> {
        Some(Self {
            numbers: Numbers::of_lease(lease.received, lease.sold)?,
            holds: HashMap::new(),
            due: BTreeSet::new(),
            item: lease.item.clone(),
            epoch: lease.epoch,
            incarnation,
            last_number: 0,
            confirmed: Expiring::new(MARKERS_PER_ITEM_MAX),
            released: Expiring::new(MARKERS_PER_ITEM_MAX),
            restocks: HashSet::new(),
        })
    }

    /// Whether it belongs to this life of the data and its counts add up. Takes the same time however many holds.
    pub fn open(&self, incarnation: &Incarnation) -> bool {
        self.incarnation == *incarnation
            && self.numbers.sound()
            && self.holds.len() == self.due.len()
            && u64::try_from(self.holds.len()) == Ok(self.numbers.holds)
    }

    /// The lease's number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Deadline of the hold that is due first.
    pub fn first_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    /// A hold of this id.
    pub fn hold(&self, id: ReservationId) -> Option<Hold> {
        let held = self.holds.get(&id)?;
        Some(Hold { id, stamp: self.stamp(held.number), quantity: held.quantity, deadline: held.deadline })
    }

    /// The numbers as they stand.
    pub fn counts(&self) -> Counts {
        let Numbers { received, available, held, sold, holds } = self.numbers;
        Counts { epoch: self.epoch, received, available, held, sold, holds }
    }

    /// How many ids are marked as confirmed, and how many as released.
    pub fn markers(&self) -> (usize, usize) {
        (self.confirmed.len(), self.released.len())
    }

    /// See [`crate::stock::StockStore::reserve`].
    pub fn reserve(&mut self, request: &ReserveRequest, now: Timestamp) -> ReserveReply {
        let ReserveRequest { id, quantity, hint, .. } = *request;
        let deadline = now.plus(request.ttl.duration());
        // Holds come first: after a clock has jumped back, a marker that was over when the hold was made is alive again.
        if let Some(held) = self.holds.get(&id).copied() {
            if hint && held.deadline <= now {
                return ReserveReply::Overdue;
            }
            return if held.quantity == quantity {
                let lengthened = self.lengthen(id, held, deadline);
                self.held_reply(lengthened)
            } else {
                ReserveReply::Mismatch
            };
        }
        if let Some(held) = self.confirmed.get(id, now).copied() {
            return if held.quantity == quantity { self.held_reply(held) } else { ReserveReply::Mismatch };
        }
        if self.released.get(id, now).is_some() {
            return ReserveReply::Released;
        }
        if self.numbers.available < quantity.get() {
            return ReserveReply::Insufficient { remaining: self.numbers.available };
        }
        let (Some(numbers), Some(number)) = (self.numbers.reserved(quantity.get()), self.last_number.checked_add(1))
        else {
            return ReserveReply::NotOpen;
        };
        let held = HeldUnits { quantity, number, deadline };
        self.numbers = numbers;
        self.last_number = number;
        self.holds.insert(id, held);
        self.due.insert((deadline, id));
        self.released.remove(id);
        self.held_reply(held)
    }

    /// See [`crate::stock::StockStore::confirm`].
    pub fn confirm(&mut self, id: ReservationId, stamp: &Stamp, now: Timestamp) -> ConfirmReply {
        if stamp.epoch < self.epoch {
            return ConfirmReply::Superseded;
        }
        if stamp.epoch > self.epoch {
            return ConfirmReply::NotOpen;
        }
        let Some(held) = self.holds.get(&id).copied().filter(|held| held.number == stamp.number) else {
            return ConfirmReply::AlreadyDone;
        };
        let Some(numbers) = self.numbers.confirmed(held.quantity.get()) else {
            return ConfirmReply::NotOpen;
        };
        self.numbers = numbers;
        self.drop_hold(id, held);
        self.confirmed.put(id, held, now.plus(Duration::from_secs(CONFIRMED_MARKER_SECONDS)), now);
        ConfirmReply::Confirmed
    }

    /// See [`crate::stock::StockStore::release`].
    pub fn release(&mut self, id: ReservationId, stamp: &Stamp, marker: bool, now: Timestamp) -> ReleaseReply {
        let names_a_hold = stamp.number != 0;
        if names_a_hold && stamp.epoch != self.epoch {
            return ReleaseReply::Superseded;
        }
        let reply = match self.holds.get(&id).copied() {
            // Numbers start at 1: a stamp that names no hold is none's.
            Some(held) if held.number == stamp.number => {
                let Some(numbers) = self.numbers.released(held.quantity.get()) else {
                    return ReleaseReply::NotOpen;
                };
                self.numbers = numbers;
                self.drop_hold(id, held);
                ReleaseReply::Released
            }
            // Nobody asked for a verdict on this hold. It stays, and a marker would hide it.
            Some(_) => return ReleaseReply::Absent,
            None => ReleaseReply::Absent,
        };
        // What was confirmed is an order: its reserve is to find it.
        if marker && self.confirmed.get(id, now).is_none() {
            self.released.put(id, (), now.plus(Duration::from_secs(RELEASE_MARKER_SECONDS)), now);
        }
        reply
    }

    /// See [`crate::stock::StockStore::restock`].
    pub fn restock(&mut self, id: Uuid, quantity: Quantity, epoch: Epoch) -> RestockReply {
        if epoch > self.epoch {
            return RestockReply::NotOpen;
        }
        if epoch == self.epoch && !self.restocks.contains(&id) {
            let Some(numbers) = self.numbers.restocked(quantity.get()) else {
                return RestockReply::NotOpen;
            };
            if self.restocks.len() >= RESTOCKS_PER_LEASE_MAX {
                return RestockReply::NotOpen;
            }
            self.numbers = numbers;
            self.restocks.insert(id);
        }
        RestockReply::Counted { available: self.numbers.available }
    }

    fn stamp(&self, number: i64) -> Stamp {
        Stamp { item: self.item.clone(), epoch: self.epoch, number }
    }

    fn held_reply(&self, held: HeldUnits) -> ReserveReply {
        ReserveReply::Held {
            stamp: self.stamp(held.number),
            remaining: self.numbers.available,
            deadline: held.deadline,
        }
    }

    fn lengthen(&mut self, id: ReservationId, held: HeldUnits, deadline: Timestamp) -> HeldUnits {
        if deadline <= held.deadline {
            return held;
        }
        let lengthened = HeldUnits { deadline, ..held };
        self.holds.insert(id, lengthened);
        self.due.remove(&(held.deadline, id));
        self.due.insert((deadline, id));
        lengthened
    }

    fn drop_hold(&mut self, id: ReservationId, held: HeldUnits) {
        self.holds.remove(&id);
        self.due.remove(&(held.deadline, id));
    }
}
