//! The services' processes: how each is put together over its ports, ends, and comes back with empty memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contracts::values::Ttl;
use inventory::{backend::Backend, grpc::InventoryGrpc, metrics::InventoryMetrics};
use order::{
    assembly::{OrderService, Ports},
    grpc::{ledger::LedgerApi, orders::OrderApi},
    metrics::OrderMetrics,
};
use prometheus_client::registry::Registry;
use service::environment::Env;
use tokio_util::sync::CancellationToken;

use crate::{
    awaits::{self, Place},
    environment::SimEnvironment,
    executor::{Executor, Kind, ProcessId},
    faults::Faults,
    peers::{InventoryPeer, LedgerPeer},
    ports::{Port, Ported},
    stores::Stores,
    watch::Watch,
};

/// Who answers calls in a process.
#[derive(Clone)]
pub enum Host {
    /// An order service.
    Order(Arc<OrderApi>, Arc<LedgerApi>),
    /// An inventory service.
    Inventory(Arc<InventoryGrpc>),
}

impl Host {
    /// Of its handlers.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Order(..) => Kind::OrderCall,
            Self::Inventory(_) => Kind::StockCall,
        }
    }

    /// `orders.v1.OrderService`.
    pub fn orders(&self) -> &OrderApi {
        match self {
            Self::Order(orders, _) => orders,
            Self::Inventory(_) => unreachable!("calls go to who serves them"),
        }
    }

    /// `orders.v1.LedgerService`.
    pub fn ledger(&self) -> &LedgerApi {
        match self {
            Self::Order(_, ledger) => ledger,
            Self::Inventory(_) => unreachable!("calls go to who serves them"),
        }
    }

    /// `inventory.v1.InventoryService`.
    pub fn inventory(&self) -> &InventoryGrpc {
        match self {
            Self::Order(..) => unreachable!("calls go to who serves them"),
            Self::Inventory(inventory) => inventory,
        }
    }
}

/// A life of a process.
#[derive(Default)]
struct Life {
    /// Not there while it takes no calls.
    host: Option<Host>,
    stop: CancellationToken,
}

/// What a cluster is made with.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Order services.
    pub orders: usize,
    /// Inventory services.
    pub inventories: usize,
    /// Units that an item starts with.
    pub default_stock: i64,
    /// Life of the holds of orders under way.
    pub hold_ttl: Ttl,
}

/// All processes and what is between them.
pub struct Cluster {
    pub(crate) executor: Executor,
    pub(crate) faults: Arc<Faults>,
    pub(crate) stores: Stores,
    pub(crate) watch: Arc<Watch>,
    sizes: Sizes,
    lives: Mutex<BTreeMap<ProcessId, Life>>,
    crashed: Mutex<BTreeMap<Place, u64>>,
    restarts: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Of processes that do not live yet.
    pub fn new(executor: Executor, faults: Arc<Faults>, stores: Stores, sizes: Sizes) -> Arc<Self> {
        Arc::new(Self {
            executor,
            faults,
            stores,
            sizes,
            watch: Arc::default(),
            lives: Mutex::default(),
            crashed: Mutex::default(),
            restarts: Mutex::default(),
        })
    }

    /// The order services.
    pub fn orders(&self) -> Vec<ProcessId> {
        (0..self.sizes.orders).map(|number| ProcessId(2 + number)).collect()
    }

    /// The inventory services.
    pub fn inventories(&self) -> Vec<ProcessId> {
        (0..self.sizes.inventories).map(|number| ProcessId(2 + self.sizes.orders + number)).collect()
    }

    /// All of them.
    pub fn services(&self) -> Vec<ProcessId> {
        [self.orders(), self.inventories()].concat()
    }

    /// Who takes calls there.
    pub fn host(&self, process: ProcessId) -> Option<Host> {
        lock(&self.lives).get(&process)?.host.clone()
    }

    /// How often each kind of task was crashed in what it was waiting in.
    pub fn crashed(&self) -> BTreeMap<Place, u64> {
        lock(&self.crashed).clone()
    }

    /// How often a process came back.
    pub fn restarts(&self) -> u64 {
        *lock(&self.restarts)
    }

    /// A process starts.
    pub fn boot(self: &Arc<Self>, process: ProcessId) {
        self.executor.begin(process);
        self.executor.note("boot", || format!("{process:?}"));
        let stop = CancellationToken::new();
        let is_order = process.0 < 2 + self.sizes.orders;
        let starts = if is_order { Kind::PlaceOrder } else { Kind::Work };
        let env = SimEnvironment::of(&self.executor, process, starts);
        let host =
            if is_order { self.boot_order(process, env, &stop) } else { self.boot_inventory(process, env, &stop) };
        if self.executor.life(process) > 1 {
            *lock(&self.restarts) += 1;
        }
        lock(&self.lives).insert(process, Life { host: Some(host), stop });
    }

    fn port(&self) -> Port {
        Port { executor: self.executor.clone(), faults: self.faults.clone(), watch: self.watch.clone() }
    }

    fn boot_order(self: &Arc<Self>, process: ProcessId, env: Env, stop: &CancellationToken) -> Host {
        let port = self.port();
        let ledger = Arc::new(Ported { port: port.clone(), inner: self.stores.ledger(env.clone()) });
        let broker = Arc::new(Ported { port: port.clone(), inner: self.stores.broker(process) });
        let inventory = Arc::new(InventoryPeer { cluster: self.clone(), env: env.clone(), port });
        let metrics = OrderMetrics::register(&mut Registry::default());
        let ports = Ports { env: env.clone(), ledger: ledger.clone(), inventory, broker };
        let service = OrderService::new(ports, self.sizes.hold_ttl, &metrics, stop);
        // In the order in which the service lists them.
        for (kind, task) in [Kind::Committer, Kind::Relay, Kind::Janitor].into_iter().zip(service.background) {
            self.executor.start(process, kind, task);
        }
        let orders = OrderApi::new(env, service.place_order, ledger.clone());
        Host::Order(Arc::new(orders), Arc::new(LedgerApi::new(ledger)))
    }

    fn boot_inventory(self: &Arc<Self>, process: ProcessId, env: Env, stop: &CancellationToken) -> Host {
        let port = self.port();
        let store = self.watch.store(self.stores.stock(process, env.clone()));
        let ledger = LedgerPeer { cluster: self.clone(), env: env.clone(), port: port.clone() };
        let broker = self.watch.broker(self.stores.broker(process));
        let backend = Backend {
            env: env.clone(),
            store: Arc::new(Ported { port: port.clone(), inner: store }),
            ledger: self.watch.ledger(Arc::new(ledger)),
            default_stock: self.sizes.default_stock,
            metrics: InventoryMetrics::register(&mut Registry::default()),
        };
        let service = inventory::Inventory::new(backend, Arc::new(Ported { port, inner: broker }));
        self.executor.start(process, Kind::Reaper, Box::pin(service.reaper().run(stop.clone())));
        self.executor.start(process, Kind::Consumer, Box::pin(service.consumer().run(stop.clone())));
        Host::Inventory(Arc::new(InventoryGrpc::new(env, service.reservations())))
    }

    /// A process dies between two polls and comes back after a while.
    pub fn crash(self: &Arc<Self>, process: ProcessId) {
        if !self.executor.alive(process) {
            return;
        }
        self.executor.note("crash", || format!("{process:?}"));
        self.faults.count("crash");
        for (kind, waited) in self.end(process) {
            let mut crashed = lock(&self.crashed);
            for leaf in waited {
                *crashed.entry((kind, leaf)).or_default() += 1;
            }
        }
        self.come_back(process);
    }

    fn end(&self, process: ProcessId) -> Vec<(Kind, Vec<&'static str>)> {
        let life = lock(&self.lives).remove(&process);
        drop(life);
        let dead = self.executor.end(process);
        dead.into_iter().map(|(kind, waits)| (kind, awaits::leaves(kind, &waits))).collect()
    }

    fn come_back(self: &Arc<Self>, process: ProcessId) {
        let this = self.clone();
        let pause = Duration::from_micros(1 + self.executor.below(1_500_000));
        let work = async move {
            this.faults.delay(pause).await;
            if !this.executor.alive(process) {
                this.boot(process);
            }
        };
        self.executor.start(ProcessId::WORLD, Kind::Faults, Box::pin(work));
    }

    /// A process stands still for a while.
    pub fn freeze(self: &Arc<Self>, process: ProcessId) {
        if !self.executor.alive(process) || self.executor.frozen(process) {
            return;
        }
        self.faults.count("freeze");
        self.executor.note("freeze", || format!("{process:?}"));
        self.executor.freeze(process, true);
        let (this, life) = (self.clone(), self.executor.life(process));
        let pause = Duration::from_micros(1 + self.executor.below(6_000_000));
        let work = async move {
            this.faults.delay(pause).await;
            if this.executor.life(process) == life {
                this.executor.freeze(process, false);
            }
        };
        self.executor.start(ProcessId::WORLD, Kind::Faults, Box::pin(work));
    }

    /// A process is told to end: it takes no calls, finishes what it has begun, and comes back.
    pub fn stop(self: &Arc<Self>, process: ProcessId) {
        let stop = {
            let mut lives = lock(&self.lives);
            let Some(life) = lives.get_mut(&process).filter(|life| life.host.is_some()) else { return };
            life.host = None;
            life.stop.clone()
        };
        self.faults.count("stop");
        self.executor.note("stop", || format!("{process:?}"));
        stop.cancel();
        let (this, life) = (self.clone(), self.executor.life(process));
        let work = async move {
            // Shutdown waits so long for what runs.
            for _ in 0..STOP_POLLS_MAX {
                if this.executor.tasks_of(process) == 0 {
                    break;
                }
                this.faults.delay(STOP_POLL).await;
            }
            if this.executor.life(process) == life && this.executor.alive(process) {
                this.end(process);
                this.come_back(process);
            }
        };
        self.executor.start(ProcessId::WORLD, Kind::Faults, Box::pin(work));
    }

    /// Everything is up and runs.
    pub fn heal(self: &Arc<Self>) {
        for process in self.services() {
            self.executor.freeze(process, false);
            if self.host(process).is_none() {
                self.end(process);
                self.boot(process);
            }
        }
    }

    /// Forgets who serves: they hold on to this.
    pub fn forget(&self) {
        let lives = std::mem::take(&mut *lock(&self.lives));
        drop(lives);
    }
}

const STOP_POLLS_MAX: u32 = 100;
const STOP_POLL: Duration = Duration::from_millis(50);
