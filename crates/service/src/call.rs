//! What travels with a call besides its message: how long it may take, and whose request it serves.

use std::time::Duration;

use contracts::{Failure, Reason, values::Token};

use crate::environment::{Env, Environment};

/// Time given to a call that names no deadline.
pub const CALL_TIMEOUT_DEFAULT_MS: u64 = 5_000;
/// Longest deadline that a caller may ask for; longer ones are cut to it.
pub const CALL_TIMEOUT_MAX_MS: u64 = 30_000;

/// Travels from the edge to the last store. The trace context travels beside it, as the current span.
#[derive(Debug, Clone)]
pub struct Call {
    /// Until when an answer is of use, as [`Environment::uptime`] of this process.
    pub deadline: Duration,
    /// The request that it serves, for logs.
    pub request_id: Token,
}

impl Call {
    /// A call with `timeout` from now, cut to [`CALL_TIMEOUT_MAX_MS`].
    pub fn new(env: &dyn Environment, timeout: Duration, request_id: Token) -> Self {
        let timeout = timeout.min(Duration::from_millis(CALL_TIMEOUT_MAX_MS));
        Self { deadline: env.uptime() + timeout, request_id }
    }

    /// A call that nobody outside asked for.
    pub fn background(env: &dyn Environment) -> Self {
        Self::new(env, Duration::from_millis(CALL_TIMEOUT_DEFAULT_MS), env.uuid().into())
    }

    /// What is left of it.
    pub fn remaining(&self, env: &dyn Environment) -> Duration {
        self.deadline.saturating_sub(env.uptime())
    }

    /// `DEADLINE_EXCEEDED` once it is over.
    pub fn check(&self, env: &dyn Environment) -> Result<(), Failure> {
        if self.remaining(env).is_zero() { Err(Failure::of(Reason::DeadlineExceeded)) } else { Ok(()) }
    }

    /// Runs `work` until the deadline.
    pub async fn bounded<T>(&self, env: &Env, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match env.timeout(self.remaining(&**env), work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::of(Reason::DeadlineExceeded)),
        }
    }
}
