//! An environment for tests, whose clock stands still until it is moved and whose random numbers come from a seed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use contracts::values::Timestamp;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::environment::Environment;

/// Where the wall clock starts: some moment, in microseconds since the Unix epoch.
const START_MICROS: i64 = 1_795_000_000_000_000;

/// Time by hand, randomness from a seed, tasks on the test's runtime.
pub struct ManualEnvironment {
    /// How far the wall clock is ahead of start plus uptime.
    jumped_micros: AtomicI64,
    uptime: watch::Sender<Duration>,
    random: AtomicU64,
    tasks: TaskTracker,
}

impl ManualEnvironment {
    /// The same seed gives the same random numbers.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            jumped_micros: AtomicI64::new(0),
            uptime: watch::Sender::new(Duration::ZERO),
            random: AtomicU64::new(seed),
            tasks: TaskTracker::new(),
        })
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.uptime.send_modify(|uptime| *uptime += by);
    }

    /// The wall clock jumps by so many microseconds, forth or back, while no time passes: nobody who sleeps wakes up by
    /// it.
    pub fn jump(&self, micros: i64) {
        self.jumped_micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Environment for ManualEnvironment {
    fn now(&self) -> Timestamp {
        Timestamp(START_MICROS.saturating_add(self.jumped_micros.load(Ordering::SeqCst))).plus(self.uptime())
    }

    fn uptime(&self) -> Duration {
        *self.uptime.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let end = self.uptime() + duration;
        let mut uptime = self.uptime.subscribe();
        Box::pin(async move {
            if uptime.wait_for(|uptime| *uptime >= end).await.is_err() {
                // The clock is gone: this moment never comes.
                std::future::pending::<()>().await;
            }
        })
    }

    fn start(&self, task: BoxFuture<'static, ()>) {
        self.tasks.spawn(task);
    }

    fn random(&self) -> u128 {
        let half = || u128::from(mix(self.random.fetch_add(STEP, Ordering::SeqCst)));
        half() << 64 | half()
    }
}

/// Distance of two states of a random sequence: odd and without a pattern, so that all 64 bits are passed through.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random number of a state, as in `SplitMix64`.
fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Random numbers that a seed determines.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0) % end
    }
}
