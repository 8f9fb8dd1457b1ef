//! One seed from its start to its verdict: callers while everything breaks, healing, rest, and then what must work again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::values::Token;
use order::attempt::{Identity, reservation_id};

use crate::{
    clients::{self, Caller},
    executor::Kind,
    history::{History, OrderRequest},
    invariants::Violation,
    oracle::{Oracle, Outcomes},
    workload::{ITEMS, Patience, Plan, TTL_MAX_S, item, keyed, millis, units},
    world::{Options, Stop, World},
};

/// How long after healing the first order may take, in milliseconds.
pub const FIRST_SUCCESS_MS: u64 = 2_000;
/// How long after the longest hold is due everything has come to rest, in milliseconds.
pub const REST_MS: u64 = 5_000;
/// How long what is late may be under way when all callers have their answers, in milliseconds.
const LATE_MS: u64 = 4_000;
/// How often is looked whether everything has come to rest, in milliseconds.
const LOOK_MS: u64 = 250;
/// How long callers may go on after healing, in milliseconds.
pub const CALLERS_MS: u64 = 60_000;
/// Fewest and most units that an item starts with.
const STOCK: (u64, u64) = (4, 12);
/// Units that come in at healing: enough for all who wait.
const FIRST_UNITS: i64 = 50;
/// Callers that hang up when nothing breaks.
const HANG_UPS: u64 = 12;
/// Latest that they do.
const HANG_UP_MICROS_MAX: u64 = 60;

/// What kind of promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// What must never happen has happened.
    Safety,
    /// What must happen has not.
    Liveness,
}

/// A run that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which kind.
    pub promise: Promise,
    /// What, and what was seen.
    pub violation: Violation,
}

/// What became of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// Of all that happened.
    pub hash: u128,
    /// Polls.
    pub steps: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each kind of task was crashed in each await.
    pub crashed: BTreeMap<(Kind, &'static str), u64>,
    /// Of the orders that were asked for.
    pub orders: Outcomes,
    /// `None` if all is well.
    pub failed: Option<Failed>,
    /// What happened, if it was recorded.
    pub lines: Vec<String>,
}

struct Run {
    world: World,
    oracle: Oracle,
    history: Arc<History>,
    violation: Option<Violation>,
}

/// Runs a seed. With `record` what happens is kept as text.
pub fn run(seed: u64, record: bool) -> Outcome {
    let mut dice = service::manual::Dice::new(seed);
    let default_stock = i64::try_from(STOCK.0 + dice.below(STOCK.1 - STOCK.0)).expect("small");
    let world = World::new(seed, Options { record, default_stock, ..Options::default() });
    let history = Arc::<History>::default();
    let oracle = Oracle::new(world.watch(), history.clone());
    let mut run = Run { world, oracle, history, violation: None };
    let failed = run.whole().err();
    Outcome {
        seed,
        hash: run.world.hash(),
        steps: run.world.steps(),
        lasted: run.world.now(),
        faults: run.world.faults(),
        crashed: run.world.crashed(),
        orders: run.oracle.outcomes().clone(),
        failed,
        lines: run.world.lines(),
    }
}

fn late(invariant: &'static str, seen: impl Into<String>) -> Failed {
    Failed { promise: Promise::Liveness, violation: Violation { invariant, seen: seen.into() } }
}

impl Run {
    fn whole(&mut self) -> Result<(), Failed> {
        let plan = Plan::new(self.world.dice(1));
        let (busy, quiet) = (millis(plan.busy_ms), millis(plan.quiet_ms));
        clients::start(&self.world, plan, &self.history);
        self.until(busy, |_| false)?;
        self.world.heal();
        self.first_success()?;
        self.rest()?;
        let keys = self.unsold_keys();
        let hung_up = self.order_again(&keys);
        self.rest()?;
        self.all_sold(&keys, &hung_up)?;
        self.until(quiet, |_| false).map(drop)
    }

    /// Goes on until `done`, at most for `limit`. True if it was `done`.
    fn until(&mut self, limit: Duration, done: impl FnMut(&World) -> bool) -> Result<bool, Failed> {
        let (oracle, violation) = (&mut self.oracle, &mut self.violation);
        let reached = self.world.run_until(limit, done, |world| {
            oracle.step(world).map_err(|seen| {
                let text = seen.to_string();
                *violation = Some(seen);
                text
            })
        });
        let promise = Promise::Safety;
        reached.map_err(|stop| match stop {
            Stop::Violated(seen) => {
                let violation = self.violation.take().unwrap_or(Violation { invariant: "check", seen });
                Failed { promise, violation }
            }
            Stop::Panicked(seen) => Failed { promise, violation: Violation { invariant: "panic", seen } },
            Stop::TooManySteps => late("livelock", "tasks keep each other awake for ever"),
            Stop::Idle => late("idle", "nobody will ever run again"),
        })
    }

    /// I11: each item can be ordered soon after healing.
    fn first_success(&mut self) -> Result<(), Failed> {
        let done = Arc::new(AtomicUsize::new(0));
        for (number, name) in (1_000..).zip(ITEMS) {
            let (caller, done) = (self.caller(number), done.clone());
            let (item, id) = (item(name), self.world.env().uuid());
            let request = keyed(&format!("first-{name}"), &item, 1, None);
            self.world.start(Box::pin(async move {
                caller.restock(id, &item, FIRST_UNITS).await;
                while !caller.ordered(&request).await {
                    caller.pause(50).await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        let reached = self.until(millis(FIRST_SUCCESS_MS), |_| done.load(Ordering::Relaxed) == ITEMS.len())?;
        if reached {
            return Ok(());
        }
        let missing = ITEMS.len() - done.load(Ordering::Relaxed);
        Err(late("I11", format!("{missing} items could not be ordered within {FIRST_SUCCESS_MS} ms of healing")))
    }

    /// Until all callers have their answers and everything that was under way has ended.
    fn rest(&mut self) -> Result<(), Failed> {
        if !self.until(millis(CALLERS_MS), |world| world.clients_running() == 0)? {
            let left = self.world.clients_running();
            return Err(late("ends", format!("{left} callers wait for more than {CALLERS_MS} ms after healing")));
        }
        self.until(millis(LATE_MS), |_| false)?;
        let end = self.world.now() + millis(1_000 * TTL_MAX_S + REST_MS - LATE_MS);
        while let Err(violation) = self.oracle.at_rest(&self.world) {
            if self.world.now() >= end {
                return Err(Failed { promise: Promise::Liveness, violation });
            }
            self.until(millis(LOOK_MS), |_| false)?;
        }
        Ok(())
    }

    /// What was asked for under a key or an attempt id, on no hold, and is not sold: one request for each.
    fn unsold_keys(&self) -> Vec<Arc<OrderRequest>> {
        let mut names: Vec<&String> = self.oracle.requests().keys().collect();
        names.sort();
        let unsold = names.into_iter().filter(|key| self.oracle.order_of(key).is_none());
        let first = unsold.filter_map(|key| self.oracle.requests()[key].first());
        first.filter(|request| request.hold.is_none()).cloned().collect()
    }

    /// Asks for all of them again, with stock enough, and for some more, where the caller hangs up: those it answers.
    fn order_again(&mut self, keys: &[Arc<OrderRequest>]) -> Vec<Arc<OrderRequest>> {
        let mut dice = self.world.dice(2);
        let hung_up: Vec<_> = (0..HANG_UPS)
            .map(|number| {
                let identity = Identity::Attempt(Token::from(self.world.env().uuid()));
                let item = item(ITEMS[usize::try_from(number).expect("small") % ITEMS.len()]);
                Arc::new(OrderRequest { item, quantity: units(1), identity, hold: None })
            })
            .collect();
        let restocks: Vec<_> = ITEMS.map(|name| (item(name), self.world.env().uuid())).into();
        let caller = self.caller(2_000);
        // Nothing but the polls takes time any more.
        let patience = |hang_up_micros| Patience { timeout_ms: 5_000, tries: 1, hang_up_micros, again: false };
        let hang_ups: Vec<_> = hung_up
            .iter()
            .map(|request| (request.clone(), patience(Some(1 + dice.below(HANG_UP_MICROS_MAX)))))
            .collect();
        let keys = keys.to_vec();
        self.world.start(Box::pin(async move {
            for (item, id) in restocks {
                caller.restock(id, &item, 200).await;
            }
            for request in keys {
                caller.post(&request, 5_000).await;
            }
            for (request, patience) in hang_ups {
                caller.order(&request, &patience).await;
            }
        }));
        hung_up
    }

    /// No key is dead, and no work ends half way because its caller has hung up.
    fn all_sold(&self, keys: &[Arc<OrderRequest>], hung_up: &[Arc<OrderRequest>]) -> Result<(), Failed> {
        let sold = |request: &OrderRequest| self.oracle.order_of(request.key().as_str()).is_some();
        if let Some(dead) = keys.iter().find(|request| !sold(request)) {
            return Err(late("I6", format!("{dead:?} can never be ordered again")));
        }
        let began =
            |request: &OrderRequest| self.oracle.was_held(reservation_id(&request.identity, &request.fingerprint(), 0));
        match hung_up.iter().find(|request| began(request) && !sold(request)) {
            None => Ok(()),
            Some(request) => Err(late("ends", format!("{request:?} ended with its caller, after its hold was made"))),
        }
    }

    fn caller(&self, number: u32) -> Caller {
        Caller { client: self.world.client(number), history: self.history.clone() }
    }
}
