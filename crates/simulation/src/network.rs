//! Calls between processes. A request, its answer and the word that the caller has hung up are messages: each may be late
//! or lost, and a request may come twice. How a caller repeats is what [`service::rpc_client`] does, without its budget.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contracts::{Failure, Reason};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use service::{
    call::Call,
    environment::Env,
    rpc_client::{ATTEMPTS_MAX, BACKOFF_MS, PATIENCE_MS, Repeat},
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::{
    environment::SimEnvironment,
    executor::{Kind, ProcessId, TaskId},
    process::{Cluster, Host},
};

/// Longest way of a message when nothing is wrong, in microseconds.
const WAY_MICROS_MAX: u64 = 1_000;
/// Longest way of a late one.
const LATE_MICROS_MAX: u64 = 3_000_000;
/// Latest that a second one comes.
const TWICE_MICROS_MAX: u64 = 8_000_000;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nobody was there to take it.
    Unsent,
    /// It may have been done.
    InDoubt,
}

type Answer<T> = Result<Response<T>, Status>;
type Reply<T> = Result<Answer<T>, Trouble>;

/// How a method is called on who serves it.
pub type Send<M, T> = fn(Host, Request<M>) -> BoxFuture<'static, Answer<T>>;

/// The way back, which is gone with its handler.
struct Way<T: std::marker::Send + 'static> {
    cluster: Arc<Cluster>,
    reply: Option<oneshot::Sender<Reply<T>>>,
}

impl<T: std::marker::Send + 'static> Way<T> {
    fn send(mut self, answer: Reply<T>) {
        let Some(reply) = self.reply.take() else { return };
        let cluster = self.cluster.clone();
        let lost = cluster.faults.strike("answer lost");
        let silent = lost && cluster.executor.chance(500);
        let way = cluster.way();
        self.cluster.in_network(async move {
            if silent {
                cluster.faults.until_healed().await;
            }
            cluster.faults.delay(way).await;
            // A caller that waits no more is no error.
            let _ = reply.send(if lost { Err(Trouble::InDoubt) } else { answer });
        });
    }
}

impl<T: std::marker::Send + 'static> Drop for Way<T> {
    /// The process died: its connections break, or nobody hears of it.
    fn drop(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        let cluster = self.cluster.clone();
        let silent = cluster.executor.chance(300);
        let way = cluster.way();
        self.cluster.in_network(async move {
            if silent {
                cluster.faults.until_healed().await;
            }
            cluster.faults.delay(way).await;
            let _ = reply.send(Err(Trouble::InDoubt));
        });
    }
}

/// A call that its caller still waits for. Dropped, the handlers that have begun end.
struct Waiting {
    cluster: Arc<Cluster>,
    handlers: Arc<Mutex<Vec<TaskId>>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let handlers = self.handlers.clone();
        let cluster = self.cluster.clone();
        let way = cluster.way();
        self.cluster.in_network(async move {
            cluster.faults.delay(way).await;
            let handlers = std::mem::take(&mut *handlers.lock().unwrap_or_else(PoisonError::into_inner));
            for task in handlers {
                cluster.executor.kill(task);
            }
        });
    }
}

impl Cluster {
    fn in_network(&self, work: impl Future<Output = ()> + std::marker::Send + 'static) {
        self.executor.start(ProcessId::WORLD, Kind::Network, Box::pin(work));
    }

    fn way(&self) -> Duration {
        if self.faults.strike("message late") {
            return Duration::from_micros(self.executor.below(LATE_MICROS_MAX));
        }
        Duration::from_micros(1 + self.executor.below(WAY_MICROS_MAX))
    }

    /// Calls `method` on one of `peers`, and on the others as far as the call may be repeated.
    pub async fn call<M, T>(
        self: &Arc<Self>,
        env: &Env,
        peers: &[ProcessId],
        call: &Call,
        repeat: Repeat,
        message: M,
        send: Send<M, T>,
    ) -> Result<T, Failure>
    where
        M: Clone + std::marker::Send + 'static,
        T: std::marker::Send + 'static,
    {
        call.check(&**env)?;
        let work = self.attempts(env, peers, call, repeat, message, send);
        match env.timeout(call.remaining(&**env), work).await {
            Ok(Ok(answer)) => answer.map(Response::into_inner).map_err(|status| Failure::from_status(&status)),
            Ok(Err(trouble)) => Err(Failure::unavailable(format!("{trouble:?}"))),
            Err(_) => Err(Failure::of(Reason::DeadlineExceeded)),
        }
    }

    async fn attempts<M, T>(
        self: &Arc<Self>,
        env: &Env,
        peers: &[ProcessId],
        call: &Call,
        repeat: Repeat,
        message: M,
        send: Send<M, T>,
    ) -> Reply<T>
    where
        M: Clone + std::marker::Send + 'static,
        T: std::marker::Send + 'static,
    {
        let first = self.executor.below(peers.len() as u64);
        let patience = Duration::from_millis(PATIENCE_MS).min(call.remaining(&**env) / 2);
        let mut under_way = FuturesUnordered::new();
        let mut made: usize = 0;
        let mut next = true;
        loop {
            if next {
                let turn = (usize::try_from(first).expect("an index") + made) % peers.len();
                under_way.push(self.attempt(peers[turn], call.remaining(&**env), call, &message, send));
                made += 1;
            }
            let Ok(answered) = env.timeout(patience, under_way.next()).await else {
                next = made < ATTEMPTS_MAX && matches!(repeat, Repeat::Safe | Repeat::SafeElsewhere);
                continue;
            };
            let answer = answered.expect("one is under way");
            let again = match &answer {
                Ok(Ok(_)) => false,
                Ok(Err(status)) => {
                    repeat == Repeat::SafeElsewhere
                        && made < peers.len()
                        && Failure::from_status(status).reason == Reason::Unavailable
                }
                Err(Trouble::Unsent) => true,
                Err(Trouble::InDoubt) => repeat != Repeat::Unsent,
            };
            next = again && made < ATTEMPTS_MAX;
            if !next && (!again || under_way.is_empty()) {
                return answer;
            }
            if next && under_way.is_empty() {
                env.sleep(env.jittered(Duration::from_millis(BACKOFF_MS << made))).await;
            }
        }
    }

    /// One message to `peer`, and the wait for its answer.
    fn attempt<M, T>(
        self: &Arc<Self>,
        peer: ProcessId,
        timeout: Duration,
        call: &Call,
        message: &M,
        send: Send<M, T>,
    ) -> BoxFuture<'static, Reply<T>>
    where
        M: Clone + std::marker::Send + 'static,
        T: std::marker::Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { cluster: self.clone(), handlers: Arc::default() };
        let handlers = waiting.handlers.clone();
        let copy = |way: Duration, reply: Option<oneshot::Sender<Reply<T>>>| {
            let (this, handlers, message, id) =
                (self.clone(), handlers.clone(), message.clone(), call.request_id.clone());
            async move {
                this.faults.delay(way).await;
                let way = Way { cluster: this.clone(), reply };
                let Some(host) = this.host(peer) else { return way.send(Err(Trouble::Unsent)) };
                let kind = host.kind();
                let env = SimEnvironment::of(&this.executor, peer, kind);
                let call = Call::new(&*env, timeout, id);
                let mut request = Request::new(message);
                request.extensions_mut().insert(call.clone());
                let handler = async move {
                    let answer = call.bounded(&env, send(host, request).map(Ok)).await;
                    way.send(Ok(answer.unwrap_or_else(|failure| Err(failure.into()))));
                };
                if let Some(task) = this.executor.start(peer, kind, Box::pin(handler)) {
                    handlers.lock().unwrap_or_else(PoisonError::into_inner).push(task);
                }
            }
        };
        if self.faults.strike("message twice") {
            let later = Duration::from_micros(self.executor.below(TWICE_MICROS_MAX));
            self.in_network(copy(later, None));
        }
        if self.faults.strike("message lost") {
            let (this, silent, way) = (self.clone(), self.executor.chance(500), self.way());
            self.in_network(async move {
                if silent {
                    this.faults.until_healed().await;
                }
                this.faults.delay(way).await;
                let _ = reply.send(Err(Trouble::InDoubt));
            });
        } else {
            self.in_network(copy(self.way(), Some(reply)));
        }
        Box::pin(async move {
            let answer = answer.await.unwrap_or(Err(Trouble::InDoubt));
            drop(waiting);
            answer
        })
    }
}
