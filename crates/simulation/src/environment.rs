//! What a simulated process takes from the world.

use std::{sync::Arc, time::Duration};

use contracts::values::Timestamp;
use futures::future::BoxFuture;
use service::environment::{Env, Environment};

use crate::executor::{Executor, Kind, ProcessId};

/// Where the wall clock starts: some moment, in microseconds since the Unix epoch.
pub const START_MICROS: i64 = 1_795_000_000_000_000;

/// Time, randomness and tasks of one process in one of its lives.
pub struct SimEnvironment {
    executor: Executor,
    process: ProcessId,
    life: u64,
    starts: Kind,
}

impl SimEnvironment {
    /// Of the process' present life. What it starts is of the kind `starts`.
    pub fn of(executor: &Executor, process: ProcessId, starts: Kind) -> Env {
        Arc::new(Self { executor: executor.clone(), process, life: executor.life(process), starts })
    }
}

impl Environment for SimEnvironment {
    fn now(&self) -> Timestamp {
        let jumped = self.executor.jumped_micros(self.process);
        Timestamp(START_MICROS.saturating_add(jumped)).plus(self.executor.now())
    }

    fn uptime(&self) -> Duration {
        self.executor.uptime(self.process)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.executor.sleep(duration))
    }

    fn start(&self, task: BoxFuture<'static, ()>) {
        // What is started while a process dies dies with it.
        if self.executor.life(self.process) != self.life {
            return;
        }
        self.executor.start(self.process, self.starts, task);
    }

    fn random(&self) -> u128 {
        self.executor.random()
    }
}
