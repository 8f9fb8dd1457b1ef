//! What a program takes from the world besides its peers: time, randomness and tasks. Everything takes an [`Env`] for
//! it, so that a simulation can hand in its own; `clippy.toml` bans the direct ways.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use contracts::values::Timestamp;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

/// Time, randomness and tasks.
pub trait Environment: Send + Sync + 'static {
    /// The wall clock. It may jump.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment of this process. It never goes back.
    fn uptime(&self) -> Duration;
    /// Resolves after this long.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Runs a task. Shutdown waits for it, up to its deadline.
    fn start(&self, task: BoxFuture<'static, ()>);
    /// 128 random bits.
    fn random(&self) -> u128;
}

/// Shared by everything in a process.
pub type Env = Arc<dyn Environment>;

/// The wait was longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

impl dyn Environment {
    /// A fresh v4 id.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.random().to_be_bytes()).into_uuid()
    }

    /// Between half of `duration` and all of it.
    pub fn jittered(&self, duration: Duration) -> Duration {
        let part = u32::try_from(self.random() % 1024).expect("below 1024");
        duration / 2 + duration * part / 2048
    }

    /// `work`'s result, unless it takes longer than `limit`; then it is dropped.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(limit) => Err(TimedOut),
        }
    }

    /// Runs `work` in a task of its own: it goes on when the caller stops waiting. `None` if the task died.
    pub async fn detached<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let task = async move {
            // Nobody waiting is no error: the work was done for its effect.
            let _ = done.send(work.await);
        };
        self.start(Box::pin(task.in_current_span()));
        result.await.ok()
    }
}

/// The real world: tokio and the operating system.
pub struct RealEnvironment {
    started: Instant,
    tasks: TaskTracker,
}

impl RealEnvironment {
    /// Tasks are counted in `tasks`, so that shutdown can wait for them.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that takes them from the system")]
    pub fn new(tasks: TaskTracker) -> Self {
        Self { started: Instant::now(), tasks }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that takes them from the system")]
impl Environment for RealEnvironment {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn start(&self, task: BoxFuture<'static, ()>) {
        self.tasks.spawn(task);
    }

    fn random(&self) -> u128 {
        rand::random()
    }
}
