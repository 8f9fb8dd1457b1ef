//! Keeps what gRPC health says in step with the stores that a service stands on, and falls before the drain.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{environment::Env, rpc::Health};

/// Time between checks, in milliseconds.
pub const CHECK_INTERVAL_MS: u64 = 1_000;
/// A store that takes longer to answer is counted as down, in milliseconds.
pub const CHECK_TIMEOUT_MS: u64 = 1_000;

/// Asks a store whether it can answer.
pub type Check = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// Says for each of `services` whether it serves, as `check` tells, until `drain`; then none of them serves.
pub async fn keep(env: Env, health: Health, services: &[&'static str], check: Check, drain: CancellationToken) {
    let say = |serving| {
        for service in services {
            health.say(service, serving);
        }
    };
    while !drain.is_cancelled() {
        let answer = env.timeout(Duration::from_millis(CHECK_TIMEOUT_MS), check()).await;
        say(answer.unwrap_or(false) && !drain.is_cancelled());
        tokio::select! {
            biased;
            () = drain.cancelled() => {}
            () = env.sleep(Duration::from_millis(CHECK_INTERVAL_MS)) => {}
        }
    }
    say(false);
}
