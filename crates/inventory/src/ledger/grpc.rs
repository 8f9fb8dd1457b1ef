//! The ledger over gRPC. Answers are parsed here: what cannot be is an internal error, and nothing is done with it.

use super::{ItemStock, LedgerBooks, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict};
use async_trait::async_trait;
use contracts::{
    Failure,
    ledger::{Books, BooksOf},
    orders::v1::{
        GetBooksRequest, GetStockRequest, GetStockResponse, OpenStockRequest, OpenStockResponse, RecordRestockRequest,
        RecordRestockResponse, ReservationQuery, ResolveReservationRequest, ResolveReservationResponse,
        Stamp as StampMessage, Verdict as VerdictMessage, get_books_request::Which,
        ledger_service_client::LedgerServiceClient, open_stock_response::Outcome,
    },
    values::{Epoch, Item, Lease},
};
use service::{
    call::Call,
    rpc_client::{Peer, Repeat},
};

/// A client of `orders.v1.LedgerService`.
pub struct GrpcLedger {
    peer: Peer,
}

impl GrpcLedger {
    /// Connects when first used.
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

/// The message of [`StockLedger::open_stock`].
pub fn open_message(item: &Item, initial: i64, dead: Epoch) -> OpenStockRequest {
    OpenStockRequest { item: item.to_string(), initial, dead_epoch: dead.0 }
}

/// What the answer says.
pub fn opened(item: &Item, dead: Epoch, answer: &OpenStockResponse) -> Result<OpenOutcome, Failure> {
    match &answer.outcome {
        Some(Outcome::Wait(_)) => Ok(OpenOutcome::Wait),
        Some(Outcome::Lease(lease)) => {
            let (epoch, received, sold) = (Epoch(lease.epoch), lease.received, lease.sold);
            if epoch <= dead || sold < 0 || received < sold {
                return Err(Failure::internal(format!("a lease that cannot be: {lease:?} for {item}")));
            }
            Ok(OpenOutcome::Lease(Lease { item: item.clone(), epoch, received, sold }))
        }
        None => Err(Failure::internal("a lease was answered without an outcome")),
    }
}

/// The message of [`StockLedger::stock`].
pub fn stock_message(items: &[Item], initial: i64) -> GetStockRequest {
    GetStockRequest { items: items.iter().map(Item::to_string).collect(), initial }
}

/// What the answer says.
pub fn stocks(answer: GetStockResponse) -> Result<Vec<ItemStock>, Failure> {
    let parse = |stock: contracts::orders::v1::ItemStock| {
        if stock.epoch < 0 || stock.sold < 0 || stock.received < 0 {
            return Err(Failure::internal(format!("a stock that cannot be: {stock:?}")));
        }
        Ok(ItemStock { epoch: Epoch(stock.epoch), received: stock.received, sold: stock.sold })
    };
    answer.stocks.into_iter().map(parse).collect()
}

/// The message of [`StockLedger::resolve`].
pub fn resolve_message(queries: &[ResolveQuery]) -> ResolveReservationRequest {
    let reservations = queries.iter().map(|query| ReservationQuery {
        reservation_id: query.id.to_string(),
        stamp: query.stamp.as_ref().map(|stamp| StampMessage {
            item: stamp.item.to_string(),
            epoch: stamp.epoch.0,
            number: stamp.number,
        }),
    });
    ResolveReservationRequest { reservations: reservations.collect() }
}

/// What the answer says.
pub fn verdicts(answer: &ResolveReservationResponse) -> Result<Vec<Verdict>, Failure> {
    answer
        .verdicts()
        .map(|verdict| match verdict {
            VerdictMessage::Confirmed => Ok(Verdict::Confirmed),
            VerdictMessage::ConfirmedElsewhere => Ok(Verdict::ConfirmedElsewhere),
            VerdictMessage::Aborted => Ok(Verdict::Aborted),
            VerdictMessage::Unknown => Ok(Verdict::Unknown),
            VerdictMessage::Unspecified => Err(Failure::internal("a verdict that cannot be")),
        })
        .collect()
}

/// The message of [`StockLedger::record_restock`].
pub fn restock_message(restock: &Restock, initial: i64) -> RecordRestockRequest {
    RecordRestockRequest {
        id: restock.id.to_string(),
        item: restock.item.to_string(),
        quantity: restock.quantity.get(),
        initial,
    }
}

/// What the answer says.
pub fn restocked(answer: &RecordRestockResponse) -> Result<Epoch, Failure> {
    if answer.epoch < 0 {
        return Err(Failure::internal(format!("a restock of epoch {}", answer.epoch)));
    }
    Ok(Epoch(answer.epoch))
}

#[async_trait]
impl StockLedger for GrpcLedger {
    async fn open_stock(&self, call: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        // A second one raises the epoch, and the lease of the first is dead.
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/OpenStock",
                Repeat::OneAtATime,
                open_message(item, initial, dead),
                |channel, request| async move { LedgerServiceClient::new(channel).open_stock(request).await },
            )
            .await?;
        opened(item, dead, &answer)
    }

    async fn stock(&self, call: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/GetStock",
                Repeat::Safe,
                stock_message(items, initial),
                |channel, request| async move { LedgerServiceClient::new(channel).get_stock(request).await },
            )
            .await?;
        stocks(answer)
    }

    async fn resolve(&self, call: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/ResolveReservation",
                Repeat::Safe,
                resolve_message(queries),
                |channel, request| async move { LedgerServiceClient::new(channel).resolve_reservation(request).await },
            )
            .await?;
        verdicts(&answer)
    }

    async fn record_restock(&self, call: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure> {
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/RecordRestock",
                Repeat::Safe,
                restock_message(restock, initial),
                |channel, request| async move { LedgerServiceClient::new(channel).record_restock(request).await },
            )
            .await?;
        restocked(&answer)
    }
}

#[async_trait]
impl LedgerBooks for GrpcLedger {
    async fn books(&self, call: &Call, of: &BooksOf) -> Result<Option<Books>, Failure> {
        let which = match of {
            BooksOf::Item(item) => Which::Item(item.to_string()),
            BooksOf::After(after) => Which::After(after.as_ref().map_or_else(String::new, Item::to_string)),
        };
        let message = GetBooksRequest { which: Some(which) };
        let answer = self
            .peer
            .unary(call, "orders.v1.LedgerService/GetBooks", Repeat::Safe, message, |channel, request| async move {
                LedgerServiceClient::new(channel).get_books(request).await
            })
            .await?;
        let Some(books) = answer.books else { return Ok(None) };
        let item = Item::parse(&books.item).map_err(|invalid| Failure::internal(format!("books: {invalid}")))?;
        let fits = match of {
            BooksOf::Item(asked) => item == *asked,
            BooksOf::After(after) => after.as_ref().is_none_or(|after| item > *after),
        };
        let numbers = [books.epoch, books.received, books.settled, books.outbox_units, books.outbox_events];
        if !fits || numbers.iter().any(|number| *number < 0) {
            return Err(Failure::internal(format!("books that cannot be: {books:?} for {of:?}")));
        }
        Ok(Some(Books {
            item,
            epoch: Epoch(books.epoch),
            received: books.received,
            settled: books.settled,
            outbox_units: books.outbox_units,
            outbox_events: books.outbox_events,
            orders: books.orders,
        }))
    }
}
