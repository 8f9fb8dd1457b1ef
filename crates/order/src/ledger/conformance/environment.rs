//! A clock that a test moves.

use std::{
    future::Future,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use contracts::values::Timestamp;
use futures::future::BoxFuture;
use service::environment::Environment;
use tokio::sync::watch;

/// An environment whose time stands still until it is moved, and whose random numbers are the same in every run. Tasks
/// are tokio's.
pub struct ManualEnvironment {
    now: AtomicI64,
    uptime: watch::Sender<Duration>,
    numbers: AtomicU64,
}

impl Default for ManualEnvironment {
    fn default() -> Self {
        Self {
            now: AtomicI64::new(1_795_000_000_000_000),
            uptime: watch::Sender::new(Duration::ZERO),
            numbers: AtomicU64::new(0),
        }
    }
}

impl ManualEnvironment {
    /// Time passes.
    pub fn advance(&self, duration: Duration) {
        self.jump(i64::try_from(duration.as_micros()).expect("a test is short"));
        self.uptime.send_modify(|uptime| *uptime += duration);
    }

    /// Someone sets the wall clock, by so many microseconds. Nobody who sleeps wakes up by it.
    pub fn jump(&self, micros: i64) {
        self.now.fetch_add(micros, Ordering::SeqCst);
    }

    /// 1, 2, 3 and so on.
    pub fn next_number(&self) -> i64 {
        i64::try_from(self.numbers.fetch_add(1, Ordering::SeqCst) + 1).expect("a test is short")
    }
}

/// Spreads a number over 64 bits (the finaliser of splitmix64).
fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Environment for ManualEnvironment {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        *self.uptime.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut uptime = self.uptime.subscribe();
        let until = self.uptime() + duration;
        Box::pin(async move {
            if uptime.wait_for(|now| *now >= until).await.is_err() {
                // The clock is gone: this moment never comes.
                std::future::pending::<()>().await;
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "an environment is where tasks are started")]
    fn start(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn random(&self) -> u128 {
        let number = self.numbers.fetch_add(2, Ordering::SeqCst);
        u128::from(spread(number + 1)) << 64 | u128::from(spread(number + 2))
    }
}

/// Runs tasks side by side and waits for all of them.
pub async fn side_by_side<T: Send + 'static>(
    environment: &dyn Environment,
    tasks: impl IntoIterator<Item: Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let running: Vec<_> = tasks.into_iter().map(|task| environment.detached(task)).collect();
    let done = futures::future::join_all(running).await;
    done.into_iter().map(|result| result.expect("the task did not panic")).collect()
}
