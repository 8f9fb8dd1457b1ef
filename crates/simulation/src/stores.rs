//! The stores that all processes share, and what befalls them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use broker::{Broker, queues};
use inventory::stock::{
    StockStore,
    redis::{RedisStock, keys::Spread},
};
use order::ledger::Ledger;
use service::{environment::Env, manual::Dice};

use crate::{
    broker::{self as messages, Publishing, SimBroker},
    environment::SimEnvironment,
    executor::{Executor, Kind, ProcessId},
    faults::{Disaster, Faults},
    ledger::{Database, Fate, Fates, SimLedger},
    process::Cluster,
    redis::{
        Delivery, Redis, SimWire,
        wire::{Hook, Pause},
    },
    workload::ITEMS,
};

/// Longest that a step of a store takes when nothing is wrong, in microseconds.
const STEP_MICROS_MAX: u64 = 300;
/// Longest that a slow one takes.
const SLOW_MICROS_MAX: u64 = 3_000_000;
/// Latest that a late command arrives, in microseconds.
const LATE_MICROS_MAX: u64 = 3_000_000;
/// Longest that nothing is heard of a load, in microseconds: less than is waited for it.
const DOUBT_MICROS_MAX: u64 = 450_000;
/// Furthest that a hand raises an item's epoch.
const EPOCHS_MAX: u64 = 1_000;
/// Most operations that the stock store forgets at once.
const LOST_OPERATIONS_MAX: u64 = 12;

/// All of them.
pub struct Stores {
    database: Arc<Database>,
    redis: Arc<Redis>,
    executor: Executor,
    faults: Arc<Faults>,
    /// Of the processes that live.
    wires: Mutex<BTreeMap<ProcessId, Arc<SimWire>>>,
    dice: Mutex<Dice>,
    ledger_down: Arc<AtomicBool>,
    broker: Arc<messages::Server>,
    /// Each process' connection to it.
    connections: Mutex<BTreeMap<ProcessId, Arc<SimBroker>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stores {
    /// Empty. `ledger` and `stock` are the servers whose clocks they have.
    pub fn new(
        executor: &Executor,
        faults: &Arc<Faults>,
        dice: &mut Dice,
        (ledger, stock): (ProcessId, ProcessId),
    ) -> Self {
        let clock = SimEnvironment::of(executor, stock, Kind::Network);
        let redis = Redis::new(dice.below(u64::MAX), Arc::new(move || clock.now().0));
        let server = SimEnvironment::of(executor, ledger, Kind::Network);
        Self {
            database: Database::new(server, pause(executor, faults, "ledger slow")),
            redis,
            executor: executor.clone(),
            faults: faults.clone(),
            wires: Mutex::default(),
            dice: Mutex::new(Dice::new(dice.below(u64::MAX))),
            ledger_down: Arc::default(),
            broker: messages::Server::new(),
            connections: Mutex::default(),
        }
    }

    /// The order services' database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The stock store's servers.
    pub fn redis(&self) -> &Arc<Redis> {
        &self.redis
    }

    /// An order process' way to the ledger.
    pub fn ledger(&self, env: Env) -> Arc<dyn Ledger> {
        let (faults, down) = (self.faults.clone(), self.ledger_down.clone());
        let executor = self.executor.clone();
        let fates: Fates = Arc::new(move |method| {
            if down.load(Ordering::Relaxed) {
                Fate::Down
            } else if faults.strike("ledger fails before") {
                Fate::LostBefore
            } else if faults.strike("ledger fails after") {
                Fate::LostAfter
            } else if method == "ledger: commit" && faults.strike("commit late") {
                Fate::Slow(Duration::from_micros(executor.below(SLOW_MICROS_MAX)))
            } else {
                Fate::Answered
            }
        });
        SimLedger::with_fates(self.database.clone(), env, fates)
    }

    /// An inventory process' way to the stock store.
    pub fn stock(&self, process: ProcessId, env: Env) -> Arc<dyn StockStore> {
        let pause = pause(&self.executor, &self.faults, "stock slow");
        let wire = SimWire::new(self.redis.clone(), env.clone(), pause, self.hook());
        lock(&self.wires).insert(process, wire.clone());
        RedisStock::over(wire, Spread::OneServer, env)
    }

    /// A process' way to the broker.
    pub fn broker(&self, process: ProcessId) -> Arc<dyn Broker> {
        let faults = self.faults.clone();
        let hook = Arc::new(move |_: &broker::Message| {
            if faults.strike("confirm lost") {
                Publishing::LoseConfirm
            } else if faults.strike("event twice") {
                Publishing::Twice
            } else if faults.strike("event refused") {
                Publishing::Refuse
            } else {
                Publishing::Pass
            }
        });
        let connection = SimBroker::new(self.broker.clone(), pause(&self.executor, &self.faults, "broker slow"), hook);
        if let Some(old) = lock(&self.connections).insert(process, connection.clone()) {
            old.cut();
        }
        connection
    }

    /// The broker's server.
    pub fn messages(&self) -> &messages::Server {
        &self.broker
    }

    /// What becomes of commands to the stock store.
    fn hook(&self) -> Hook {
        let (executor, faults, redis) = (self.executor.clone(), self.faults.clone(), self.redis.clone());
        Arc::new(move |_, once| {
            let late = || Duration::from_micros(executor.below(LATE_MICROS_MAX));
            if once && faults.strike("load in doubt") {
                Delivery::Silent(wipe_soon(&executor, &faults, &redis))
            } else if faults.strike("stock command lost") {
                Delivery::LoseBefore
            } else if faults.strike("stock answer lost") {
                Delivery::LoseAfter
            } else if faults.strike("stock command late") {
                Delivery::Late(late())
            } else if faults.strike("stock command twice") {
                Delivery::Twice(late())
            } else {
                Delivery::Pass
            }
        })
    }

    /// Lets a disaster happen to a store, if it can.
    pub fn strike(&self, cluster: &Arc<Cluster>, disaster: Disaster) -> bool {
        let (executor, redis) = (&self.executor, &self.redis);
        let operations = || usize::try_from(1 + executor.below(LOST_OPERATIONS_MAX)).expect("a few");
        match disaster {
            Disaster::LedgerDown => {
                self.ledger_down.store(true, Ordering::Relaxed);
                self.database.restart();
                cluster.later(|this| this.stores.ledger_down.store(false, Ordering::Relaxed));
            }
            Disaster::StockWiped => redis.wipe(executor.chance(500)),
            Disaster::StockRestarted => {
                redis.stop();
                cluster.later(|this| this.stores.redis.start());
            }
            Disaster::StockRolledBack => redis.roll_back(operations()),
            Disaster::StockFailedOver => {
                redis.fail_over(executor.chance(600), operations() - 1);
                self.find_primary(cluster);
            }
            Disaster::StockFailedBack => {
                redis.fail_back();
                self.find_primary(cluster);
            }
            // By a hand that means well: only a lease above it helps.
            Disaster::StockEdited if executor.chance(250) => {
                let item = ITEMS[usize::try_from(executor.below(ITEMS.len() as u64)).expect("an index")];
                if redis.figures(redis.primary(), item).is_none() {
                    return false;
                }
                let (key, by) = (format!("{{{item}}}:ledger"), (1 + executor.below(EPOCHS_MAX)).to_string());
                for field in ["epoch", "lease"] {
                    redis.command(redis.primary(), &["HINCRBY", &key, field, &by]);
                }
                executor.note("edit", || format!("epoch of {item} raised by {by}"));
            }
            Disaster::StockEdited => {
                let edit = redis.edit(&mut lock(&self.dice));
                let Some(edit) = edit else { return false };
                executor.note("edit", || edit);
            }
            Disaster::ScriptsFlushed => redis.flush_scripts(),
            Disaster::BrokerDown => {
                self.broker.down();
                cluster.later(|this| this.stores.broker.up());
            }
            Disaster::BrokerCut => {
                let connections: Vec<Arc<SimBroker>> = lock(&self.connections).values().cloned().collect();
                connections[cluster.draw(connections.len())].cut();
            }
            Disaster::QueueDeleted => {
                let queue = queues::order_created().name;
                // What is in it would be lost, as it would be with any broker.
                if self.broker.messages(&queue).is_none_or(|messages| !messages.is_empty()) {
                    return false;
                }
                self.broker.delete_queue(&queue);
            }
            Disaster::Crash | Disaster::Freeze | Disaster::Stop | Disaster::ClockJumped => {
                unreachable!("it happens to no store")
            }
        }
        true
    }

    /// Each process hears of the new primary some time.
    fn find_primary(&self, cluster: &Arc<Cluster>) {
        let processes: Vec<ProcessId> = lock(&self.wires).keys().copied().collect();
        for process in processes {
            cluster.later(move |this| this.stores.point(process));
        }
    }

    fn point(&self, process: ProcessId) {
        let wire = lock(&self.wires).get(&process).cloned();
        if let Some(wire) = wire {
            wire.point_at(None);
        }
    }

    /// All servers are up, and everybody uses the one primary.
    pub fn heal(&self) {
        self.ledger_down.store(false, Ordering::Relaxed);
        if !self.redis.is_up() {
            self.redis.start();
        }
        self.broker.up();
        let processes: Vec<ProcessId> = lock(&self.wires).keys().copied().collect();
        for process in processes {
            self.point(process);
        }
    }
}

/// Lets the stock store lose all, in the same life, soon before the pause that is answered is over.
fn wipe_soon(executor: &Executor, faults: &Arc<Faults>, redis: &Arc<Redis>) -> Duration {
    let before = Duration::from_micros(1 + executor.below(DOUBT_MICROS_MAX));
    let after = Duration::from_micros(1 + executor.below(DOUBT_MICROS_MAX / 20));
    let (faults, redis) = (faults.clone(), redis.clone());
    let work = async move {
        faults.delay(before).await;
        if !faults.is_healed() {
            faults.count(Disaster::StockWiped.name());
            redis.wipe(false);
        }
    };
    executor.start(ProcessId::WORLD, Kind::Faults, Box::pin(work));
    before + after
}

/// What a step takes: so others get their turn between any two.
fn pause(executor: &Executor, faults: &Arc<Faults>, slow: &'static str) -> Pause {
    let (executor, faults) = (executor.clone(), faults.clone());
    Arc::new(move |step| {
        executor.note(step, String::new);
        let micros_max = if faults.strike(slow) { SLOW_MICROS_MAX } else { STEP_MICROS_MAX };
        let micros = 1 + executor.below(micros_max);
        let faults = faults.clone();
        Box::pin(async move { faults.delay(Duration::from_micros(micros)).await })
    })
}
