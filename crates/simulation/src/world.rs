//! One seed's world: the services, their stores, the network between them, callers, and what breaks them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::broker::{queues, replay::replay};
use contracts::{
    Failure, Reason,
    inventory::v1::{
        GetStockRequest, GetStockResponse, ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse,
        RestockRequest, RestockResponse, inventory_service_server::InventoryService,
    },
    orders::v1::{
        CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
        ListOrdersResponse, order_service_server::OrderService,
    },
    values::Ttl,
};
use futures::future::BoxFuture;
use service::{call::Call, environment::Env, manual::Dice, rpc_client::Repeat};

use crate::{
    awaits::{self, Place},
    broker as messages,
    environment::SimEnvironment,
    executor::{Executor, Kind, ProcessId, Step, TaskId},
    faults::{Disaster, Faults},
    ledger::Database,
    process::{Cluster, Sizes},
    redis::Redis,
    stores::Stores,
    watch::Watch,
};

/// How a world is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether anything breaks, until [`World::heal`].
    pub faults: bool,
    /// Whether the trace is kept as text, see [`World::lines`].
    pub record: bool,
    /// Order services.
    pub orders: usize,
    /// Inventory services.
    pub inventories: usize,
    /// Units that an item starts with.
    pub default_stock: i64,
    /// Life of the holds of orders under way, in seconds.
    pub hold_ttl_seconds: i64,
    /// Most steps of a run. More are a livelock.
    pub steps_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults: true,
            record: false,
            orders: 2,
            inventories: 2,
            default_stock: 10,
            hold_ttl_seconds: 2,
            steps_max: 400_000,
        }
    }
}

/// Why a run ends before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// An assertion of the product broke.
    Panicked(String),
    /// More than [`Options::steps_max`]: tasks that keep each other awake for ever.
    TooManySteps,
    /// Nobody will ever run again.
    Idle,
    /// What the check after each step said.
    Violated(String),
}

/// One seed's world.
pub struct World {
    seed: u64,
    options: Options,
    executor: Executor,
    cluster: Arc<Cluster>,
    clients: Env,
    aims: Vec<Aim>,
}

/// Where a crash is to hit: a task of this kind that waits there, at so many visits from now.
struct Aim {
    place: Place,
    visits: u64,
}

/// How many crashes of a run are aimed at a place.
const AIMS: u64 = 3;
/// At which visit of a task such a crash comes at the latest.
const AIM_VISITS_MAX: u64 = 6;

impl Aim {
    fn draw(dice: &mut Dice) -> Vec<Self> {
        let places = awaits::places();
        let mut draw = |_| {
            let place = places[usize::try_from(dice.below(places.len() as u64)).expect("an index")];
            let late = if dice.below(2) == 0 { dice.below(AIM_VISITS_MAX) } else { 0 };
            // Few ever come where something has to happen first.
            let late = if awaits::needs(place).is_some() { 0 } else { late };
            Self { place, visits: 1 + late }
        };
        (0..AIMS).map(&mut draw).collect()
    }
}

impl World {
    /// Everything is up, the stores are empty. Nothing has run yet.
    pub fn new(seed: u64, options: Options) -> Self {
        let services = options.orders + options.inventories;
        let (ledger, stock) = (ProcessId(2 + services), ProcessId(3 + services));
        let executor = Executor::new(seed, 4 + services, options.record);
        for server in [ledger, stock] {
            executor.begin(server);
        }
        let mut dice = Dice::new(seed ^ 0x5eed_0fa1_1bad_c0de);
        let aims = if options.faults { Aim::draw(&mut dice) } else { Vec::new() };
        let needed: Vec<Disaster> = aims.iter().filter_map(|aim| awaits::needs(aim.place)).collect();
        let faults = Arc::new(Faults::draw(&executor, &mut dice, options.faults, &needed));
        let stores = Stores::new(&executor, &faults, &mut dice, (ledger, stock));
        let sizes = Sizes {
            orders: options.orders,
            inventories: options.inventories,
            default_stock: options.default_stock,
            hold_ttl: Ttl::parse_seconds(options.hold_ttl_seconds).expect("seconds that a hold may last"),
        };
        let cluster = Cluster::new(executor.clone(), faults, stores, sizes);
        cluster.services().into_iter().for_each(|process| cluster.boot(process));
        cluster.start_disasters();
        let clients = SimEnvironment::of(&executor, ProcessId::CLIENTS, Kind::Client);
        Self { seed, options, executor, cluster, clients, aims }
    }

    /// What it came from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How it was made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Dice for a workload: `name` makes each user's numbers its own.
    pub fn dice(&self, name: u64) -> Dice {
        Dice::new(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ name)
    }

    /// Time and randomness of the callers: a steady clock.
    pub fn env(&self) -> Env {
        self.clients.clone()
    }

    /// A caller. Callers are tasks of a process that nothing happens to.
    pub fn client(&self, number: u32) -> Client {
        Client { cluster: self.cluster.clone(), env: self.clients.clone(), number }
    }

    /// Starts a caller's work.
    pub fn start(&self, work: BoxFuture<'static, ()>) {
        self.executor.start(ProcessId::CLIENTS, Kind::Client, work);
    }

    /// Callers' tasks that have not ended.
    pub fn clients_running(&self) -> usize {
        self.executor.running(Kind::Client)
    }

    /// Polls one task.
    pub fn step(&mut self) -> Result<(), Stop> {
        if self.executor.steps() >= self.options.steps_max {
            return Err(Stop::TooManySteps);
        }
        match self.executor.step() {
            Step::Ran(task) => {
                self.aim(task);
                Ok(())
            }
            Step::Idle => Err(Stop::Idle),
            Step::Panicked(text) => Err(Stop::Panicked(text)),
        }
    }

    /// Crashes the task's process, if that is what was drawn.
    fn aim(&mut self, task: TaskId) {
        if self.aims.is_empty() {
            return;
        }
        let mut hit = None;
        let aims = &mut self.aims;
        let process = self.executor.find(task, |kind, waits| {
            let is_hit = |aim: &Aim| kind == aim.place.0 && awaits::leaves(kind, waits).contains(&aim.place.1);
            hit = aims.iter().position(is_hit);
            hit.is_some()
        });
        let (Some(process), Some(hit)) = (process, hit) else { return };
        self.aims[hit].visits -= 1;
        if self.aims[hit].visits == 0 {
            self.aims.swap_remove(hit);
            self.cluster.crash(process);
        }
    }

    /// Steps until `done`, or for `limit`; `check` is asked after each. True if it was `done`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
        mut check: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<bool, Stop> {
        let end = self.now() + limit;
        while !done(self) {
            if self.now() >= end {
                return Ok(false);
            }
            self.step()?;
            check(self).map_err(Stop::Violated)?;
        }
        Ok(true)
    }

    /// Since the run began; it never jumps.
    pub fn now(&self) -> Duration {
        self.executor.now()
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.executor.steps()
    }

    /// All faults off, everything up, one primary that everybody is pointed at, clocks steady.
    pub fn heal(&mut self) {
        self.aims.clear();
        self.executor.note("heal", String::new);
        self.cluster.faults.heal();
        self.cluster.faults.change();
        self.cluster.stores.heal();
        self.executor.agree();
        self.cluster.heal();
        // Events that were delivered in vain too often are dead letters, and those an operator sends again.
        let (env, broker) = (self.clients.clone(), self.cluster.stores.broker(ProcessId::CLIENTS));
        let replay = async move {
            let replayed = replay(&env, &*broker, &queues::order_created(), u64::MAX).await;
            replayed.expect("the broker is well");
        };
        self.executor.start(ProcessId::WORLD, Kind::Network, Box::pin(replay));
    }

    /// The ledger's database.
    pub fn database(&self) -> &Database {
        self.cluster.stores.database()
    }

    /// The stock store's servers.
    pub fn redis(&self) -> &Redis {
        self.cluster.stores.redis()
    }

    /// The broker's server.
    pub fn broker(&self) -> &messages::Server {
        self.cluster.stores.messages()
    }

    /// What passed between services and stores.
    pub fn watch(&self) -> Arc<Watch> {
        self.cluster.watch.clone()
    }

    /// How often a process came back.
    pub fn restarts(&self) -> u64 {
        self.cluster.restarts()
    }

    /// Grows with every fault, and with whatever else changes something that no service did.
    pub fn faults_done(&self) -> u64 {
        self.cluster.faults.done()
    }

    /// Faults so far, by kind.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.cluster.faults.counts()
    }

    /// How often each kind of task was crashed while it was waiting in each leaf.
    pub fn crashed(&self) -> BTreeMap<Place, u64> {
        self.cluster.crashed()
    }

    /// Of everything that happened: the same for the same seed.
    pub fn hash(&self) -> u128 {
        self.executor.hash()
    }

    /// What happened, one line each, with [`Options::record`].
    pub fn lines(&self) -> Vec<String> {
        self.executor.lines()
    }

    /// Adds a line to what happened.
    pub fn note(&self, what: &str, detail: impl FnOnce() -> String) {
        self.executor.note(what, detail);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cluster.forget();
        self.executor.shut_down();
    }
}

/// A caller: what the edge does for it, too. A call goes to one instance by the dice and, as [`service::rpc_client`] would,
/// to the other when that one is in doubt; so a request that makes something must bear its own id (attempt id or key,
/// reservation id, restock id), as the edge gives each. It ends within its timeout, at the latest with
/// `DEADLINE_EXCEEDED`; a caller that the faults make hang up gets that, too.
#[derive(Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
    env: Env,
    number: u32,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $request:ty => $response:ty, $peers:ident, $service:ident;)*) => {
        impl Client {
            $($(#[$doc])*
            pub async fn $name(&self, timeout: Duration, request: $request) -> Result<$response, Failure> {
                let call = Call::new(&*self.env, timeout, self.env.uuid().into());
                let peers = self.cluster.$peers();
                let work = self.cluster.call(&self.env, &peers, &call, Repeat::SafeElsewhere, request, |host, request| {
                    Box::pin(async move { host.$service().$name(request).await })
                });
                self.patiently(work).await
            })*
        }
    };
}

calls! {
    /// `orders.v1.OrderService/CreateOrder`.
    create_order: CreateOrderRequest => CreateOrderResponse, orders, orders;
    /// `orders.v1.OrderService/GetOrder`.
    get_order: GetOrderRequest => GetOrderResponse, orders, orders;
    /// `orders.v1.OrderService/ListOrders`.
    list_orders: ListOrdersRequest => ListOrdersResponse, orders, orders;
    /// `inventory.v1.InventoryService/Reserve`.
    reserve: ReserveRequest => ReserveResponse, inventories, inventory;
    /// `inventory.v1.InventoryService/Release`.
    release: ReleaseRequest => ReleaseResponse, inventories, inventory;
    /// `inventory.v1.InventoryService/Restock`.
    restock: RestockRequest => RestockResponse, inventories, inventory;
    /// `inventory.v1.InventoryService/GetStock`.
    get_stock: GetStockRequest => GetStockResponse, inventories, inventory;
}

impl Client {
    /// Which caller.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Time and randomness of the callers.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Hangs up at some moment, if the dice say so.
    async fn patiently<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        if !self.cluster.faults.strike("caller hangs up") {
            return work.await;
        }
        let patience = Duration::from_micros(self.cluster.executor.below(HANG_UP_MICROS_MAX));
        self.env.timeout(patience, work).await.unwrap_or_else(|_| Err(Failure::of(Reason::DeadlineExceeded)))
    }
}

/// Longest that a caller waits who hangs up, in microseconds.
const HANG_UP_MICROS_MAX: u64 = 20_000;
