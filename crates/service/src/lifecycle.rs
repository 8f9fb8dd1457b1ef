//! How a process starts and ends. Ending goes in stages: not ready, stop accepting, finish what runs, stop background
//! work after its current step, and a hard stop at the deadline or at the second signal.

use std::{
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::environment::{Env, RealEnvironment};

/// Time for all stages of a shutdown together. Orchestrators kill after 30 s.
pub const DRAIN_DEADLINE_MS: u64 = 25_000;

/// Shared by everything in a process.
#[derive(Clone)]
pub struct Lifecycle {
    env: Env,
    tasks: TaskTracker,
    ready: Arc<AtomicBool>,
    drain: CancellationToken,
    stop: CancellationToken,
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
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The real environment. The end of the process waits for its tasks.
    pub fn env(&self) -> Env {
        Arc::clone(&self.env)
    }

    /// The process can do its work now.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether it can, and is not about to end.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.drain.is_cancelled()
    }

    /// For servers: stop accepting and finish what runs.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// For background work: stop after the current step. Cancelled once the servers have drained, because requests
    /// under way may still need the background work.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs everything until SIGTERM or SIGINT, then ends it in stages. A server that ends by itself, or anything that
    /// panics, ends the process too, with a failure: whoever started the process can then start it anew.
    pub async fn run_until_signal(
        self,
        servers: Vec<BoxFuture<'static, ()>>,
        background: Vec<BoxFuture<'static, ()>>,
    ) -> ExitCode {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => {
                let signals = stream::select(arrivals(terminate, "SIGTERM"), arrivals(interrupt, "SIGINT"));
                self.run(servers, background, signals, Duration::from_millis(DRAIN_DEADLINE_MS)).await
            }
            (Err(e), _) | (_, Err(e)) => {
                tracing::error!(error = %e, "cannot listen for signals");
                ExitCode::FAILURE
            }
        }
    }

    async fn run(
        self,
        servers: Vec<BoxFuture<'static, ()>>,
        background: Vec<BoxFuture<'static, ()>>,
        signals: impl Stream<Item = &'static str>,
        limit: Duration,
    ) -> ExitCode {
        let mut signals = std::pin::pin!(signals);
        let (report, mut deaths) = mpsc::channel(1);
        let serving = self.start_all(servers, "server", &report);
        let working = self.start_all(background, "background work", &report);
        let clean = tokio::select! {
            biased;
            Some(name) = signals.next() => {
                tracing::info!(signal = name, "draining");
                true
            },
            Some(what) = deaths.recv() => {
                tracing::error!(what, "ended by itself, draining");
                false
            },
        };
        let drained = tokio::select! {
            biased;
            Some(name) = signals.next() => {
                tracing::warn!(signal = name, "second signal, ending at once");
                false
            },
            ended = self.env.timeout(limit, self.end(serving, working)) => {
                if ended.is_err() {
                    tracing::warn!(?limit, "not drained in time, ending anyway");
                }
                ended.is_ok()
            },
        };
        if clean && drained { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    async fn end(&self, serving: Vec<BoxFuture<'static, ()>>, working: Vec<BoxFuture<'static, ()>>) {
        self.ready.store(false, Ordering::Release);
        self.drain.cancel();
        join_all(serving).await;
        self.stop.cancel();
        join_all(working).await;
        self.tasks.close();
        self.tasks.wait().await;
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
            let (report, drain, guard) = (report.clone(), self.drain.clone(), ended.clone().drop_guard());
            self.env.start(Box::pin(async move {
                let _guard = guard;
                let panicked = AssertUnwindSafe(work).catch_unwind().await.is_err();
                if panicked || !drain.is_cancelled() {
                    // A full queue holds a death already, and one is enough.
                    let _ = report.try_send(what);
                }
            }));
            Box::pin(ended.cancelled_owned())
        };
        works.into_iter().map(start).collect()
    }
}

fn arrivals(signal: tokio::signal::unix::Signal, name: &'static str) -> impl Stream<Item = &'static str> {
    stream::unfold(signal, move |mut signal| async move { signal.recv().await.map(|()| (name, signal)) })
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

    fn signals(count: usize) -> impl Stream<Item = &'static str> {
        stream::iter(vec!["SIGTEST"; count]).chain(stream::pending())
    }

    #[tokio::test]
    async fn it_ends_in_stages() {
        let (lifecycle, log) = (Lifecycle::new(), Log::default());
        lifecycle.ready();
        assert!(lifecycle.is_ready());
        let server = {
            let (log, lifecycle) = (Arc::clone(&log), lifecycle.clone());
            async move {
                lifecycle.drain().cancelled().await;
                log.lock().expect("not poisoned").push(if lifecycle.is_ready() { "ready" } else { "not ready" });
                lifecycle.env().sleep(Duration::from_millis(50)).await;
                let early = lifecycle.stop().is_cancelled();
                log.lock().expect("not poisoned").push(if early { "stopped early" } else { "served" });
            }
        };
        let work = until(lifecycle.stop(), &log, "worked");
        let (done, detached) = oneshot::channel::<()>();
        let last = {
            let (log, env) = (Arc::clone(&log), lifecycle.env());
            async move {
                let _ = detached.await;
                env.sleep(Duration::from_millis(50)).await;
                log.lock().expect("not poisoned").push("detached work");
            }
        };
        lifecycle.env().start(Box::pin(last));
        let finish = {
            let env = lifecycle.env();
            let stop = lifecycle.stop();
            let work: BoxFuture<'static, ()> = Box::pin(async move {
                stop.cancelled().await;
                env.sleep(Duration::from_millis(50)).await;
                let _ = done.send(());
            });
            work
        };
        let code = lifecycle.run(vec![Box::pin(server)], vec![work, finish], signals(1), PATIENCE).await;
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(*log.lock().expect("not poisoned"), ["not ready", "served", "worked", "detached work"]);
    }

    #[tokio::test]
    async fn a_second_signal_ends_at_once() {
        let lifecycle = Lifecycle::new();
        let env = lifecycle.env();
        let stuck: Vec<BoxFuture<'static, ()>> = vec![Box::pin(futures::future::pending())];
        let run = lifecycle.run(stuck, vec![], signals(2), PATIENCE * 1000);
        assert_eq!(env.timeout(PATIENCE, run).await, Ok(ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn a_drain_that_does_not_end_is_cut_at_the_deadline() {
        let lifecycle = Lifecycle::new();
        let env = lifecycle.env();
        let stuck: Vec<BoxFuture<'static, ()>> = vec![Box::pin(futures::future::pending())];
        let run = lifecycle.run(stuck, vec![], signals(1), Duration::from_millis(50));
        assert_eq!(env.timeout(PATIENCE, run).await, Ok(ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn the_death_of_a_part_ends_the_process() {
        for (server, dies) in [(true, true), (true, false), (false, true), (false, false)] {
            let (lifecycle, log) = (Lifecycle::new(), Log::default());
            let dying: BoxFuture<'static, ()> = Box::pin(async move { assert!(!dies, "it dies") });
            let living = until(lifecycle.drain(), &log, "drained");
            let (servers, background) =
                if server { (vec![dying, living], vec![]) } else { (vec![living], vec![dying]) };
            let env = lifecycle.env();
            let run = lifecycle.run(servers, background, signals(0), PATIENCE);
            assert_eq!(env.timeout(PATIENCE, run).await, Ok(ExitCode::FAILURE));
            assert_eq!(*log.lock().expect("not poisoned"), ["drained"]);
        }
    }

    #[tokio::test]
    async fn sigterm_drains() {
        let (lifecycle, log) = (Lifecycle::new(), Log::default());
        let server = until(lifecycle.drain(), &log, "drained");
        let kill = async {
            // The handlers are in place once the server runs.
            let pid = std::process::id().to_string();
            let killed = tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await;
            assert!(killed.expect("kill runs").success());
            futures::future::pending::<()>().await;
        };
        let killer: BoxFuture<'static, ()> = {
            let drain = lifecycle.drain();
            Box::pin(async move {
                tokio::select! { biased; () = drain.cancelled() => {}, () = kill => {} }
            })
        };
        assert_eq!(lifecycle.run_until_signal(vec![server, killer], vec![]).await, ExitCode::SUCCESS);
        assert_eq!(*log.lock().expect("not poisoned"), ["drained"]);
    }
}
