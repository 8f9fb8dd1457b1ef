//! What breaks, how often, and how often it did. A seed switches a random part of the kinds on, each at a rate of its own.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use service::manual::Dice;
use tokio_util::sync::CancellationToken;

use crate::executor::Executor;

/// What may happen to a message, a call or a step, and how often at most, in a thousand.
const STRIKES: [(&str, u64); 21] = [
    ("message lost", 60),
    ("message late", 150),
    ("message twice", 80),
    ("answer lost", 60),
    ("caller hangs up", 150),
    ("ledger fails before", 60),
    ("ledger fails after", 60),
    ("ledger slow", 10),
    ("commit late", 150),
    ("stock command lost", 15),
    ("stock answer lost", 15),
    ("stock command late", 15),
    ("stock command twice", 15),
    ("stock slow", 10),
    ("load in doubt", 500),
    ("broker fails before", 80),
    ("broker fails after", 80),
    ("broker slow", 30),
    ("confirm lost", 150),
    ("event twice", 150),
    ("event refused", 100),
];

/// What may happen to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disaster {
    /// A service process dies between two polls and comes back.
    Crash,
    /// A service process stands still for a while.
    Freeze,
    /// A service process is told to end, and comes back.
    Stop,
    /// The ledger answers nobody for a while; what was under way is undone.
    LedgerDown,
    /// The stock store loses all, with or without a restart.
    StockWiped,
    /// The stock store begins anew with its data.
    StockRestarted,
    /// The stock store is as it was some commands ago.
    StockRolledBack,
    /// A replica takes over; the old primary may serve on.
    StockFailedOver,
    /// The old primary takes over again.
    StockFailedBack,
    /// A hand changes a value in the stock store.
    StockEdited,
    /// The stock store forgets its scripts.
    ScriptsFlushed,
    /// The broker answers nobody for a while.
    BrokerDown,
    /// Connections to the broker are cut.
    BrokerCut,
    /// The queue is gone, with what waits in it.
    QueueDeleted,
    /// A wall clock jumps, by up to hours.
    ClockJumped,
}

impl Disaster {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Crash,
        Self::Freeze,
        Self::Stop,
        Self::LedgerDown,
        Self::StockWiped,
        Self::StockRestarted,
        Self::StockRolledBack,
        Self::StockFailedOver,
        Self::StockFailedBack,
        Self::StockEdited,
        Self::ScriptsFlushed,
        Self::BrokerDown,
        Self::BrokerCut,
        Self::QueueDeleted,
        Self::ClockJumped,
    ];

    /// As it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Freeze => "freeze",
            Self::Stop => "stop",
            Self::LedgerDown => "ledger down",
            Self::StockWiped => "stock wiped",
            Self::StockRestarted => "stock restarted",
            Self::StockRolledBack => "stock rolled back",
            Self::StockFailedOver => "stock failed over",
            Self::StockFailedBack => "stock failed back",
            Self::StockEdited => "stock edited",
            Self::ScriptsFlushed => "scripts flushed",
            Self::BrokerDown => "broker down",
            Self::BrokerCut => "broker cut",
            Self::QueueDeleted => "queue deleted",
            Self::ClockJumped => "clock jumped",
        }
    }
}

/// What breaks in a run.
pub struct Faults {
    executor: Executor,
    rates: Mutex<BTreeMap<&'static str, u64>>,
    disasters: Vec<Disaster>,
    /// Between two disasters, at most.
    interval: Duration,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    changes: Mutex<u64>,
    /// Told to all that wait only because of a fault.
    healed: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// Of the seed whose dice these are; with those that are needed.
    pub fn draw(executor: &Executor, dice: &mut Dice, any: bool, needed: &[Disaster]) -> Self {
        let mut rates = BTreeMap::new();
        for (kind, per_mille_max) in STRIKES {
            let on = dice.below(3) == 0;
            let rate = 1 + dice.below(per_mille_max);
            if on && any {
                rates.insert(kind, rate);
            }
        }
        let mut disasters: Vec<Disaster> =
            Disaster::ALL.into_iter().filter(|it| dice.below(3) == 0 || needed.contains(it)).collect();
        if !any {
            disasters.clear();
        }
        let interval = Duration::from_millis(100 + dice.below(900));
        Self {
            executor: executor.clone(),
            rates: Mutex::new(rates),
            disasters,
            interval,
            counts: Mutex::default(),
            changes: Mutex::default(),
            healed: CancellationToken::new(),
        }
    }

    /// Whether this one is hit, which is counted.
    pub fn strike(&self, kind: &'static str) -> bool {
        let rate = lock(&self.rates).get(kind).copied().unwrap_or(0);
        let hit = self.executor.chance(rate);
        if hit {
            self.count(kind);
        }
        hit
    }

    /// One more.
    pub fn count(&self, kind: &'static str) {
        self.executor.note("fault", || kind.to_owned());
        *lock(&self.counts).entry(kind).or_default() += 1;
        self.change();
    }

    /// The next disaster and how long until then.
    pub fn next(&self) -> Option<(Duration, Disaster)> {
        let drawn = self.executor.below(self.disasters.len().max(1) as u64);
        let disaster = *self.disasters.get(usize::try_from(drawn).ok()?)?;
        let micros = u64::try_from(self.interval.as_micros()).ok()?;
        Some((Duration::from_micros(1 + self.executor.below(micros)), disaster))
    }

    /// Something changed that no service did.
    pub fn change(&self) {
        *lock(&self.changes) += 1;
    }

    /// Grows with every fault, and with whatever else changes something that no service did.
    pub fn done(&self) -> u64 {
        *lock(&self.changes)
    }

    /// So far, by kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Waits so long, or until all is healed.
    pub async fn delay(&self, duration: Duration) {
        tokio::select! {
            biased;
            () = self.healed.cancelled() => {}
            () = self.executor.sleep(duration) => {}
        }
    }

    /// Waits until all is healed.
    pub async fn until_healed(&self) {
        self.healed.cancelled().await;
    }

    /// Whether [`Self::heal`] was called.
    pub fn is_healed(&self) -> bool {
        self.healed.is_cancelled()
    }

    /// Nothing is hit any more.
    pub fn heal(&self) {
        lock(&self.rates).clear();
        self.healed.cancel();
    }
}
