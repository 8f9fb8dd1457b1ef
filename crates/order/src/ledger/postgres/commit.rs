//! Group commit: what a batch waits for, and what is done when it cannot be committed as a whole.

use std::time::Duration;

use super::{PostgresLedger, Session, item_lock, statements::locks};
use crate::ledger::{
    COMMIT_BATCH_MAX, CommitOutcome, LedgerError, NewOrder,
    judging::bounded,
    steps::{self, Statements},
};

/// How long a batch waits for a lock, in milliseconds: all orders behind it wait too. With the committer's retries longer
/// than whoever has the lock may do nothing.
pub const COMMIT_LOCK_WAIT_MAX_MS: u64 = 400;
/// When a batch begins with no further order that is committed alone, in milliseconds: early enough for the last one to end
/// before the committer gives up the batch.
pub const COMMIT_ALONE_MAX_MS: u64 = 2_000;
/// How long a commit may take once it has a connection, in milliseconds: more than a statement, and with the wait for the
/// connection less than the committer waits for a batch. Then there is an outage.
pub const COMMIT_CALL_MAX_MS: u64 = 2_400;

/// Takes the locks that are free, and answers the others.
const LOCK_FREE_ITEMS: &str = "
    SELECT number FROM unnest($1::bigint[]) AS number WHERE NOT pg_try_advisory_xact_lock_shared(number)";

/// SQLSTATE of a wait for a lock that was too long.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATEs, or classes of them, that one order, or what stands under its id or key, may be to blame for: data that does
/// not fit, a constraint, a limit; a rollback for the sake of another transaction, which a single order cannot cause; and
/// a lock.
const ORDER_ERRORS: [&str; 5] = ["22", "23", "54", "40", LOCK_NOT_AVAILABLE];

/// Nothing was done for an order.
#[derive(Debug, thiserror::Error)]
enum NotTried {
    #[error("the item is locked")]
    ItemLocked,
    #[error("orders before it took too long")]
    NoTimeLeft,
}

impl From<NotTried> for LedgerError {
    fn from(error: NotTried) -> Self {
        Self::Store(Box::new(error))
    }
}

fn has_code(error: &LedgerError, codes: &[&str]) -> bool {
    let LedgerError::Store(source) = error else { return false };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref() else { return false };
    database.code().is_some_and(|code| codes.iter().any(|start| code.starts_with(start)))
}

/// Whether the others may go through without the one to blame. In all these cases nothing was committed.
fn blames_order(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Corrupt(_)) || has_code(error, &ORDER_ERRORS)
}

type Outcomes = Vec<Result<CommitOutcome, LedgerError>>;

impl PostgresLedger {
    pub(super) async fn commit_batch(&self, orders: &[NewOrder]) -> Result<Outcomes, LedgerError> {
        bounded(orders.len(), COMMIT_BATCH_MAX)?;
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let began = self.env.uptime();
        let mut committed = self.pool.call(COMMIT_CALL_MAX_MS, |session| self.commit_together(session, orders)).await;
        if committed.as_ref().is_err_and(|error| has_code(error, &[LOCK_NOT_AVAILABLE])) {
            committed = self.pool.call(COMMIT_CALL_MAX_MS, |session| self.commit_free(session, orders)).await;
        }
        match committed {
            Err(error) if blames_order(&error) => {
                self.commit_each_alone(orders, began + Duration::from_millis(COMMIT_ALONE_MAX_MS)).await
            }
            committed => committed,
        }
    }

    /// `until` is an uptime.
    async fn commit_each_alone(&self, orders: &[NewOrder], until: Duration) -> Result<Outcomes, LedgerError> {
        let mut outcomes = Vec::with_capacity(orders.len());
        for order in orders {
            if self.env.uptime() >= until {
                outcomes.push(Err(NotTried::NoTimeLeft.into()));
                continue;
            }
            let alone = std::slice::from_ref(order);
            match self.pool.call(COMMIT_CALL_MAX_MS, |session| self.commit_together(session, alone)).await {
                Ok(one) => outcomes.extend(one),
                Err(error) if blames_order(&error) => outcomes.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(outcomes)
    }

    /// One transaction.
    async fn commit_together(&self, session: Session, orders: &[NewOrder]) -> Result<Outcomes, LedgerError> {
        let transaction = session.begin_waiting(COMMIT_LOCK_WAIT_MAX_MS).await?;
        let outcomes = steps::commit(transaction, &self.env, orders).await?;
        Ok(outcomes.into_iter().map(Ok).collect())
    }

    /// One transaction of the orders whose items' locks are free. One item that is locked stops no other.
    async fn commit_free(&self, session: Session, orders: &[NewOrder]) -> Result<Outcomes, LedgerError> {
        let mut transaction = session.begin_waiting(COMMIT_LOCK_WAIT_MAX_MS).await?;
        let locks = locks(orders.iter().map(|order| &order.stamp.item));
        let locked: Vec<i64> = sqlx::query_scalar(LOCK_FREE_ITEMS).bind(locks).fetch_all(&mut *transaction).await?;
        let is_free = |order: &NewOrder| !locked.contains(&item_lock(&order.stamp.item));
        let free: Vec<NewOrder> = orders.iter().filter(|order| is_free(order)).cloned().collect();
        let mut outcomes = steps::write(&mut transaction, &self.env, &free).await?.into_iter();
        transaction.commit().await?;
        let written = |order| is_free(order).then(|| outcomes.next().expect("one for each that is free"));
        Ok(orders.iter().map(written).map(|outcome| outcome.ok_or_else(|| NotTried::ItemLocked.into())).collect())
    }
}
