//! The use case: hold the stock, commit the order, and answer so that every repeat of the request answers the same.
//! ARCHITECTURE.md, "Place an order", walks through it.

use std::sync::Arc;

use contracts::{
    Failure, Reason,
    values::{Epoch, Item, Quantity, ReservationId, Stamp, Ttl},
};
use service::{
    call::Call,
    environment::Env,
    planted::{self, Bug},
    telemetry,
};

use crate::{
    attempt::{Identity, fingerprint, reservation_id},
    committer::Committer,
    inventory::{Inventory, Reserve, Reserved},
    ledger::{CommitOutcome, Fingerprint, KeyedOrder, Ledger, NewOrder, Order, RequestKey},
};

/// How many new leases a request lives through before it is told to come back.
pub const FENCES_MAX: u32 = 3;

/// An order to place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What to buy.
    pub item: Item,
    /// Units.
    pub quantity: Quantity,
    /// What makes two requests the same.
    pub identity: Identity,
    /// A client's hold that shall become the order.
    pub reservation: Option<ReservationId>,
}

/// An order that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The order.
    pub order: Order,
    /// Whether an earlier request had placed it.
    pub replayed: bool,
}

/// Places orders.
#[derive(Clone)]
pub struct PlaceOrder {
    env: Env,
    ledger: Arc<dyn Ledger>,
    inventory: Arc<dyn Inventory>,
    committer: Committer,
    /// Life of the holds of orders under way.
    hold_ttl: Ttl,
}

/// One request on its way.
struct Run<'a> {
    placement: &'a Placement,
    call: &'a Call,
    fingerprint: Fingerprint,
    attempt: u32,
    fences: u32,
    least_epoch: Epoch,
}

/// What became of one attempt.
enum Step {
    Done(Placed),
    /// Under the next attempt number, or the same hold again.
    Again,
}

impl PlaceOrder {
    /// Over these ports.
    pub fn new(
        env: Env,
        ledger: Arc<dyn Ledger>,
        inventory: Arc<dyn Inventory>,
        committer: Committer,
        hold_ttl: Ttl,
    ) -> Self {
        Self { env, ledger, inventory, committer, hold_ttl }
    }

    /// Places an order in a task of its own: a caller that hangs up does not stop it half way.
    pub async fn place(&self, placement: Placement, call: Call) -> Result<Placed, Failure> {
        let this = self.clone();
        let env = self.env.clone();
        let work = async move { this.run(&placement, &call).await };
        if planted::is(Bug::CancelledWithCaller) {
            return work.await;
        }
        env.detached(work).await.unwrap_or_else(|| Err(Failure::internal("placing the order panicked")))
    }

    async fn run(&self, placement: &Placement, call: &Call) -> Result<Placed, Failure> {
        let fingerprint = fingerprint(&placement.item, placement.quantity, placement.reservation);
        let mut run = Run { placement, call, fingerprint, attempt: 0, fences: 0, least_epoch: Epoch::NONE };
        // Otherwise a repeat is a proxy's, and rare: it is found at the commit.
        if (run.is_keyed() || placement.reservation.is_some())
            && let Some(placed) = self.replay(&run).await?
        {
            return Ok(placed);
        }
        // Bounded by the deadline alone: however many ids of a key are dead, the key is not.
        loop {
            call.check(&*self.env)?;
            match self.attempt(&mut run).await? {
                Step::Done(placed) => return Ok(placed),
                Step::Again => {}
            }
        }
    }

    /// One hold and one try to commit it.
    async fn attempt(&self, run: &mut Run<'_>) -> Result<Step, Failure> {
        let id = run.reservation_id();
        match self.reserve(run, id).await? {
            Reserved::Held(stamp) => self.commit(run, id, stamp).await,
            // This request's own repeat, or an earlier life of this process, may have sold the last units to it.
            Reserved::Insufficient { remaining } => match self.replay(run).await? {
                Some(placed) => Ok(Step::Done(placed)),
                None => Err(Failure::insufficient(remaining)),
            },
            Reserved::Released => run.dead_id(),
            Reserved::Mismatch if run.placement.reservation.is_some() => Err(Failure::of(Reason::ReservationMismatch)),
            Reserved::Mismatch => Err(Failure::internal(format!("derived id {id} is a hold of something else"))),
            Reserved::Confirmed => self.sold_before(run).await,
        }
    }

    async fn commit(&self, run: &mut Run<'_>, id: ReservationId, stamp: Stamp) -> Result<Step, Failure> {
        run.call.check(&*self.env)?;
        let placement = run.placement;
        let epoch = stamp.epoch;
        let order = NewOrder {
            id,
            stamp,
            quantity: placement.quantity,
            key: Some((run.request_key(), run.fingerprint)),
            created_at: self.env.now(),
            traceparent: telemetry::traceparent(),
        };
        let committed = self.committer.commit(&order).await;
        if planted::is(Bug::ReleaseOnDoubt) && committed.is_err() {
            self.give_back(run, id).await;
            return run.dead_id();
        }
        match committed? {
            CommitOutcome::Created(order) => Ok(Step::Done(Placed { order, replayed: false })),
            CommitOutcome::Existing(_) if placement.reservation.is_some() => self.sold_before(run).await,
            CommitOutcome::Existing(order) => Ok(Step::Done(run.repeated(order))),
            CommitOutcome::OtherContent if placement.reservation.is_some() => {
                Err(Failure::of(Reason::ReservationMismatch))
            }
            CommitOutcome::OtherContent => Err(Failure::internal(format!("derived id {id} is another order"))),
            CommitOutcome::Aborted => {
                self.give_back(run, id).await;
                run.dead_id()
            }
            CommitOutcome::KeyTaken(taken) => {
                if placement.reservation.is_none() {
                    self.give_back(run, id).await;
                }
                run.answer(taken).map(Step::Done)
            }
            CommitOutcome::Fenced(newest) => run.fenced(epoch, newest),
        }
    }

    /// The order that this request made before, if there is one.
    async fn replay(&self, run: &Run<'_>) -> Result<Option<Placed>, Failure> {
        // The hold first: if it is an order by now, the key that has it is seen afterwards.
        let sold = match run.placement.reservation {
            Some(hold) => self.ledger.order_of_hold(hold).await?,
            None => None,
        };
        if let Some(taken) = self.ledger.order_by_key(&run.request_key()).await? {
            return run.answer(taken).map(Some);
        }
        match sold {
            None => Ok(None),
            Some(order) if !run.has_content(&order) => Err(Failure::of(Reason::ReservationMismatch)),
            // It is an order under another key: this key has none, and must not name that one.
            Some(_) if run.is_keyed() => Err(Failure::of(Reason::ReservationConfirmed)),
            // Without a key, the hold names the order.
            Some(order) => Ok(Some(run.repeated(order))),
        }
    }

    /// A client's hold turned out to be an order already.
    async fn sold_before(&self, run: &Run<'_>) -> Result<Step, Failure> {
        let placed = self.replay(run).await?;
        placed
            .map(Step::Done)
            .ok_or_else(|| Failure::internal("a reservation is an order that the ledger does not have"))
    }

    async fn reserve(&self, run: &Run<'_>, id: ReservationId) -> Result<Reserved, Failure> {
        let request = Reserve {
            id,
            item: run.placement.item.clone(),
            quantity: run.placement.quantity,
            ttl: self.hold_ttl,
            least_epoch: run.least_epoch,
        };
        self.inventory.reserve(run.call, &request).await
    }

    /// Frees the hold of an id that will not become this order. When it fails the reaper does it.
    async fn give_back(&self, run: &Run<'_>, id: ReservationId) {
        if let Err(failure) = self.inventory.release(run.call, id, &run.placement.item).await {
            tracing::debug!(%id, %failure, "a surplus hold is left to the reaper");
        }
    }
}

impl Run<'_> {
    fn reservation_id(&self) -> ReservationId {
        self.placement
            .reservation
            .unwrap_or_else(|| reservation_id(&self.placement.identity, &self.fingerprint, self.attempt))
    }

    /// The id is aborted or released. Not counted as a fence: nothing is wrong with the lease.
    fn dead_id(&mut self) -> Result<Step, Failure> {
        if self.placement.reservation.is_some() {
            return Err(Failure::of(Reason::ReservationReleased));
        }
        self.attempt += 1;
        Ok(Step::Again)
    }

    /// The hold's lease is no longer the newest. A hold of a client is made again under its own id.
    fn fenced(&mut self, held: Epoch, newest: Epoch) -> Result<Step, Failure> {
        self.fences += 1;
        if self.fences > FENCES_MAX {
            return Err(Failure::unavailable(format!("fenced {} times, last at {held} by {newest}", self.fences)));
        }
        self.least_epoch = newest.max(held.next());
        self.attempt += 1;
        Ok(Step::Again)
    }

    fn is_keyed(&self) -> bool {
        matches!(self.placement.identity, Identity::Key(_))
    }

    fn request_key(&self) -> RequestKey {
        self.placement.identity.request_key(&self.fingerprint)
    }

    fn has_content(&self, order: &Order) -> bool {
        order.item == self.placement.item && order.quantity == self.placement.quantity
    }

    /// An order that stood before. A repeat of an attempt id is the proxy's doing: to the client it is the first answer.
    fn repeated(&self, order: Order) -> Placed {
        Placed { order, replayed: self.is_keyed() || self.placement.reservation.is_some() }
    }

    fn answer(&self, taken: KeyedOrder) -> Result<Placed, Failure> {
        if taken.fingerprint == self.fingerprint || planted::is(Bug::FingerprintIgnored) {
            Ok(self.repeated(taken.order))
        } else {
            Err(Failure::of(Reason::IdempotencyKeyReused))
        }
    }
}
