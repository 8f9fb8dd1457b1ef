//! What the tables say of one item: one statement, which both stores know, and so one moment.

use contracts::{
    ledger::{Books, BooksOf},
    values::{Epoch, Item},
};

use super::{BOOKS_ORDERS_MAX, LedgerError, judging::corrupt};

/// $1 a name, $2 whether it will do itself, $3 most orders that are summed up, and one more to see that there are more.
pub(super) const BOOKS: &str = "
    WITH lease AS (
        SELECT item, epoch, initial, settled FROM stock_leases
        WHERE item >= $1 AND (item > $1 OR $2) ORDER BY item LIMIT 1
    ), came_in AS (
        SELECT coalesce(sum(quantity), 0) AS units FROM restocks WHERE item = (SELECT item FROM lease)
    ), waiting AS (
        SELECT coalesce(sum(quantity), 0) AS units, count(*) AS events FROM outbox WHERE item = (SELECT item FROM lease)
    ), sold AS (
        SELECT coalesce(sum(quantity), 0) AS units, count(*) AS orders FROM (
            SELECT quantity FROM order_verdicts
            WHERE item = (SELECT item FROM lease) AND state = 'confirmed' LIMIT $3
        ) AS first_ones
    )
    SELECT item, epoch, initial + CAST(came_in.units AS bigint), settled, CAST(waiting.units AS bigint), waiting.events,
        CAST(sold.units AS bigint), sold.orders
    FROM lease, came_in, waiting, sold";

/// The name and whether it will do: $1 and $2.
pub(super) fn first(of: &BooksOf) -> (&str, bool) {
    match of {
        BooksOf::Item(item) => (item.as_str(), true),
        BooksOf::After(Some(item)) => (item.as_str(), false),
        // Below every name.
        BooksOf::After(None) => ("", false),
    }
}

/// $3.
pub(super) const ORDERS_READ_MAX: i64 = BOOKS_ORDERS_MAX + 1;

/// Item, epoch, received, settled, units and events in the outbox, units and number of the orders that were read.
pub(super) type BooksRow = (String, i64, i64, i64, i64, i64, i64, i64);

/// The answer; none if another item is the first.
pub(super) fn parse(of: &BooksOf, row: Option<BooksRow>) -> Result<Option<Books>, LedgerError> {
    let Some((item, epoch, received, settled, outbox_units, outbox_events, units, orders)) = row else {
        return Ok(None);
    };
    let item = Item::parse(&item).map_err(|invalid| corrupt(&"item", &invalid))?;
    if matches!(of, BooksOf::Item(asked) if *asked != item) {
        return Ok(None);
    }
    let orders = (orders <= BOOKS_ORDERS_MAX).then_some(units);
    Ok(Some(Books { item, epoch: Epoch(epoch), received, settled, outbox_units, outbox_events, orders }))
}
