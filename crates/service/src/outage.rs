//! How background work behaves while a part is down: it logs the change, not every failure, and waits longer each time.

use std::time::Duration;

use contracts::Failure;

use crate::environment::Env;

/// First wait after a failure, in milliseconds; it doubles.
pub const OUTAGE_BACKOFF_MIN_MS: u64 = 100;
/// Longest wait after failures, in milliseconds: what it costs at most to notice that the part is back.
pub const OUTAGE_BACKOFF_MAX_MS: u64 = 1_000;

/// Whether something works, and since when it does not.
pub struct Outage {
    env: Env,
    what: &'static str,
    failures: u32,
    since: Duration,
}

impl Outage {
    /// Of `what`, which works so far.
    pub fn new(env: Env, what: &'static str) -> Self {
        Self { env, what, failures: 0, since: Duration::ZERO }
    }

    /// It failed: how long to wait before the next try.
    pub fn failed(&mut self, failure: &Failure) -> Duration {
        if self.failures == 0 {
            self.since = self.env.uptime();
            let cause = failure.cause.as_deref().unwrap_or_default();
            tracing::warn!(reason = failure.reason.name(), cause, "{} is interrupted", self.what);
        }
        self.failures = self.failures.saturating_add(1);
        let doubled = OUTAGE_BACKOFF_MIN_MS << (self.failures - 1).min(10);
        self.env.jittered(Duration::from_millis(doubled.min(OUTAGE_BACKOFF_MAX_MS)))
    }

    /// It works.
    pub fn works(&mut self) {
        if self.failures > 0 {
            let seconds = self.env.uptime().saturating_sub(self.since).as_secs_f64();
            tracing::info!(failures = self.failures, seconds, "{} goes on", self.what);
        }
        self.failures = 0;
    }
}
