//! Confirmed orders by id, by key and by page.

use contracts::values::{ReservationId, Timestamp};
use uuid::Uuid;

use super::{PostgresLedger, Session, commit};
use crate::ledger::{
    KeyedOrder, LedgerError, ListQuery, Order, RequestKey,
    rows::{KeyedRow, OrderRow, StoredTime},
};

const ORDER: &str = "SELECT id, item, quantity, created_at FROM order_verdicts WHERE id = $1 AND state = 'confirmed'";

const PAGE: &str = "
    SELECT id, item, quantity, created_at FROM order_verdicts
    WHERE state = 'confirmed' AND (created_at, id) < ($1, $2)
    ORDER BY created_at DESC, id DESC LIMIT $3";

const PAGE_OF_ITEM: &str = "
    SELECT id, item, quantity, created_at FROM order_verdicts
    WHERE state = 'confirmed' AND (created_at, id) < ($1, $2) AND item = $4
    ORDER BY created_at DESC, id DESC LIMIT $3";

impl PostgresLedger {
    pub(super) async fn read_order(
        &self,
        mut session: Session,
        id: ReservationId,
    ) -> Result<Option<Order>, LedgerError> {
        let row: Option<OrderRow> = sqlx::query_as(ORDER).bind(id.0).fetch_optional(&mut *session).await?;
        session.keep();
        row.map(Order::try_from).transpose()
    }

    pub(super) async fn read_by_key(
        &self,
        mut session: Session,
        key: &RequestKey,
    ) -> Result<Option<KeyedOrder>, LedgerError> {
        let row: Option<KeyedRow> =
            sqlx::query_as(commit::BY_KEY).bind(vec![key.as_str()]).fetch_optional(&mut *session).await?;
        session.keep();
        row.map(|row| Ok(row.parse()?.1)).transpose()
    }

    pub(super) async fn read_page(&self, mut session: Session, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        // The first page comes after what is above every order.
        let (time, id) = query.after.map_or((Timestamp(i64::MAX), Uuid::max()), |(time, id)| (time, id.0));
        let sql = if query.item.is_some() { PAGE_OF_ITEM } else { PAGE };
        let mut page = sqlx::query_as(sql).bind(StoredTime(time)).bind(id).bind(i64::from(query.limit));
        if let Some(item) = &query.item {
            page = page.bind(item.as_str());
        }
        let rows: Vec<OrderRow> = page.fetch_all(&mut *session).await?;
        session.keep();
        rows.into_iter().map(Order::try_from).collect()
    }
}
