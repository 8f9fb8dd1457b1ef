//! Deletes tombstones that can no longer matter: those of a lease that a newer one has fenced. Never by age: a late
//! commit may be any age.

use std::{sync::Arc, time::Duration};

use service::environment::Env;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;

/// Time between rounds, in milliseconds.
pub const JANITOR_INTERVAL_MS: u64 = 60_000;
/// Most tombstones deleted in one transaction.
pub const PRUNE_BATCH_MAX: u32 = 1_000;

/// Prunes until `stop`.
pub async fn run(env: Env, ledger: Arc<dyn Ledger>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = env.sleep(env.jittered(Duration::from_millis(JANITOR_INTERVAL_MS))) => {}
        }
        // A failure is left to the next round; the ledger's health is watched elsewhere.
        while !stop.is_cancelled() && matches!(ledger.prune_tombstones(PRUNE_BATCH_MAX).await, Ok(1..)) {}
    }
}
