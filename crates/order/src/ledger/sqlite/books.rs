//! What the tables say of one item.

use super::SqliteLedger;
use crate::ledger::{
    Books, BooksOf, LedgerError,
    books::{BOOKS, BooksRow, ORDERS_READ_MAX, first, parse},
};

impl SqliteLedger {
    pub(super) async fn read_books(&self, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        let (name, itself) = first(of);
        let row: Option<BooksRow> = sqlx::query_as(BOOKS)
            .bind(name)
            .bind(itself)
            .bind(ORDERS_READ_MAX)
            .fetch_optional(&self.client_readers)
            .await?;
        parse(of, row)
    }
}
