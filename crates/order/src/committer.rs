//! Group commit: every order that waits is committed in one transaction with the others. It never waits for a batch to
//! fill: an order that finds the ledger idle is committed at once, alone.

use std::{sync::Arc, time::Duration};

use contracts::{Failure, Reason};
use service::environment::{Env, TimedOut};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{COMMIT_BATCH_MAX, CommitOutcome, Ledger, NewOrder},
    metrics::OrderMetrics,
};

/// Most orders that wait for a commit; more are refused as overload.
pub const COMMIT_QUEUE_MAX: usize = 4096;
/// How often an order whose commit failed is committed again under the same id. The edge then tries another order service.
pub const COMMIT_RETRIES_MAX: u32 = 2;
/// First wait before that, in milliseconds; it doubles.
pub const COMMIT_BACKOFF_MS: u64 = 20;
/// How long the ledger may take for one batch, in milliseconds. Then it is in doubt, and the next batch is tried: one that
/// hangs stops no other. Longer than a ledger takes to find out by itself.
pub const COMMIT_MAX_MS: u64 = 4_000;

type Answer = oneshot::Sender<Result<CommitOutcome, Failure>>;

/// Where orders wait.
#[derive(Clone)]
pub struct Committer {
    env: Env,
    metrics: OrderMetrics,
    queue: mpsc::Sender<(NewOrder, Answer)>,
}

/// What takes them from there.
pub struct CommitLoop {
    env: Env,
    ledger: Arc<dyn Ledger>,
    metrics: OrderMetrics,
    waiting: mpsc::Receiver<(NewOrder, Answer)>,
    wake_relay: Arc<Notify>,
}

impl Committer {
    /// A queue and the loop that empties it, which has to be run. `wake_relay` is notified after every transaction.
    pub fn new(
        env: Env,
        ledger: Arc<dyn Ledger>,
        metrics: OrderMetrics,
        wake_relay: Arc<Notify>,
    ) -> (Self, CommitLoop) {
        let (queue, waiting) = mpsc::channel(COMMIT_QUEUE_MAX);
        let commits = CommitLoop { env: env.clone(), ledger, metrics: metrics.clone(), waiting, wake_relay };
        (Self { env, metrics, queue }, commits)
    }

    /// Orders that wait for a transaction.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Commits one order. When the ledger fails it is not known whether the order was committed, so the same order, with
    /// the same id, is committed again; the hold is never released on doubt. An order that is found after a doubt counts
    /// as created: no caller was told of it before.
    pub async fn commit(&self, order: &NewOrder) -> Result<CommitOutcome, Failure> {
        let mut backoff = Duration::from_millis(COMMIT_BACKOFF_MS);
        let mut result = self.commit_once(order).await;
        for _ in 0..COMMIT_RETRIES_MAX {
            match result {
                Err(failure) if failure.reason == Reason::Unavailable => {}
                known => return known,
            }
            self.env.sleep(self.env.jittered(backoff)).await;
            backoff *= 2;
            result = match self.commit_once(order).await {
                // What stands under a client's hold may be the order of another request on it.
                Ok(CommitOutcome::Existing(order)) if !order.id.is_client() => {
                    self.metrics.order_created();
                    return Ok(CommitOutcome::Created(order));
                }
                // "Nothing was done" would be a guess.
                Err(failure) if failure.reason == Reason::Overloaded => Err(Failure::unavailable(failure)),
                other => other,
            };
        }
        result
    }

    async fn commit_once(&self, order: &NewOrder) -> Result<CommitOutcome, Failure> {
        let (answer, result) = oneshot::channel();
        self.queue.try_send((order.clone(), answer)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Failure::of(Reason::Overloaded),
            mpsc::error::TrySendError::Closed(_) => Failure::unavailable("the committer has stopped"),
        })?;
        result.await.unwrap_or_else(|_| Err(Failure::unavailable("the committer died")))
    }
}

impl CommitLoop {
    /// Commits until `stop`, then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(COMMIT_BATCH_MAX);
        loop {
            let taken = tokio::select! {
                biased;
                taken = self.waiting.recv_many(&mut batch, COMMIT_BATCH_MAX) => taken,
                () = stop.cancelled() => 0,
            };
            if taken == 0 {
                return;
            }
            self.commit(&mut batch).await;
        }
    }

    async fn commit(&self, batch: &mut Vec<(NewOrder, Answer)>) {
        let (orders, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        self.metrics.commit_batch(orders.len());
        let limit = Duration::from_millis(COMMIT_MAX_MS);
        let committed = self.env.timeout(limit, self.ledger.commit(&orders)).await;
        // Also after a failure, which may have committed.
        self.wake_relay.notify_one();
        let failure = match committed {
            Ok(Ok(outcomes)) => {
                assert_eq!(outcomes.len(), answers.len(), "one outcome for each order");
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    if matches!(outcome, Ok(CommitOutcome::Created(_))) {
                        self.metrics.order_created();
                    }
                    // A caller that stopped waiting finds its order when it repeats the request.
                    let _ = answer.send(outcome.map_err(Failure::from));
                }
                return;
            }
            Ok(Err(error)) => Failure::from(error),
            Err(TimedOut) => Failure::unavailable(format!("the ledger gave no answer within {COMMIT_MAX_MS} ms")),
        };
        for answer in answers {
            let _ = answer.send(Err(failure.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use service::manual::ManualEnvironment;
    use tempfile::TempDir;

    use super::*;
    use crate::ledger::{
        conformance::{Bench, LedgerFixture, item},
        sqlite::SqliteLedger,
    };

    struct Fixture(Arc<SqliteLedger>, #[expect(dead_code, reason = "kept as long as the ledger")] TempDir);

    #[async_trait::async_trait]
    impl LedgerFixture for Fixture {
        async fn fresh(env: Env) -> Self {
            let data = TempDir::new().expect("a temporary directory");
            let ledger = SqliteLedger::open(&data.path().join("ledger.db"), env).await.expect("opens");
            Self(ledger, data)
        }

        fn ledger(&self) -> Arc<dyn Ledger> {
            self.0.clone()
        }

        async fn sql(&self, _: &'static str) -> Option<Result<(), String>> {
            None
        }
    }

    #[tokio::test]
    async fn what_may_have_been_committed_is_never_called_refused() {
        let clock = ManualEnvironment::new(1);
        let bench = Bench::over(Fixture::fresh(clock.clone()).await, clock.clone());
        let lease = bench.lease(&item("widget"), 10).await;
        let order = bench.order(&lease);
        let metrics = OrderMetrics::register(&mut Registry::default());
        let (committer, mut commits) = Committer::new(bench.env(), bench.ledger.clone(), metrics, Arc::default());
        let fill = || while committer.queue.try_send((order.clone(), oneshot::channel().0)).is_ok() {};

        fill();
        let refused = committer.commit(&order).await.expect_err("the queue is full");
        assert_eq!(refused.reason, Reason::Overloaded, "it was not even taken");
        while commits.waiting.try_recv().is_ok() {}

        let mut commit = std::pin::pin!(committer.commit(&order));
        let doubtful = loop {
            tokio::select! {
                biased;
                result = &mut commit => break result,
                taken = commits.waiting.recv(), if committer.waiting() == 1 => {
                    fill();
                    let (_, answer) = taken.expect("an order");
                    assert!(answer.send(Err(Failure::unavailable("the answer was lost"))).is_ok());
                }
                () = tokio::task::yield_now() => clock.advance(Duration::from_millis(COMMIT_BACKOFF_MS)),
            }
        };
        assert_eq!(doubtful.expect_err("in doubt").reason, Reason::Unavailable);
    }
}
