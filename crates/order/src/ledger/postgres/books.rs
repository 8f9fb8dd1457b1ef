//! What the tables say of one item.

use super::{PostgresLedger, Session};
use crate::ledger::{
    Books, BooksOf, LedgerError,
    books::{BOOKS, BooksRow, ORDERS_READ_MAX, first, parse},
};

impl PostgresLedger {
    pub(super) async fn read_books(&self, mut session: Session, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        let (name, itself) = first(of);
        let row: Option<BooksRow> =
            sqlx::query_as(BOOKS).bind(name).bind(itself).bind(ORDERS_READ_MAX).fetch_optional(&mut *session).await?;
        session.keep();
        parse(of, row)
    }
}
