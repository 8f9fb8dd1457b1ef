//! Sends what is asked to the server that has the slot, and never twice. While a server is down every call to it fails at
//! once; the first calls after that, and no others, wait for the connections to be made anew.
//!
//! A repair looks where the servers are and connects to those that are not connected. There is one at a time; a call that
//! finds its server missing starts it, with backoff after failures.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, ConnectionInfo, Pipeline, RedisError, Value};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};
use service::environment::Env;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::{
    keys::Spread,
    layout::{Shard, layout},
    node::{Node, Unfit},
    scripts::SCRIPTS,
    target::RedisTarget,
    wire::{Request, Wire},
};
use crate::stock::StockError;

/// How long a server may take for an answer, in milliseconds. Then it counts as down.
pub const RESPONSE_TIMEOUT_MS: u64 = 500;
/// How long a server may take until it is connected to and checked, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 500;
/// First wait after a failed repair, in milliseconds; it doubles.
pub const REPAIR_BACKOFF_MIN_MS: u64 = 25;
/// Longest wait after failed repairs, in milliseconds: what it costs at most to notice that a server is back.
pub const REPAIR_BACKOFF_MAX_MS: u64 = 400;
/// Most commands of one pipeline.
pub const PIPELINE_MAX: usize = 1_024;

/// Why an answer is missing.
enum Trouble {
    /// The server does not know the script, and has done nothing.
    NoScript,
    /// The server does not have the slot, and has done nothing.
    Moved(StockError),
    /// Any other failure. It may have been done.
    Failed(StockError),
}

type Repair = Shared<BoxFuture<'static, ()>>;

/// The servers of one target.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    env: Env,
    target: RedisTarget,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Slots by the last of each run.
    owners: BTreeMap<u16, String>,
    nodes: HashMap<String, Arc<Node>>,
    /// A server said that slots have moved.
    stale: bool,
    repair: Option<Repair>,
    /// Failures since the last repair that was whole.
    failures: u32,
    /// No repair before this moment, as uptime.
    not_before: Duration,
    cause: String,
}

impl State {
    fn usable(&self, slot: u16) -> Option<Arc<Node>> {
        let (_, owner) = self.owners.range(slot..).next()?;
        self.nodes.get(owner).filter(|node| !self.stale && !node.is_lost()).cloned()
    }
}

impl Router {
    /// Connects to nothing yet.
    pub fn new(target: RedisTarget, env: Env) -> Self {
        Self(Arc::new(Inner { env, target, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole; a panic elsewhere leaves nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self, cause: &str) -> StockError {
        StockError(format!("{}: {cause}", self.0.target).into())
    }

    /// The server of a slot.
    async fn node(&self, slot: u16) -> Result<Arc<Node>, StockError> {
        let repair = {
            let mut state = self.state();
            if let Some(node) = state.usable(slot) {
                return Ok(node);
            }
            let first_try = state.failures == 0;
            match self.repair(&mut state) {
                // Nobody waits while it is known to be down.
                Some(repair) if first_try => repair,
                Some(_) | None => return Err(self.down(&state.cause)),
            }
        };
        repair.await;
        let state = self.state();
        state.usable(slot).ok_or_else(|| self.down(&state.cause))
    }

    /// The repair under way, or a new one; none while it is too early for another.
    fn repair(&self, state: &mut State) -> Option<Repair> {
        // Asked, not peeked at: what nobody waits for would never be seen to have ended.
        if let Some(repair) = state.repair.as_ref().filter(|repair| (*repair).clone().now_or_never().is_none()) {
            return Some(repair.clone());
        }
        if self.0.env.uptime() < state.not_before {
            return None;
        }
        let (done, result) = oneshot::channel();
        let repair = result.map(|_| ()).boxed().shared();
        state.repair = Some(repair.clone());
        let router = self.clone();
        let task = async move {
            router.repair_once().await;
            // Nobody waiting is no error.
            let _ = done.send(());
        };
        self.0.env.start(Box::pin(task.in_current_span()));
        Some(repair)
    }

    async fn repair_once(&self) {
        let (nodes, known) = {
            let state = self.state();
            let usable = state.nodes.iter().filter(|(_, node)| !node.is_lost());
            let nodes: HashMap<_, _> = usable.map(|(address, node)| (address.clone(), Arc::clone(node))).collect();
            let known: Vec<ConnectionInfo> = nodes.values().map(|node| node.info().clone()).collect();
            (nodes, known)
        };
        let found = match layout(&self.0.env, &self.0.target, &known).await {
            Ok(shards) => self.connect(shards, nodes).await,
            Err(unfit) => Err(unfit),
        };
        let mut state = self.state();
        let failed = match found {
            Ok((owners, nodes, failed)) => {
                state.stale = false;
                (state.owners, state.nodes) = (owners, nodes);
                failed
            }
            Err(unfit) => Some(unfit),
        };
        match failed {
            None => {
                if state.failures > 0 {
                    tracing::info!(failures = state.failures, "{} is back", self.0.target);
                }
                (state.failures, state.not_before) = (0, Duration::ZERO);
            }
            Some(unfit) => self.failed(&mut state, unfit),
        }
    }

    fn failed(&self, state: &mut State, unfit: Unfit) {
        if state.failures == 0 || state.cause != unfit.0 {
            tracing::warn!(cause = unfit.0, "{} is down", self.0.target);
        }
        let doubled = REPAIR_BACKOFF_MIN_MS << state.failures.min(10);
        let pause = self.0.env.jittered(Duration::from_millis(doubled.min(REPAIR_BACKOFF_MAX_MS)));
        state.not_before = self.0.env.uptime() + pause;
        state.failures = state.failures.saturating_add(1);
        state.cause = unfit.0;
    }

    /// Connects to every master that is not connected. What is left out failed, for the reason given.
    async fn connect(&self, shards: Vec<Shard>, mut nodes: HashMap<String, Arc<Node>>) -> Result<Map, Unfit> {
        let mut owners = BTreeMap::new();
        let mut missing: HashMap<String, Vec<ConnectionInfo>> = HashMap::new();
        let mut runs: Vec<(u16, String)> = Vec::new();
        for shard in shards {
            let likeliest = shard.candidates.first().ok_or_else(|| Unfit("slots without a server".to_owned()))?;
            let address = likeliest.addr().to_string();
            if !nodes.contains_key(&address) {
                missing.insert(address.clone(), shard.candidates);
            }
            runs.push((shard.last, address));
        }
        let mut failed = None;
        let connecting =
            missing.into_iter().map(async |(address, candidates)| (address, self.connect_one(candidates).await));
        for (address, result) in join_all(connecting).await {
            match result {
                Ok(node) => {
                    nodes.insert(address, Arc::new(node));
                }
                Err(unfit) => failed = Some(unfit),
            }
        }
        owners.extend(runs);
        nodes.retain(|address, _| owners.values().any(|owner| owner == address));
        Ok((owners, nodes, failed))
    }

    /// To the first of them that is fit.
    async fn connect_one(&self, candidates: Vec<ConnectionInfo>) -> Result<Node, Unfit> {
        let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
        let mut causes = Vec::new();
        for info in candidates {
            let address = info.addr().to_string();
            match self.0.env.timeout(limit, Node::connect(info)).await {
                Ok(Ok(node)) => return Ok(node),
                Ok(Err(unfit)) => causes.push(format!("{address}: {unfit}")),
                Err(timed_out) => causes.push(format!("{address}: {timed_out}")),
            }
        }
        Err(Unfit(causes.join("; ")))
    }

    /// The server's answer, within the time for it. A server that hangs or breaks off is lost.
    async fn answered<T>(
        &self,
        node: &Node,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Trouble> {
        let limit = Duration::from_millis(RESPONSE_TIMEOUT_MS);
        match self.0.env.timeout(limit, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.trouble(node, &error)),
            Err(timed_out) => {
                self.lose(node, &timed_out.to_string(), 1);
                Err(Trouble::Failed(self.down(&format!("{}: {timed_out}", node.address()))))
            }
        }
    }

    fn trouble(&self, node: &Node, error: &RedisError) -> Trouble {
        let failed = StockError(Box::new(error.clone()));
        match error.code() {
            Some("NOSCRIPT") => Trouble::NoScript,
            Some("MOVED") => {
                self.state().stale = true;
                Trouble::Moved(failed)
            }
            // A server that is master no more, or not yet; no code: the connection broke.
            Some("READONLY" | "LOADING" | "MASTERDOWN") | None => {
                self.lose(node, &error.to_string(), 0);
                Trouble::Failed(failed)
            }
            Some(_) => Trouble::Failed(failed),
        }
    }

    /// Gives a server up. With `failures` nobody waits for it to come back; without, the next calls wait for the repair.
    fn lose(&self, node: &Node, cause: &str, failures: u32) {
        if node.is_lost() {
            return;
        }
        tracing::warn!(cause, "{}: {} is lost", self.0.target, node.address());
        node.lose();
        let mut state = self.state();
        cause.clone_into(&mut state.cause);
        state.failures = state.failures.max(failures);
    }

    /// Whether the server of a slot is fit, and takes writes now. One that takes none is not given up: it answers, and a
    /// full one settles the holds that it has.
    async fn check_one(&self, slot: u16) -> Result<(), StockError> {
        let node = self.node(slot).await?;
        let limit = Duration::from_millis(RESPONSE_TIMEOUT_MS);
        let unfit = match self.0.env.timeout(limit, node.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(unfit)) => Some((unfit.0, 0)),
            Err(timed_out) => Some((timed_out.to_string(), 1)),
        };
        if let Some((cause, failures)) = unfit {
            self.lose(&node, &cause, failures);
            return Err(self.down(&format!("{}: {cause}", node.address())));
        }
        // In a cluster the key must be one of the slot; elsewhere any will do.
        let key = Spread::Cluster.items(slot);
        match self.ask(&Request::run(&SCRIPTS.writable, slot, vec![key], vec![])).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.down(&format!("{}: {}", node.address(), error.0))),
        }
    }

    async fn send(&self, slot: u16, cmd: &Cmd) -> Result<Value, Trouble> {
        let node = self.node(slot).await.map_err(Trouble::Failed)?;
        self.answered(&node, node.send(cmd)).await
    }

    /// Pipelined to one server. What it has certainly not done is sent again alone.
    async fn send_all(&self, node: &Node, requests: &[&Request]) -> Result<Vec<Value>, StockError> {
        let mut values = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(PIPELINE_MAX) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for request in chunk {
                pipeline.add_command(request.command());
            }
            let answers = match self.answered(node, node.send_all(&pipeline)).await {
                Ok(answers) => answers,
                Err(Trouble::Moved(error) | Trouble::Failed(error)) => return Err(error),
                Err(Trouble::NoScript) => return Err(self.down("a pipeline was refused whole")),
            };
            for (request, answer) in chunk.iter().zip(answers) {
                values.push(match &answer {
                    Value::ServerError(error) if matches!(error.code(), "NOSCRIPT" | "MOVED") => {
                        self.ask(request).await?
                    }
                    _ => answer,
                });
            }
        }
        Ok(values)
    }
}

/// Owners of the slots, their connections, and why some of them are missing.
type Map = (BTreeMap<u16, String>, HashMap<String, Arc<Node>>, Option<Unfit>);

#[async_trait]
impl Wire for Router {
    async fn ask(&self, request: &Request) -> Result<Value, StockError> {
        let first = match self.send(request.slot, &request.command()).await {
            Ok(value) => return Ok(value),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(certain) => certain,
        };
        // It was certainly not done.
        let whole = matches!(first, Trouble::NoScript);
        let again = if whole { request.whole_command() } else { request.command() };
        match self.send(request.slot, &again).await {
            Ok(value) => Ok(value),
            Err(Trouble::Failed(error) | Trouble::Moved(error)) => Err(error),
            Err(Trouble::NoScript) => Err(self.down("it forgets its scripts")),
        }
    }

    async fn ask_once(&self, request: &Request) -> Result<Value, StockError> {
        match self.send(request.slot, &request.whole_command()).await {
            Ok(value) => Ok(value),
            Err(Trouble::Failed(error) | Trouble::Moved(error)) => Err(error),
            Err(Trouble::NoScript) => Err(self.down("it does not know a script that it was given")),
        }
    }

    async fn ask_all(&self, requests: &[Request]) -> Vec<Result<Value, StockError>> {
        let mut answers: Vec<_> = requests.iter().map(|_| Ok(Value::Nil)).collect();
        let mut by_node: HashMap<String, (Arc<Node>, Vec<usize>)> = HashMap::new();
        for (index, request) in requests.iter().enumerate() {
            match self.node(request.slot).await {
                Ok(node) => {
                    let (_, part) = by_node.entry(node.address().to_owned()).or_insert_with(|| (node, Vec::new()));
                    part.push(index);
                }
                Err(error) => answers[index] = Err(error),
            }
        }
        let parts = by_node.into_values().map(async |(node, part)| {
            let requests: Vec<&Request> = part.iter().map(|index| &requests[*index]).collect();
            (self.send_all(&node, &requests).await, part)
        });
        for (sent, part) in join_all(parts).await {
            match sent {
                Ok(values) => part.into_iter().zip(values).for_each(|(index, value)| answers[index] = Ok(value)),
                Err(error) => {
                    let error = error.to_string();
                    for index in part {
                        answers[index] = Err(StockError(error.clone().into()));
                    }
                }
            }
        }
        answers
    }

    async fn servers(&self) -> Result<Vec<u16>, StockError> {
        // The map may not be there yet.
        let found = self.node(0).await;
        let last_slots: Vec<u16> = self.state().owners.keys().copied().collect();
        if last_slots.is_empty() { found.map(|_| last_slots) } else { Ok(last_slots) }
    }

    async fn check(&self) -> Result<(), StockError> {
        self.servers().await?;
        // A slot of each: a server may have many runs.
        let slots: HashMap<String, u16> =
            self.state().owners.iter().map(|(last, owner)| (owner.clone(), *last)).collect();
        let checks = join_all(slots.into_values().map(|slot| self.check_one(slot))).await;
        if checks.iter().any(Result::is_ok) {
            return Ok(());
        }
        let causes: Vec<String> = checks.into_iter().filter_map(Result::err).map(|error| error.0.to_string()).collect();
        Err(StockError(causes.join("; ").into()))
    }

    fn doubt(&self, slot: u16) {
        let node = self.state().usable(slot);
        if let Some(node) = node {
            self.lose(&node, "it is no master any more", 0);
        }
    }
}
