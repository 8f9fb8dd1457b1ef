//! The memory store behind a door that the test can slam.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp};
use inventory::stock::{
    ConfirmReply, Counts, Found, Hold, Incarnation, LoadReply, Probe, ReleaseReply, ReserveReply, ReserveRequest,
    RestockReply, StockError, StockReply, StockStore, memory::MemoryStock,
};
use service::manual::Dice;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Longest pause of [`Pauses`], in turns of the runtime.
const PAUSE_TURNS_MAX: u64 = 8;

/// What happens to a load on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadFault {
    /// It never arrives; the sender gets an error.
    Lost,
    /// It arrives, and the sender gets an error.
    AnswerLost,
    /// It never arrives, and the sender hears nothing.
    Silent,
}

pub struct TestStore {
    inner: Arc<MemoryStock>,
    /// Every call fails.
    down: AtomicBool,
    /// Faults of the next loads, first to last.
    faults: Mutex<Vec<LoadFault>>,
    /// Every load that was sent.
    loads: Mutex<Vec<Lease>>,
    /// Restocks go one by one, and the test can hold them up.
    pub restocks: Semaphore,
    /// Before each step others may go on.
    pub pauses: Pauses,
}

/// Turns of others, as a seed has it; none without.
#[derive(Default)]
pub struct Pauses(Mutex<Option<Dice>>);

impl Pauses {
    pub fn seed(&self, seed: u64) {
        *self.0.lock().expect("whole") = Some(Dice::new(seed));
    }

    pub async fn pause(&self) {
        let turns = self.0.lock().expect("whole").as_mut().map_or(0, |dice| dice.below(PAUSE_TURNS_MAX));
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

impl TestStore {
    pub fn new(inner: Arc<MemoryStock>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            down: AtomicBool::new(false),
            faults: Mutex::default(),
            loads: Mutex::default(),
            restocks: Semaphore::new(1),
            pauses: Pauses::default(),
        })
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn fault_loads(&self, faults: &[LoadFault]) {
        *self.faults.lock().expect("whole") = faults.to_vec();
    }

    /// Epochs of the leases that were sent.
    pub fn loads(&self) -> Vec<i64> {
        self.loads.lock().expect("whole").iter().map(|lease| lease.epoch.0).collect()
    }

    async fn up(&self) -> Result<&MemoryStock, StockError> {
        self.pauses.pause().await;
        if self.down.load(Ordering::SeqCst) { Err(StockError("the test took it down".into())) } else { Ok(&self.inner) }
    }
}

#[async_trait]
impl StockStore for TestStore {
    async fn reserve(&self, request: &ReserveRequest) -> Result<ReserveReply, StockError> {
        self.up().await?.reserve(request).await
    }

    async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> Result<ConfirmReply, StockError> {
        self.up().await?.confirm(id, stamp).await
    }

    async fn release(&self, id: ReservationId, stamp: &Stamp, marker: bool) -> Result<ReleaseReply, StockError> {
        self.up().await?.release(id, stamp, marker).await
    }

    async fn restock(
        &self,
        id: Uuid,
        item: &Item,
        quantity: Quantity,
        epoch: Epoch,
    ) -> Result<RestockReply, StockError> {
        let _permit = self.restocks.acquire().await.expect("never closed");
        self.up().await?.restock(id, item, quantity, epoch).await
    }

    async fn available(&self, item: &Item) -> Result<StockReply, StockError> {
        self.up().await?.available(item).await
    }

    async fn find(&self, id: ReservationId) -> Result<Option<Found>, StockError> {
        self.up().await?.find(id).await
    }

    async fn hold(&self, item: &Item, id: ReservationId) -> Result<Option<Hold>, StockError> {
        self.up().await?.hold(item, id).await
    }

    async fn probe(&self, item: &Item) -> Result<Probe, StockError> {
        self.up().await?.probe(item).await
    }

    async fn load(&self, lease: &Lease, incarnation: &Incarnation) -> Result<LoadReply, StockError> {
        self.loads.lock().expect("whole").push(lease.clone());
        let fault = {
            let mut faults = self.faults.lock().expect("whole");
            if faults.is_empty() { None } else { Some(faults.remove(0)) }
        };
        match fault {
            None => self.up().await?.load(lease, incarnation).await,
            Some(LoadFault::Lost) => Err(StockError("lost".into())),
            Some(LoadFault::AnswerLost) => {
                self.up().await?.load(lease, incarnation).await?;
                Err(StockError("answer lost".into()))
            }
            Some(LoadFault::Silent) => std::future::pending().await,
        }
    }

    async fn due(&self) -> Result<Vec<Hold>, StockError> {
        self.up().await?.due().await
    }

    async fn open_items(&self, after: Option<&Item>) -> Result<Vec<(Item, Epoch)>, StockError> {
        self.up().await?.open_items(after).await
    }

    async fn counts(&self, item: &Item) -> Result<Option<Counts>, StockError> {
        self.up().await?.counts(item).await
    }

    async fn ping(&self) -> Result<(), StockError> {
        self.up().await?.ping().await
    }
}
