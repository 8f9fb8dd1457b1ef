//! What callers can ask: hold units, give them back, count units in, read. Over the stock store, which may have lost
//! everything, and the ledger, which has not.

use contracts::{
    Failure, Reason,
    values::{Epoch, Item, ReservationId, Stamp, Timestamp},
};
use service::{
    call::Call,
    planted::{self, Bug},
};

use crate::{
    backend::Backend,
    ledger::{Restock, Verdict},
    metrics::ReservationOutcome,
    opener::Opener,
    stock::{ReserveReply, ReserveRequest, RestockReply, StockReply},
};

/// The least epoch that an item can be open at.
pub const FIRST_EPOCH: Epoch = Epoch(1);
/// How often a step is tried on an item that turns out not to be open. Each failed try was followed by an opening that
/// ended well, so more than two mean that the store loses its data faster than it is asked.
pub const STEP_ATTEMPTS_MAX: u32 = 4;

/// Answer to a reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// The units are held.
    Held {
        /// The hold.
        stamp: Stamp,
        /// Units still free.
        remaining: i64,
        /// When it is due.
        deadline: Timestamp,
    },
    /// Fewer units are free than asked for. Nothing was written anywhere.
    Insufficient {
        /// Units free.
        remaining: i64,
    },
}

/// Holds, and the units they are made of.
#[derive(Clone)]
pub struct Reservations {
    backend: Backend,
    opener: Opener,
}

impl Reservations {
    /// Over this store and this ledger.
    pub fn new(backend: Backend, opener: Opener) -> Self {
        Self { backend, opener }
    }

    /// Sets units aside, at most once per id. `RESERVATION_RELEASED`, `RESERVATION_CONFIRMED` or `RESERVATION_MISMATCH`
    /// if the store knows that the id is spent. If it does not, the commit of an order on the hold finds out.
    pub async fn reserve(&self, call: &Call, request: &ReserveRequest) -> Result<Reserved, Failure> {
        let result = self.try_reserve(call, request).await;
        self.count(&result);
        result
    }

    /// The same under an id that a client brings, who relies on the answer: no id that the ledger has judged is answered.
    /// The store forgets with every lease which are.
    pub async fn reserve_unjudged(&self, call: &Call, request: &ReserveRequest) -> Result<Reserved, Failure> {
        let result = self.try_reserve_unjudged(call, request).await;
        self.count(&result);
        result
    }

    async fn try_reserve_unjudged(&self, call: &Call, request: &ReserveRequest) -> Result<Reserved, Failure> {
        let reserved = self.try_reserve(call, request).await?;
        // Not before: a verdict given between the two would be missed.
        match self.backend.verdict_on(call, request.id, None).await? {
            Verdict::Unknown => Ok(reserved),
            Verdict::Confirmed | Verdict::ConfirmedElsewhere | Verdict::Aborted => Err(self.ended(call, request).await),
        }
    }

    /// What became of an id that can be held no more; a hold of it that is no order is given back.
    async fn ended(&self, call: &Call, request: &ReserveRequest) -> Failure {
        match self.release(call, request.id, Some(&request.item)).await {
            Ok(()) => Failure::of(Reason::ReservationReleased),
            Err(failure) => failure,
        }
    }

    fn count(&self, result: &Result<Reserved, Failure>) {
        let outcome = match result {
            Ok(Reserved::Held { .. }) => ReservationOutcome::Held,
            Ok(Reserved::Insufficient { .. }) => ReservationOutcome::Insufficient,
            Err(failure) if failure.reason == Reason::ReservationReleased => ReservationOutcome::Released,
            Err(failure) if failure.reason == Reason::ReservationMismatch => ReservationOutcome::Mismatch,
            Err(failure) if failure.reason == Reason::ReservationConfirmed => ReservationOutcome::Confirmed,
            Err(_) => ReservationOutcome::Unavailable,
        };
        self.backend.metrics.reservation(outcome);
    }

    async fn try_reserve(&self, call: &Call, request: &ReserveRequest) -> Result<Reserved, Failure> {
        let mut least = request.least_epoch.max(FIRST_EPOCH);
        for _ in 0..STEP_ATTEMPTS_MAX {
            match self.backend.step(call, self.backend.store.reserve(request)).await? {
                ReserveReply::Held { stamp, remaining, deadline } => {
                    return Ok(Reserved::Held { stamp, remaining, deadline });
                }
                ReserveReply::Insufficient { remaining } => return Ok(Reserved::Insufficient { remaining }),
                ReserveReply::Released => return Err(Failure::of(Reason::ReservationReleased)),
                ReserveReply::Mismatch => return Err(Failure::of(Reason::ReservationMismatch)),
                // What the reaper will do; so the answer is the same before it comes and after.
                ReserveReply::Overdue => return Err(self.ended(call, request).await),
                ReserveReply::NotOpen => {}
            }
            // Refusing needs no lease: a request that no lease could serve opens nothing.
            let free = self.backend.lent_of(call, &request.item).await?.free();
            if free < request.quantity.get() {
                return Ok(Reserved::Insufficient { remaining: free });
            }
            least = self.opener.open(call, &request.item, least).await?.next();
        }
        Err(never_open(&request.item))
    }

    /// Units free to reserve. Of an item that is not open: what a lease would have, which opens nothing.
    pub async fn available(&self, call: &Call, item: &Item) -> Result<i64, Failure> {
        match self.backend.step(call, self.backend.store.available(item)).await? {
            StockReply::Available(units) => Ok(units),
            StockReply::NotOpen => Ok(self.backend.lent_of(call, item).await?.free()),
        }
    }

    /// Gives a hold's units back, once the ledger has said that it can never become an order. With `item` an id that
    /// nobody knows is refused from now on, because its reserve may be on its way; without, it is
    /// `RESERVATION_NOT_FOUND` and nothing is written. An order is `RESERVATION_CONFIRMED`.
    pub async fn release(&self, call: &Call, id: ReservationId, item: Option<&Item>) -> Result<(), Failure> {
        let (item, hold) = match item {
            Some(item) => (item.clone(), self.backend.step(call, self.backend.store.hold(item, id)).await?),
            None => match self.backend.step(call, self.backend.store.find(id)).await? {
                Some(found) => (found.item, found.hold),
                None => return self.look_up(call, id).await,
            },
        };
        // A hold that appears after this look is not lost: the tombstone written now judges it when it is due.
        let present = hold.is_some();
        // Without a hold the stamp is one that no order can have.
        let stamp = hold.map_or(Stamp { item, epoch: Epoch::NONE, number: 0 }, |hold| hold.stamp);
        if planted::is(Bug::TombstoneAfterRelease) {
            self.backend.step(call, self.backend.store.release(id, &stamp, true)).await?;
        }
        let verdict = if planted::is(Bug::ReleaseWithoutVerdict) {
            Verdict::Aborted
        } else {
            self.backend.verdict_on(call, id, Some(stamp.clone())).await?
        };
        match verdict {
            Verdict::Aborted => {
                // Every reply is fine: an item that is not open, or is of another epoch, has nothing to give back.
                self.backend.step(call, self.backend.store.release(id, &stamp, true)).await?;
                Ok(())
            }
            Verdict::Confirmed => Err(Failure::of(Reason::ReservationConfirmed)),
            Verdict::ConfirmedElsewhere => {
                if present {
                    // Surplus. No marker: the id is an order, whose own hold must stay.
                    self.backend.step(call, self.backend.store.release(id, &stamp, false)).await?;
                }
                Err(Failure::of(Reason::ReservationConfirmed))
            }
            Verdict::Unknown => Err(Failure::internal("the ledger gave no verdict on a stamp")),
        }
    }

    /// A release of an id that the store does not know, and whose item nobody names.
    async fn look_up(&self, call: &Call, id: ReservationId) -> Result<(), Failure> {
        match self.backend.verdict_on(call, id, None).await? {
            Verdict::Unknown => Err(Failure::of(Reason::ReservationNotFound)),
            Verdict::Confirmed | Verdict::ConfirmedElsewhere => Err(Failure::of(Reason::ReservationConfirmed)),
            Verdict::Aborted => Ok(()),
        }
    }

    /// Counts units in, once per id, and answers what is free to reserve. `RESTOCK_MISMATCH` if the id is spent.
    ///
    /// The ledger journals first. A restock of an item that was never lent ends there: every lease to come counts it,
    /// so what is free is what the ledger says. Any other must reach the store: the item's newest lease was summed
    /// before the restock, and may be on its way to the store at this moment.
    pub async fn restock(&self, call: &Call, restock: &Restock) -> Result<i64, Failure> {
        let epoch = self.backend.journal(call, restock).await?;
        let Restock { id, item, quantity } = restock;
        let mut least = epoch;
        for _ in 0..STEP_ATTEMPTS_MAX {
            match self.backend.step(call, self.backend.store.restock(*id, item, *quantity, epoch)).await? {
                RestockReply::Counted { available } => return Ok(available),
                RestockReply::NotOpen if epoch == Epoch::NONE => {
                    return Ok(self.backend.lent_of(call, item).await?.free());
                }
                // Open, and still it does not take the restock: it has as many as it can remember. A newer lease counts all.
                RestockReply::NotOpen => least = self.opener.open(call, item, least).await?.next(),
            }
        }
        Err(never_open(item))
    }
}

pub(crate) fn never_open(item: &Item) -> Failure {
    Failure::unavailable(format!("{item} was not open after {STEP_ATTEMPTS_MAX} openings"))
}
