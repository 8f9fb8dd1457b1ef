//! A small Redis in memory: a primary and another server, which run the product's own scripts, and what can befall them.
//!
//! - this module: [`Redis`], the servers and their faults
//! - [`data`]: what a server stores, and how it was a few operations ago
//! - [`commands`]: the commands that the product uses
//! - [`lua`]: the scripts' runs
//! - [`planted`]: bugs planted in the scripts
//! - [`edits`]: what a hand does to an item
//! - [`wire`]: [`SimWire`], which carries the product's requests
//!
//! Nothing here waits, and nothing but the dice is random.

pub mod commands;
pub mod data;
pub mod edits;
pub mod lua;
pub mod planted;
pub mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool_redis::redis::Value;
use inventory::stock::redis::{
    keys::Spread,
    scripts::SCRIPTS,
    wire::{Request, What},
};
use service::manual::Dice;
use tokio::sync::oneshot;

pub use self::wire::{Delivery, SimWire};
use self::{
    commands::{Moment, Reply, execute},
    data::{Data, Keys},
    lua::Run,
};

/// Servers of one set: a primary and one that may take over.
pub const SERVERS: usize = 2;

/// The time that the servers have, in microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// One set of servers.
pub struct Redis {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    servers: [Server; SERVERS],
    primary: usize,
    /// Grows with everything that may have changed what a server has.
    version: u64,
    /// Commands of an operator's.
    hands: u64,
    /// Times that data was replaced by older or other data.
    losses: u64,
    /// What is on its way, by number.
    letters: BTreeMap<u64, Letter>,
    letters_sent: u64,
}

struct Server {
    keys: Keys,
    replid: Arc<str>,
    run_id: Arc<str>,
    replica: bool,
    reachable: bool,
    /// Which of its processes' lives: connections end with it.
    life: u64,
    /// Names of the scripts that it knows.
    scripts: BTreeSet<&'static str>,
    slowness: Duration,
}

/// A connection to a server.
#[derive(Debug, Clone)]
struct Link {
    server: usize,
    life: u64,
    /// The `master_replid` that it found.
    replid: Arc<str>,
}

/// Requests that arrive late, in one piece.
struct Letter {
    due_micros: i64,
    link: Link,
    requests: Vec<Request>,
    whole: bool,
    answer: oneshot::Sender<Result<Vec<Reply>, Cut>>,
}

/// The connection broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut;

/// An item's numbers as a server has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Whether the product's scripts find it open.
    pub open: bool,
    /// The lease.
    pub epoch: i64,
    /// Initial stock plus restocks.
    pub received: i64,
    /// Free.
    pub available: i64,
    /// Set aside.
    pub held: i64,
    /// In orders.
    pub sold: i64,
    /// How many holds there are.
    pub holds: usize,
}

impl Redis {
    /// Servers without data. The seed makes their ids.
    pub fn new(seed: u64, clock: Clock) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let mut servers = [false, true].map(|replica| Server {
            keys: Keys::default(),
            replid: fresh_id(&mut dice),
            run_id: fresh_id(&mut dice),
            replica,
            reachable: true,
            life: 0,
            scripts: BTreeSet::new(),
            slowness: Duration::ZERO,
        });
        servers[1].replid = Arc::clone(&servers[0].replid);
        let (letters, letters_sent) = (BTreeMap::new(), 0);
        Arc::new(Self {
            clock,
            state: Mutex::new(State {
                dice,
                servers,
                primary: 0,
                version: 0,
                hands: 0,
                losses: 0,
                letters,
                letters_sent,
            }),
        })
    }

    /// Grows with everything that may have changed what a server has.
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// How often an operator's command was done, and how often a server's data was replaced by other data.
    pub fn touched(&self) -> (u64, u64) {
        let state = self.state();
        (state.hands, state.losses)
    }

    /// The time that the servers have, in microseconds since 1970.
    pub fn now_micros(&self) -> i64 {
        (self.clock)()
    }

    /// The server that Sentinels name.
    pub fn primary(&self) -> usize {
        self.state().primary
    }

    /// The primary's process ends, and with it its connections. Its data is on disk.
    pub fn stop(&self) {
        let state = &mut *self.state();
        let server = &mut state.servers[state.primary];
        server.reachable = false;
        server.life += 1;
    }

    /// Whether the primary's process runs.
    pub fn is_up(&self) -> bool {
        let state = self.state();
        state.servers[state.primary].reachable
    }

    /// It starts again on its data, under new ids: that of a replication that begins anew, too.
    pub fn start(&self) {
        let state = &mut *self.state();
        let server = &mut state.servers[state.primary];
        server.reachable = true;
        server.scripts.clear();
        (server.replid, server.run_id) = (fresh_id(&mut state.dice), fresh_id(&mut state.dice));
    }

    /// [`Redis::stop`], and at once [`Redis::start`].
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Everything is deleted: by `FLUSHALL`, which leaves the ids as they are, or by a restart that finds no data.
    pub fn wipe(&self, restart: bool) {
        let primary = self.primary();
        self.command(primary, &["FLUSHALL"]);
        if restart {
            self.restart();
        }
    }

    /// Restarts on data that lacks the last operations, as after a crash that lost the end of the log.
    pub fn roll_back(&self, operations: usize) {
        self.restart();
        let state = &mut *self.state();
        state.version += 1;
        state.losses += 1;
        state.servers[state.primary].keys.roll_back(operations);
    }

    /// The other server takes over, with what it has: all but the last operations. The old primary is out of reach, with
    /// its connections open and its memory kept; or it goes on serving those who have not heard of it.
    pub fn fail_over(&self, keep_old_serving: bool, lag_operations: usize) {
        let state = &mut *self.state();
        state.promote_other(lag_operations);
        state.servers[1 - state.primary].reachable = keep_old_serving;
    }

    /// The other server comes back as a replica, takes what the primary has, and is made primary again: under its old run
    /// id, with its old scripts. The present primary becomes its replica.
    pub fn fail_back(&self) {
        let state = &mut *self.state();
        state.promote_other(0);
        let old = &mut state.servers[1 - state.primary];
        (old.replica, old.reachable) = (true, true);
    }

    /// The primary forgets its scripts.
    pub fn flush_scripts(&self) {
        let state = &mut *self.state();
        state.servers[state.primary].scripts.clear();
    }

    /// The primary takes this long for each request.
    pub fn slow(&self, by: Duration) {
        let state = &mut *self.state();
        state.servers[state.primary].slowness = by;
    }

    /// A command of an operator's.
    pub fn command(&self, server: usize, words: &[&str]) -> Value {
        let now = self.now_micros();
        let state = &mut *self.state();
        if words == ["DEBUG", "CHANGE-REPL-ID"] {
            state.servers[server].replid = fresh_id(&mut state.dice);
            return Value::Okay;
        }
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        state.version += 1;
        state.hands += 1;
        state.servers[server].command(now, &words).0.value()
    }

    /// Delivers what is late by now. Every request does so before it is answered itself.
    pub fn deliver(&self) {
        let now = self.now_micros();
        self.state().deliver_due(now);
    }

    /// All that a server has, by key.
    pub fn dump(&self, server: usize) -> BTreeMap<String, (Data, Option<i64>)> {
        let now_ms = self.now_micros().div_euclid(1_000);
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let state = self.state();
        let all = state.servers[server].keys.all(now_ms);
        all.map(|(key, entry)| (text(key), (entry.data.clone(), entry.until_ms))).collect()
    }

    /// An item's numbers, if it is there and they are numbers. Changes nothing.
    pub fn numbers(&self, server: usize, item: &str) -> Option<Numbers> {
        let mut numbers = self.figures(server, item)?;
        let now = self.now_micros();
        let server = &mut self.state().servers[server];
        let (slot, names) = Spread::OneServer.item(item);
        let request = Request::run(&SCRIPTS.open, slot, names, vec!["0".to_owned()]);
        let replid = Arc::clone(&server.replid);
        numbers.open = match server.run(now, &request, &replid).0 {
            Reply::Array(parts) => parts.first() == Some(&Reply::Bulk(b"open".as_slice().into())),
            _ => false,
        };
        Some(numbers)
    }

    /// The same without asking a script whether the item is open.
    pub fn figures(&self, server: usize, item: &str) -> Option<Numbers> {
        let now = self.now_micros();
        let server = &self.state().servers[server];
        let (_, names) = Spread::OneServer.item(item);
        let [available, ledger, holds, ..] = names.as_slice() else { unreachable!("an item has more keys") };
        let now_ms = now.div_euclid(1_000);
        let data = |key: &str| server.keys.get(key.as_bytes(), now_ms).map(|entry| &entry.data);
        let Some(Data::Hash(fields)) = data(ledger) else { return None };
        let field = |name: &str| number(fields.get(name.as_bytes())?);
        let Some(Data::String(available)) = data(available) else { return None };
        let holds = if let Some(Data::Hash(holds)) = data(holds) { holds.len() } else { 0 };
        Some(Numbers {
            open: false,
            epoch: field("epoch")?,
            received: field("received")?,
            available: number(available)?,
            held: field("held")?,
            sold: field("sold")?,
            holds,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the other server primary, with the present one's data but for the last operations.
    fn promote_other(&mut self, lag_operations: usize) {
        self.version += 1;
        self.losses += 1;
        let mut keys = self.servers[self.primary].keys.clone();
        keys.roll_back(lag_operations);
        self.primary = 1 - self.primary;
        let promoted = &mut self.servers[self.primary];
        promoted.keys = keys;
        (promoted.replica, promoted.reachable) = (false, true);
        promoted.replid = fresh_id(&mut self.dice);
    }

    /// A new connection to a server that is fit.
    fn connect(&mut self, server: usize) -> Result<Link, &'static str> {
        let there = &mut self.servers[server];
        if !there.reachable {
            return Err("connection refused");
        }
        if there.replica {
            return Err("it is no master, but a slave");
        }
        there.scripts.extend(SCRIPTS.all().map(|script| script.sha.as_str()));
        Ok(Link { server, life: there.life, replid: Arc::clone(&there.replid) })
    }

    fn answer(&mut self, now: i64, link: &Link, request: &Request, whole: bool) -> Result<Reply, Cut> {
        let server = &mut self.servers[link.server];
        if !server.reachable || server.life != link.life {
            return Err(Cut);
        }
        let (reply, changed) = match &request.what {
            What::Command(words) => {
                let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
                server.command(now, &words)
            }
            What::Run { script, .. } => {
                if whole {
                    server.scripts.insert(&script.sha);
                }
                if server.scripts.contains(script.sha.as_str()) {
                    server.run(now, request, &link.replid)
                } else {
                    (Reply::Error("NOSCRIPT No matching script. Please use EVAL.".to_owned()), false)
                }
            }
        };
        self.version += u64::from(changed);
        Ok(reply)
    }

    /// After what is late by now.
    fn answer_now(&mut self, now: i64, link: &Link, request: &Request, whole: bool) -> Result<Reply, Cut> {
        self.deliver_due(now);
        self.answer(now, link, request, whole)
    }

    fn answer_all(&mut self, now: i64, link: &Link, requests: &[Request], whole: bool) -> Result<Vec<Reply>, Cut> {
        requests.iter().map(|request| self.answer(now, link, request, whole)).collect()
    }

    /// Sends what will arrive later; its number.
    fn post(&mut self, letter: Letter) -> u64 {
        self.letters_sent += 1;
        self.letters.insert(self.letters_sent, letter);
        self.letters_sent
    }

    fn deliver_due(&mut self, now: i64) {
        let due = self.letters.iter().filter(|(_, letter)| letter.due_micros <= now);
        let mut due: Vec<(i64, u64)> = due.map(|(number, letter)| (letter.due_micros, *number)).collect();
        due.sort_unstable();
        for (_, number) in due {
            self.deliver(now, number);
        }
    }

    fn deliver(&mut self, now: i64, number: u64) {
        if let Some(letter) = self.letters.remove(&number) {
            let answer = self.answer_all(now, &letter.link, &letter.requests, letter.whole);
            // Whoever sent it may have given up.
            let _ = letter.answer.send(answer);
        }
    }
}

impl Server {
    fn moment(&self, now_micros: i64) -> Moment {
        let (replid, run_id) = (Arc::clone(&self.replid), Arc::clone(&self.run_id));
        Moment { replica: self.replica, replid, run_id, now_micros }
    }

    /// Its answer, and whether it changed anything.
    fn command(&mut self, now: i64, words: &[&[u8]]) -> (Reply, bool) {
        let moment = self.moment(now);
        let reply = execute(&mut self.keys, &moment, words);
        (reply, self.keys.end_operation())
    }

    /// The same of a script.
    fn run(&mut self, now: i64, request: &Request, connected_to: &str) -> (Reply, bool) {
        let What::Run { script, keys, args } = &request.what else { unreachable!("only scripts run") };
        let moment = self.moment(now);
        let reply = Run { script, keys, args, connected_to }.on(&mut self.keys, &moment);
        (reply, self.keys.end_operation())
    }
}

/// An integer, as far as an operator would read one.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// 40 hexadecimal digits.
fn fresh_id(dice: &mut Dice) -> Arc<str> {
    (0..40).filter_map(|_| char::from_digit(u32::try_from(dice.below(16)).ok()?, 16)).collect::<String>().into()
}
