//! The ledger over gRPC. Answers are parsed here: what cannot be is an internal error, and nothing is done with it.

use super::{ItemStock, LedgerBooks, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict};
use async_trait::async_trait;
use contracts::{
    Failure,
    ledger::{Books, BooksOf},
    orders::v1::{
        GetBooksRequest, GetStockRequest, OpenStockRequest, RecordRestockRequest, ReservationQuery,
        ResolveReservationRequest, Stamp as StampMessage, Verdict as VerdictMessage, get_books_request::Which,
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

#[async_trait]
impl StockLedger for GrpcLedger {
    async fn open_stock(&self, call: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        let message = OpenStockRequest { item: item.to_string(), initial, dead_epoch: dead.0 };
        // A second one raises the epoch, and the lease of the first is dead.
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/OpenStock",
                Repeat::OneAtATime,
                message,
                |channel, request| async move { LedgerServiceClient::new(channel).open_stock(request).await },
            )
            .await?;
        match answer.outcome {
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

    async fn stock(&self, call: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        let message = GetStockRequest { items: items.iter().map(Item::to_string).collect(), initial };
        let answer = self
            .peer
            .unary(call, "orders.v1.LedgerService/GetStock", Repeat::Safe, message, |channel, request| async move {
                LedgerServiceClient::new(channel).get_stock(request).await
            })
            .await?;
        let parse = |stock: contracts::orders::v1::ItemStock| {
            if stock.epoch < 0 || stock.sold < 0 || stock.received < 0 {
                return Err(Failure::internal(format!("a stock that cannot be: {stock:?}")));
            }
            Ok(ItemStock { epoch: Epoch(stock.epoch), received: stock.received, sold: stock.sold })
        };
        answer.stocks.into_iter().map(parse).collect()
    }

    async fn resolve(&self, call: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        let reservations = queries.iter().map(|query| ReservationQuery {
            reservation_id: query.id.to_string(),
            stamp: query.stamp.as_ref().map(|stamp| StampMessage {
                item: stamp.item.to_string(),
                epoch: stamp.epoch.0,
                number: stamp.number,
            }),
        });
        let message = ResolveReservationRequest { reservations: reservations.collect() };
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/ResolveReservation",
                Repeat::Safe,
                message,
                |channel, request| async move { LedgerServiceClient::new(channel).resolve_reservation(request).await },
            )
            .await?;
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

    async fn record_restock(&self, call: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure> {
        let message = RecordRestockRequest {
            id: restock.id.to_string(),
            item: restock.item.to_string(),
            quantity: restock.quantity.get(),
            initial,
        };
        let answer = self
            .peer
            .unary(
                call,
                "orders.v1.LedgerService/RecordRestock",
                Repeat::Safe,
                message,
                |channel, request| async move { LedgerServiceClient::new(channel).record_restock(request).await },
            )
            .await?;
        if answer.epoch < 0 {
            return Err(Failure::internal(format!("a restock of epoch {}", answer.epoch)));
        }
        Ok(Epoch(answer.epoch))
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
