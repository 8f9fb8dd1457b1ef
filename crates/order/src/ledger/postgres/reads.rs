//! Confirmed orders by id, by key and by page; stock; verdicts.

use contracts::values::{Item, ReservationId, Timestamp};
use uuid::Uuid;

use super::{PostgresLedger, Session};
use crate::ledger::{
    ItemStock, KeyedOrder, LedgerError, ListQuery, Order, QUERY_BATCH_MAX, RequestKey, ResolveQuery, Verdict,
    judging::bounded,
    rows::{OrderRow, StoredTime},
    steps::{self, Statements},
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
        let found = session.by_keys(&[key.as_str()]).await?.into_values().next();
        session.keep();
        Ok(found)
    }

    pub(super) async fn read_stock(
        &self,
        mut session: Session,
        items: &[Item],
        initial: i64,
    ) -> Result<Vec<ItemStock>, LedgerError> {
        bounded(items.len(), QUERY_BATCH_MAX)?;
        let counted = session.count(items, initial).await?;
        session.keep();
        Ok(counted)
    }

    pub(super) async fn judge(
        &self,
        mut session: Session,
        queries: &[ResolveQuery],
    ) -> Result<Vec<Verdict>, LedgerError> {
        bounded(queries.len(), QUERY_BATCH_MAX)?;
        if !steps::only_look(queries) {
            return steps::judge(session.begin().await?, &self.env, queries).await;
        }
        let verdicts = steps::verdicts(&mut session, queries).await?;
        session.keep();
        Ok(verdicts)
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
