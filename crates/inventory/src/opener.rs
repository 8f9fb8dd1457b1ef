//! Opens an item: asks the ledger for a lease and loads it into the stock store. A lease is loaded at most once; when it
//! is in doubt whether it was, it is burnt, and the next one is above it. ARCHITECTURE.md, "Leases"; tests
//! `a_lost_load_burns_its_lease_and_the_next_one_is_above_it`, `a_load_whose_answer_is_lost_is_not_sent_again`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contracts::{
    Failure, Reason,
    values::{Epoch, Item, Lease},
};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use service::{
    call::Call,
    planted::{self, Bug},
};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{
    backend::Backend,
    ledger::OpenOutcome,
    metrics::LeaseOutcome,
    stock::{Incarnation, LoadReply},
};

/// Most items that are being opened at once; past it callers are told to come back.
pub const OPENINGS_MAX: usize = 1_024;
/// How often one opening looks at the store before it gives up. All of them wait for longer than the ledger leaves a
/// fresh lease of another instance alone.
pub const OPEN_ATTEMPTS_MAX: u32 = 16;
/// Wait between two looks, in milliseconds.
pub const OPEN_PAUSE_MS: u64 = 50;
/// How long one opening may take, in milliseconds, whoever waits for it.
pub const OPEN_TIMEOUT_MS: u64 = 3_000;
/// How long a load may take, in milliseconds. Then its lease is burnt.
pub const LOAD_TIMEOUT_MS: u64 = 1_000;

type Flight = Shared<BoxFuture<'static, Result<Epoch, Failure>>>;

/// Opens items, one request at a time for each. Clones share the work.
#[derive(Clone)]
pub struct Opener {
    backend: Backend,
    flights: Arc<Flights>,
}

impl Opener {
    /// For the items of this store.
    pub fn new(backend: Backend) -> Self {
        Self { backend, flights: Arc::default() }
    }

    /// Makes sure that the item was open at `least` or above a moment ago, and answers the epoch; the caller asks the store
    /// again. If it is refused again although the item is open, a hand has changed what no open check can see: then only
    /// a lease above that epoch helps. If the item is being opened already, this waits for that, even if it was begun
    /// for a lower epoch.
    pub async fn open(&self, call: &Call, item: &Item, least: Epoch) -> Result<Epoch, Failure> {
        let flight = self.join(call, item, least)?;
        call.bounded(&self.backend.env, flight).await
    }

    fn join(&self, call: &Call, item: &Item, least: Epoch) -> Result<Flight, Failure> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(item) {
            return Ok(flight.clone());
        }
        if flights.len() >= OPENINGS_MAX {
            return Err(Failure::of(Reason::Overloaded).because(format!("{OPENINGS_MAX} items are being opened")));
        }
        let (done, result) = oneshot::channel();
        let flight = result.map(|r| r.unwrap_or_else(|_| Err(Failure::unavailable("an opening was given up"))));
        let flight = flight.boxed().shared();
        flights.insert(item.clone(), flight.clone());
        drop(flights);

        // A task of its own: a caller that hangs up between the grant and the load would burn the lease.
        let landing = Landing { flights: self.flights.clone(), item: item.clone() };
        let (backend, item, request_id) = (self.backend.clone(), item.clone(), call.request_id.clone());
        let task = async move {
            let call = Call::new(&*backend.env, Duration::from_millis(OPEN_TIMEOUT_MS), request_id);
            let result = open(&backend, &call, &item, least).await;
            // First out of the map, so that whoever is not content with the result starts another.
            drop(landing);
            // Nobody waiting is no error.
            let _ = done.send(result);
        };
        self.backend.env.start(Box::pin(task.in_current_span()));
        Ok(flight)
    }
}

/// The openings under way.
#[derive(Default)]
struct Flights(Mutex<HashMap<Item, Flight>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Item, Flight>> {
        // The map is whole after each statement, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes an opening out of the map, also when its task dies.
struct Landing {
    flights: Arc<Flights>,
    item: Item,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.item);
    }
}

async fn open(backend: &Backend, call: &Call, item: &Item, least: Epoch) -> Result<Epoch, Failure> {
    // The highest epoch known to be of no use: what is below `least`, what the store has, what was burnt here.
    let mut dead = Epoch((least.0 - 1).max(0));
    for attempt in 0..OPEN_ATTEMPTS_MAX {
        if attempt > 0 {
            backend.env.sleep(backend.env.jittered(Duration::from_millis(OPEN_PAUSE_MS))).await;
        }
        let probe = backend.step(call, backend.store.probe(item)).await?;
        if probe.open && probe.stored >= least {
            return Ok(probe.stored);
        }
        dead = dead.max(probe.stored);
        let above = if planted::is(Bug::EpochNotAboveStore) { Epoch::NONE } else { dead };
        match backend.lease(call, item, above).await? {
            OpenOutcome::Wait => backend.metrics.lease(LeaseOutcome::Waited),
            OpenOutcome::Lease(granted) => {
                let epoch = granted.epoch;
                // The load names the life of the store that was looked at before asking: a late one lands in no other.
                if load(backend, granted, probe.incarnation).await {
                    return Ok(epoch);
                }
                dead = dead.max(epoch);
            }
        }
    }
    Err(Failure::unavailable(format!("{item} did not open in {OPEN_ATTEMPTS_MAX} attempts")))
}

/// Takes the lease, so that it cannot be loaded again. False if it is burnt.
async fn load(backend: &Backend, lease: Lease, incarnation: Incarnation) -> bool {
    let limit = Duration::from_millis(LOAD_TIMEOUT_MS);
    let mut sent = backend.env.timeout(limit, backend.store.load(&lease, &incarnation)).await;
    if planted::is(Bug::LeaseSentTwice) && !matches!(sent, Ok(Ok(_))) {
        sent = backend.env.timeout(limit, backend.store.load(&lease, &incarnation)).await;
    }
    let cause = match sent {
        Ok(Ok(LoadReply::Loaded)) => {
            backend.metrics.lease(LeaseOutcome::Opened);
            tracing::debug!(item = %lease.item, epoch = %lease.epoch, "item opened");
            return true;
        }
        Ok(Ok(LoadReply::Refused)) => "refused".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(timed_out) => timed_out.to_string(),
    };
    backend.metrics.lease(LeaseOutcome::Burnt);
    tracing::warn!(item = %lease.item, epoch = %lease.epoch, cause, "lease burnt");
    false
}
