//! Confirmed orders by id and by page; verdicts.

use contracts::values::ReservationId;
use sqlx::SqlitePool;

use super::{SqliteLedger, statements};
use crate::ledger::{
    LedgerError, ListQuery, Order, QUERY_BATCH_MAX, ResolveQuery, Verdict,
    judging::{self, bounded},
    rows::OrderRow,
    steps,
};

const ORDER: &str = "SELECT id, item, quantity, created_at FROM order_verdicts WHERE id = $1 AND state = 'confirmed'";

pub(super) const PAGE: &str = "
    SELECT id, item, quantity, created_at FROM order_verdicts
    WHERE state = 'confirmed' AND (created_at, id) < ($1, $2)
    ORDER BY created_at DESC, id DESC LIMIT $3";

pub(super) const PAGE_OF_ITEM: &str = "
    SELECT id, item, quantity, created_at FROM order_verdicts
    WHERE state = 'confirmed' AND (created_at, id) < ($1, $2) AND item = $4
    ORDER BY created_at DESC, id DESC LIMIT $3";

/// Above every id: the first page has no order before it.
const ABOVE_ALL_IDS: &str = "~";

pub(super) async fn order(readers: &SqlitePool, id: ReservationId) -> Result<Option<Order>, LedgerError> {
    let row: Option<OrderRow> = sqlx::query_as(ORDER).bind(id.to_string()).fetch_optional(readers).await?;
    row.map(Order::try_from).transpose()
}

impl SqliteLedger {
    pub(super) async fn judge(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        bounded(queries.len(), QUERY_BATCH_MAX)?;
        if steps::only_look(queries) {
            let standing = statements::stamps(&self.readers, &steps::ids(queries)).await?;
            return judging::verdicts(queries, &standing);
        }
        steps::judge(self.begin().await?, &self.env, queries).await
    }

    pub(super) async fn read_page(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        let (time, id) = query.after.map_or((i64::MAX, ABOVE_ALL_IDS.to_owned()), |(t, id)| (t.0, id.to_string()));
        let sql = if query.item.is_some() { PAGE_OF_ITEM } else { PAGE };
        let mut page = sqlx::query_as(sql).bind(time).bind(id).bind(query.limit);
        if let Some(item) = &query.item {
            page = page.bind(item.as_str());
        }
        let rows: Vec<OrderRow> = page.fetch_all(&self.client_readers).await?;
        rows.into_iter().map(Order::try_from).collect()
    }
}
