//! How a process ends, in stages: not ready but serving, stop accepting, finish what runs, stop background work after
//! its current step, close what is kept, and a hard stop at the deadline. At a second signal `process::run` ends it all.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http::{HeaderValue, Version, header::CONNECTION};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    environment::{Env, RealEnvironment},
    server::{Limits, Listener, serve},
    signals::{SIGTERM, Signals},
};

/// Time for all stages of a shutdown together, but for the flush of telemetry. Orchestrators kill after 30 s.
pub const DRAIN_DEADLINE_MS: u64 = 25_000;
/// How long a process serves after it has said that it is not ready, unless told otherwise, in seconds.
pub const DRAIN_DELAY_S_DEFAULT: u64 = 1;
/// How long that may be, in seconds: what runs needs the rest of the deadline.
pub const DRAIN_DELAY_S_MAX: u64 = 15;

/// Shared by everything in a process.
#[derive(Clone)]
pub struct Lifecycle {
    env: Env,
    tasks: TaskTracker,
    ready: Arc<AtomicBool>,
    leaving: CancellationToken,
    drain: CancellationToken,
    stop: CancellationToken,
}

/// A process that is put together.
pub struct Serving {
    /// Its own.
    pub lifecycle: Lifecycle,
    /// Drained one after the other: each finishes what it has taken only while those that it asks still serve.
    pub servers: Vec<(Listener, Router, Limits)>,
    /// What runs beside them.
    pub background: Vec<BoxFuture<'static, ()>>,
    /// Closes what is kept, once everything else has ended. Not reached when that takes too long.
    pub close: BoxFuture<'static, ()>,
}

impl Lifecycle {
    /// Of a process that is not ready yet.
    #[expect(clippy::new_without_default, reason = "it is made once, by main, and a default would hide that")]
    pub fn new() -> Self {
        let tasks = TaskTracker::new();
        Self {
            env: Arc::new(RealEnvironment::new(tasks.clone())),
            tasks,
            ready: Arc::new(AtomicBool::new(false)),
            leaving: CancellationToken::new(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The real environment. The end of the process waits for its tasks.
    pub fn env(&self) -> Env {
        Arc::clone(&self.env)
    }

    /// Whether the process serves, and is not about to end.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.leaving.is_cancelled()
    }

    /// For what tells others whether the process is ready: it is about to end, and serves on for a while.
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// For background work: stop after the current step. Cancelled once the servers have drained, because requests
    /// under way may still need the background work.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    async fn run(
        &self,
        servers: Vec<BoxFuture<'static, ()>>,
        background: Vec<BoxFuture<'static, ()>>,
        close: BoxFuture<'static, ()>,
        signals: &Signals,
        delay: Duration,
        limit: Duration,
    ) -> ExitCode {
        self.ready.store(true, Ordering::Release);
        let (report, mut deaths) = mpsc::channel(1);
        let serving = self.start_all(servers, "server", &report);
        let working = self.start_all(background, "background work", &report);
        let asked = tokio::select! {
            biased;
            signal = signals.first() => Some(signal),
            Some(what) = deaths.recv() => died(what),
        };
        // Who types Ctrl-C is no balancer, and waits.
        let delay = if asked == Some(SIGTERM) { delay } else { Duration::ZERO };
        tracing::info!(signal = asked, ?delay, "not ready any more");
        self.leaving.cancel();
        let ending = async {
            let asked = tokio::select! {
                biased;
                Some(what) = deaths.recv() => died(what),
                () = self.env.sleep(delay) => asked,
            };
            self.end(serving, working, close).await;
            asked.is_some()
        };
        match self.env.timeout(limit, ending).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(_) => {
                tracing::warn!(?limit, "not drained in time, ending anyway");
                ExitCode::FAILURE
            }
        }
    }

    async fn end(
        &self,
        serving: Vec<BoxFuture<'static, ()>>,
        working: Vec<BoxFuture<'static, ()>>,
        close: BoxFuture<'static, ()>,
    ) {
        tracing::info!("draining");
        self.drain.cancel();
        join_all(serving).await;
        self.stop.cancel();
        join_all(working).await;
        self.tasks.close();
        self.tasks.wait().await;
        close.await;
        tracing::info!("drained");
    }

    /// Starts each as a task and answers futures that wait for their ends. Reports the death of what should live on.
    fn start_all(
        &self,
        works: Vec<BoxFuture<'static, ()>>,
        what: &'static str,
        report: &mpsc::Sender<&'static str>,
    ) -> Vec<BoxFuture<'static, ()>> {
        let start = |work: BoxFuture<'static, ()>| -> BoxFuture<'static, ()> {
            let ended = CancellationToken::new();
            let (report, leaving, guard) = (report.clone(), self.leaving.clone(), ended.clone().drop_guard());
            self.env.start(Box::pin(async move {
                let _guard = guard;
                let panicked = AssertUnwindSafe(work).catch_unwind().await.is_err();
                if panicked || !leaving.is_cancelled() {
                    // A full queue holds a death already, and one is enough.
                    let _ = report.try_send(what);
                }
            }));
            Box::pin(ended.cancelled_owned())
        };
        works.into_iter().map(start).collect()
    }
}

/// Then nobody has asked for the end.
fn died(what: &'static str) -> Option<&'static str> {
    tracing::error!(what, "ended by itself");
    None
}

impl Serving {
    /// Serves until a signal comes, then ends in stages. A server that ends by itself, or anything that panics, ends
    /// the process too, with a failure: whoever started the process can then start it anew.
    pub async fn run(self, signals: &Signals, delay: Duration) -> ExitCode {
        let Self { lifecycle, servers, background, close } = self;
        let servers = one_after_the_other(servers, &lifecycle);
        lifecycle.run(servers, background, close, signals, delay, Duration::from_millis(DRAIN_DEADLINE_MS)).await
    }
}

/// Serves all of them. The first drains when the process does, each other one when the one before it has drained.
fn one_after_the_other(servers: Vec<(Listener, Router, Limits)>, lifecycle: &Lifecycle) -> Vec<BoxFuture<'static, ()>> {
    let mut drain = lifecycle.drain.clone();
    let serve = |(listener, router, limits)| -> BoxFuture<'static, ()> {
        let drained = CancellationToken::new();
        let this = std::mem::replace(&mut drain, drained.clone());
        let work = serve(listener, goodbye(router, lifecycle.leaving()), limits, lifecycle.env(), this);
        // A guard, because a server that panics must not keep the next one from draining.
        let drained = drained.drop_guard();
        Box::pin(async move {
            work.await;
            drop(drained);
        })
    };
    servers.into_iter().map(serve).collect()
}

/// While the process is leaving, HTTP/1 clients are told with each answer to take another connection for the next
/// request: one that the server closes while it is idle may be closed under a request.
fn goodbye(router: Router, leaving: CancellationToken) -> Router {
    router.layer(middleware::from_fn_with_state(leaving, close_after))
}

async fn close_after(State(leaving): State<CancellationToken>, request: Request, next: Next) -> Response {
    let http1 = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if http1 && leaving.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::*;

    /// More than anything here should take.
    const PATIENCE: Duration = Duration::from_secs(20);

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn until(token: CancellationToken, log: &Log, line: &'static str) -> BoxFuture<'static, ()> {
        let log = Arc::clone(log);
        Box::pin(async move {
            token.cancelled().await;
            log.lock().expect("not poisoned").push(line);
        })
    }

    fn nothing() -> BoxFuture<'static, ()> {
        Box::pin(futures::future::ready(()))
    }

    fn signals(name: &'static str) -> Signals {
        let signals = Signals::default();
        signals.came(name);
        signals
    }

    #[tokio::test]
    async fn it_ends_in_stages() {
        const DELAY: Duration = Duration::from_millis(200);
        let (lifecycle, log) = (Lifecycle::new(), Log::default());
        let env = lifecycle.env();
        let say = {
            let log = Arc::clone(&log);
            move |line| log.lock().expect("not poisoned").push(line)
        };
        assert!(!lifecycle.is_ready());
        let begin = env.uptime();
        let server = {
            let (say, lifecycle, env) = (say.clone(), lifecycle.clone(), env.clone());
            async move {
                lifecycle.leaving().cancelled().await;
                say(if lifecycle.is_ready() { "ready" } else { "not ready" });
                lifecycle.drain.cancelled().await;
                say(if env.uptime() >= begin + DELAY { "draining" } else { "draining early" });
                env.sleep(Duration::from_millis(50)).await;
                say(if lifecycle.stop().is_cancelled() { "stopped early" } else { "served" });
            }
        };
        let (done, detached) = oneshot::channel::<()>();
        let work = {
            let (say, env, stop) = (say.clone(), env.clone(), lifecycle.stop());
            async move {
                stop.cancelled().await;
                say("worked");
                env.sleep(Duration::from_millis(50)).await;
                let _ = done.send(());
            }
        };
        let last = {
            let (say, env) = (say.clone(), env.clone());
            async move {
                let _ = detached.await;
                env.sleep(Duration::from_millis(50)).await;
                say("detached work");
            }
        };
        env.start(Box::pin(last));
        let close = Box::pin(async move { say("closed") });
        let signals = signals(SIGTERM);
        let run = lifecycle.run(vec![Box::pin(server)], vec![Box::pin(work)], close, &signals, DELAY, PATIENCE);
        assert_eq!(run.await, ExitCode::SUCCESS);
        let expected = ["not ready", "draining", "served", "worked", "detached work", "closed"];
        assert_eq!(*log.lock().expect("not poisoned"), expected);
    }

    /// The delay is for balancers, and counts for the deadline.
    #[tokio::test]
    async fn who_types_ctrl_c_does_not_wait_for_the_delay() {
        for (signal, code) in [("SIGINT", ExitCode::SUCCESS), (SIGTERM, ExitCode::FAILURE)] {
            let (lifecycle, log) = (Lifecycle::new(), Log::default());
            let server = until(lifecycle.drain.clone(), &log, "drained");
            let (signals, limit) = (signals(signal), Duration::from_millis(300));
            let run = lifecycle.run(vec![server], vec![], nothing(), &signals, 1000 * PATIENCE, limit);
            assert_eq!(run.await, code, "{signal}");
        }
    }

    #[tokio::test]
    async fn a_drain_that_does_not_end_is_cut_at_the_deadline() {
        let lifecycle = Lifecycle::new();
        let env = lifecycle.env();
        let stuck: Vec<BoxFuture<'static, ()>> = vec![Box::pin(futures::future::pending())];
        let (signals, limit) = (signals(SIGTERM), Duration::from_millis(50));
        let run = lifecycle.run(stuck, vec![], nothing(), &signals, Duration::ZERO, limit);
        assert_eq!(env.timeout(PATIENCE, run).await, Ok(ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn the_death_of_a_part_ends_the_process() {
        for (server, dies) in [(true, true), (true, false), (false, true), (false, false)] {
            let (lifecycle, log) = (Lifecycle::new(), Log::default());
            let dying: BoxFuture<'static, ()> = Box::pin(async move { assert!(!dies, "it dies") });
            let living = until(lifecycle.drain.clone(), &log, "drained");
            let (servers, background) =
                if server { (vec![dying, living], vec![]) } else { (vec![living], vec![dying]) };
            let (env, signals) = (lifecycle.env(), Signals::default());
            let run = lifecycle.run(servers, background, nothing(), &signals, 1000 * PATIENCE, PATIENCE);
            assert_eq!(env.timeout(PATIENCE, run).await, Ok(ExitCode::FAILURE));
            assert_eq!(*log.lock().expect("not poisoned"), ["drained"]);
        }
    }
}
