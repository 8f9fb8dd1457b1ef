//! Group commit: what is done when a batch cannot be committed as a whole.

use super::SqliteLedger;
use crate::ledger::{COMMIT_BATCH_MAX, CommitOutcome, LedgerError, NewOrder, judging::bounded, steps};

/// SQLite's primary result codes for "this value does not fit": too big, constraint, mismatch.
const DATA_ERRORS: [i32; 3] = [18, 19, 20];

/// Whether one order, or what stands under its id or key, is to blame, so that the others may go through without it.
fn blames_data(error: &LedgerError) -> bool {
    let LedgerError::Store(source) = error else { return true };
    let Some(sqlx::Error::Database(database)) = source.downcast_ref() else { return false };
    let code: Option<i32> = database.code().and_then(|code| code.parse().ok());
    code.is_some_and(|extended| DATA_ERRORS.contains(&(extended & 0xff)))
}

impl SqliteLedger {
    pub(super) async fn commit_batch(
        &self,
        orders: &[NewOrder],
    ) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        bounded(orders.len(), COMMIT_BATCH_MAX)?;
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        match self.commit_together(orders).await {
            Ok(outcomes) => Ok(outcomes.into_iter().map(Ok).collect()),
            Err(error) if blames_data(&error) => self.commit_each_alone(orders).await,
            Err(error) => Err(error),
        }
    }

    async fn commit_each_alone(
        &self,
        orders: &[NewOrder],
    ) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        let mut outcomes = Vec::with_capacity(orders.len());
        for order in orders {
            outcomes.push(match self.commit_together(std::slice::from_ref(order)).await {
                Ok(mut one) => Ok(one.remove(0)),
                Err(error) if blames_data(&error) => Err(error),
                Err(error) => return Err(error),
            });
        }
        Ok(outcomes)
    }

    /// One transaction.
    async fn commit_together(&self, orders: &[NewOrder]) -> Result<Vec<CommitOutcome>, LedgerError> {
        steps::commit(self.begin().await?, &self.env, orders).await
    }
}
