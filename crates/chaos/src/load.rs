//! The clients: they order, hold, release and read, and one of them restocks. Many want the same few items, repeat
//! what they sent, also while it is under way, and now and then with another body.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use service::manual::Dice;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::{Builder, Uuid};

use crate::calls::{Caller, Told};
use crate::history::{Invoke, Op};
use crate::one_of;

/// Items that never run out.
pub const PLENTIFUL: [&str; 4] = ["plenty-1", "plenty-2", "plenty-3", "plenty-4"];
/// Items that a few units of are received now and then, fewer than are wanted.
const SCARCE: [&str; 2] = ["scarce-1", "scarce-2"];
/// Items that more is wanted of than there is, so that none is ever sold.
const UNSOLD_MAX: u64 = 500;
/// There is one unit of each of these, and everybody wants the newest one.
const SINGLE_SECONDS: u64 = 5;
/// Life of a hold that a client takes.
pub const HOLD_SECONDS: u64 = 3;
/// Clients beside the one that restocks.
pub const CLIENTS: u32 = 32;
/// A client begins a step so often.
const STEP_PERIOD: Duration = Duration::from_millis(115);
/// What plentiful items get at first.
const PLENTY: u64 = 1_000_000;
const RESTOCK_PERIOD: Duration = Duration::from_millis(250);
/// A restock that is not answered is repeated for so long at most after the load has ended.
const RESTOCK_LIMIT: Duration = Duration::from_secs(20);
const REPEAT_PAUSE: Duration = Duration::from_millis(50);
/// Keys and orders that others may repeat and read: the last ones, some of them under way.
const RECENT_MAX: usize = 128;
const UNITS_MAX: u64 = 3;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// All of it.
    Everything,
    /// Orders of plentiful items alone, each under a key of its own: none has a reason to fail.
    Orders,
}

/// What all clients share.
struct Shared {
    caller: Caller,
    mix: Mix,
    is_over: AtomicBool,
    begin: Instant,
    /// Orders that were sent, answered or not.
    recent: Mutex<VecDeque<Invoke>>,
    placed: Mutex<VecDeque<Uuid>>,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Fills the shelves, then starts the clients. The same seed gives the same wishes.
    pub async fn start(caller: Caller, mix: Mix, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            caller,
            mix,
            is_over: AtomicBool::new(false),
            begin: Instant::now(),
            recent: Mutex::default(),
            placed: Mutex::default(),
        });
        let mut clients: Vec<Client> =
            (0..=CLIENTS).map(|number| Client::new(Arc::clone(&shared), number, seed)).collect();
        let mut restocker = clients.pop().expect("there is one more than CLIENTS");
        for item in PLENTIFUL {
            restocker.restock(item, PLENTY).await;
        }
        let mut tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.run())).collect();
        if mix == Mix::Everything {
            tasks.push(tokio::spawn(restocker.run_restocks()));
        }
        Self { shared, tasks }
    }

    /// Ends it, once all calls under way are answered.
    pub async fn stop(self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for ended in join_all(self.tasks).await {
            ended.expect("no client fails");
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Invoke>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn placed(&self) -> MutexGuard<'_, VecDeque<Uuid>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(recent: &mut VecDeque<T>, one: T) {
    recent.push_back(one);
    if recent.len() > RECENT_MAX {
        recent.pop_front();
    }
}

struct Client {
    shared: Arc<Shared>,
    number: u32,
    dice: Dice,
    /// In its keys: another run, and another load of a run, has others.
    run: u64,
}

impl Client {
    fn new(shared: Arc<Shared>, number: u32, seed: u64) -> Self {
        let mut dice = Dice::new(seed.wrapping_add(u64::from(number)));
        let run = dice.below(u64::MAX);
        Self { shared, number, dice, run }
    }

    async fn run(mut self) {
        // They do not begin all at once.
        let mut next = Instant::now() + STEP_PERIOD * self.number / CLIENTS;
        while !self.shared.is_over() {
            sleep_until(next).await;
            match (self.shared.mix, self.dice.below(100)) {
                (Mix::Orders, _) => {
                    let item = self.plentiful();
                    let order = self.new_order(item, true);
                    self.order(order).await;
                }
                (Mix::Everything, 0..65) => self.order_something().await,
                (Mix::Everything, 65..80) => self.repeat().await,
                (Mix::Everything, 80..84) => self.repeat_with_another_body().await,
                (Mix::Everything, 84..86) => self.order_twice_at_once().await,
                (Mix::Everything, 86..94) => self.hold().await,
                (Mix::Everything, 94) => self.want_too_much().await,
                (Mix::Everything, _) => self.read().await,
            }
            next = (next + STEP_PERIOD).max(Instant::now());
        }
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.dice.below(number) == 0
    }

    fn id(&mut self) -> Uuid {
        let half = |dice: &mut Dice| u128::from(dice.below(u64::MAX));
        let bits = half(&mut self.dice) << 64 | half(&mut self.dice);
        Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    fn plentiful(&mut self) -> String {
        (*one_of(&mut self.dice, &PLENTIFUL)).to_owned()
    }

    fn item(&mut self) -> String {
        match self.dice.below(100) {
            0..7 => (*one_of(&mut self.dice, &SCARCE)).to_owned(),
            7..11 => format!("single-{}", self.shared.begin.elapsed().as_secs() / SINGLE_SECONDS),
            _ => self.plentiful(),
        }
    }

    fn new_order(&mut self, item: String, has_key: bool) -> Invoke {
        let key = has_key.then(|| format!("{:x}-{:x}", self.run, self.dice.below(u64::MAX)));
        let quantity = if item.starts_with("single") { 1 } else { 1 + self.dice.below(UNITS_MAX) };
        Invoke { op: Op::Order, item: Some(item), quantity: Some(quantity), key, ..Invoke::default() }
    }

    /// Sends an order, and a second time when it is not known what became of the first one.
    async fn order(&mut self, order: Invoke) -> Told {
        if order.key.is_some() {
            keep(&mut self.shared.recent(), order.clone());
        }
        let mut told = self.call(order.clone()).await;
        if told.is_unknown() && order.key.is_some() && self.one_in(2) {
            sleep(REPEAT_PAUSE).await;
            told = self.call(order).await;
        }
        told
    }

    async fn call(&self, invoke: Invoke) -> Told {
        let told = self.shared.caller.call(self.number, invoke).await;
        if let Some(order) = told.order() {
            keep(&mut self.shared.placed(), order);
        }
        told
    }

    async fn order_something(&mut self) {
        let (item, has_key) = (self.item(), !self.one_in(4));
        let order = self.new_order(item, has_key);
        self.order(order).await;
    }

    /// What somebody sent a moment ago, answered or not.
    fn sent_before(&mut self) -> Option<Invoke> {
        let mut recent = self.shared.recent();
        (!recent.is_empty()).then(|| one_of(&mut self.dice, recent.make_contiguous()).clone())
    }

    async fn repeat(&mut self) {
        if let Some(order) = self.sent_before() {
            self.call(order).await;
        }
    }

    async fn repeat_with_another_body(&mut self) {
        let Some(mut order) = self.sent_before() else { return };
        if self.one_in(2) {
            order.quantity = order.quantity.map(|quantity| quantity + 1);
        } else {
            order.item = Some(SCARCE[0].to_owned()).filter(|item| Some(item) != order.item.as_ref());
            order.item.get_or_insert_with(|| SCARCE[1].to_owned());
        }
        self.call(order).await;
    }

    async fn order_twice_at_once(&mut self) {
        let item = self.item();
        let order = self.new_order(item, true);
        tokio::join!(self.call(order.clone()), self.call(order));
    }

    /// Takes a hold, and orders it, releases it, does both at once, or forgets it.
    async fn hold(&mut self) {
        let (item, hold) = (self.item(), Some(self.id()));
        let order = Invoke { hold, ..self.new_order(item, true) };
        let reserve = Invoke { op: Op::Reserve, key: None, ..order.clone() };
        let told = self.call(reserve.clone()).await;
        let release = Invoke { op: Op::Release, hold, ..Invoke::default() };
        if told.is_unknown() {
            self.call(reserve).await;
        } else if !told.is_held() {
            return;
        }
        match self.dice.below(8) {
            0..3 => drop(self.order(order).await),
            3 => drop(self.call(Invoke { key: None, ..order }).await),
            4..6 => drop(self.call(release).await),
            6 => drop(tokio::join!(self.call(order), self.call(release))),
            _ => {}
        }
    }

    /// Of something that nobody ever bought: it is refused, or read, and leaves nothing behind.
    async fn want_too_much(&mut self) {
        let item = format!("unsold-{}", self.dice.below(UNSOLD_MAX));
        let quantity = Some(2 + self.dice.below(UNITS_MAX));
        let op = *one_of(&mut self.dice, &[Op::Order, Op::Reserve, Op::Stock]);
        let hold = (op == Op::Reserve).then(|| self.id());
        let key = (op == Op::Order).then(|| format!("{:x}-{:x}", self.run, self.dice.below(u64::MAX)));
        self.call(Invoke { op, item: Some(item), quantity, hold, key, ..Invoke::default() }).await;
    }

    async fn read(&mut self) {
        let order = {
            let mut placed = self.shared.placed();
            (!placed.is_empty()).then(|| *one_of(&mut self.dice, placed.make_contiguous()))
        };
        let order = order.filter(|_| self.one_in(2));
        let read = match order {
            Some(order) => Invoke { op: Op::Read, order: Some(order), ..Invoke::default() },
            None => Invoke { op: Op::Stock, item: Some(self.item()), ..Invoke::default() },
        };
        self.call(read).await;
    }

    async fn run_restocks(mut self) {
        while !self.shared.is_over() {
            let item = if self.one_in(4) { self.plentiful() } else { (*one_of(&mut self.dice, &SCARCE)).to_owned() };
            let units = 1 + self.dice.below(UNITS_MAX);
            self.restock(&item, units).await;
            sleep(RESTOCK_PERIOD).await;
        }
    }

    /// Counts units in, once, however often that takes.
    async fn restock(&mut self, item: &str, units: u64) {
        let restock = Invoke {
            op: Op::Restock,
            item: Some(item.to_owned()),
            quantity: Some(units),
            restock: Some(self.id()),
            ..Invoke::default()
        };
        let mut over = None;
        while self.call(restock.clone()).await.is_unknown() {
            if self.shared.is_over() && over.get_or_insert_with(Instant::now).elapsed() > RESTOCK_LIMIT {
                return;
            }
            sleep(REPEAT_PAUSE).await;
        }
        if self.one_in(8) {
            self.call(restock).await;
        }
    }
}
