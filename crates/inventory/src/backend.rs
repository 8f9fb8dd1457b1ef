//! What every part of the service works on: the stock store and the ledger, each asked until the call's deadline.

use std::sync::Arc;

use contracts::{
    Failure,
    values::{Epoch, Item, ReservationId, Stamp},
};
use service::{call::Call, environment::Env};

use crate::{
    ledger::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict},
    metrics::InventoryMetrics,
    stock::{StockError, StockStore},
};

/// The stock store, the ledger and the rest that every part needs.
#[derive(Clone)]
pub struct Backend {
    /// Time, randomness and tasks.
    pub env: Env,
    /// The table of holds.
    pub store: Arc<dyn StockStore>,
    /// The judge.
    pub ledger: Arc<dyn StockLedger>,
    /// Units of an item that the ledger has never heard of.
    pub default_stock: i64,
    /// What is counted.
    pub metrics: InventoryMetrics,
}

impl Backend {
    /// A step of the store, until the deadline. Past it the step may still happen.
    pub async fn step<T>(&self, call: &Call, step: impl Future<Output = Result<T, StockError>>) -> Result<T, Failure> {
        call.bounded(&self.env, async { step.await.map_err(Failure::unavailable) }).await
    }

    /// [`StockLedger::open_stock`].
    pub async fn lease(&self, call: &Call, item: &Item, dead: Epoch) -> Result<OpenOutcome, Failure> {
        call.bounded(&self.env, self.ledger.open_stock(call, item, self.default_stock, dead)).await
    }

    /// [`StockLedger::stock`]: one answer for each item.
    pub async fn lent(&self, call: &Call, items: &[Item]) -> Result<Vec<ItemStock>, Failure> {
        let stocks = call.bounded(&self.env, self.ledger.stock(call, items, self.default_stock)).await?;
        aligned(items.len(), stocks)
    }

    /// [`StockLedger::stock`] of one item.
    pub async fn lent_of(&self, call: &Call, item: &Item) -> Result<ItemStock, Failure> {
        Ok(self.lent(call, std::slice::from_ref(item)).await?[0])
    }

    /// [`StockLedger::resolve`]: one answer for each reservation.
    pub async fn verdicts(&self, call: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        let verdicts = call.bounded(&self.env, self.ledger.resolve(call, queries)).await?;
        aligned(queries.len(), verdicts)
    }

    /// [`StockLedger::resolve`] of one reservation.
    pub async fn verdict_on(&self, call: &Call, id: ReservationId, stamp: Option<Stamp>) -> Result<Verdict, Failure> {
        Ok(self.verdicts(call, &[ResolveQuery { id, stamp }]).await?[0])
    }

    /// [`StockLedger::record_restock`].
    pub async fn journal(&self, call: &Call, restock: &Restock) -> Result<Epoch, Failure> {
        call.bounded(&self.env, self.ledger.record_restock(call, restock, self.default_stock)).await
    }
}

fn aligned<T>(asked: usize, answers: Vec<T>) -> Result<Vec<T>, Failure> {
    if answers.len() == asked {
        Ok(answers)
    } else {
        Err(Failure::internal(format!("the ledger gave {} answers to {asked} questions", answers.len())))
    }
}
