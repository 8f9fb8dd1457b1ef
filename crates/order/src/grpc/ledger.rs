//! `orders.v1.LedgerService`. It answers from the ledger's own tables and calls nobody.

use std::{slice, sync::Arc};

use contracts::{
    Failure, Reason,
    failure::parse,
    orders::v1::{
        self as proto, GetBooksRequest, GetBooksResponse, GetStockRequest, GetStockResponse, OpenStockRequest,
        OpenStockResponse, RecordRestockRequest, RecordRestockResponse, ResolveReservationRequest,
        ResolveReservationResponse, get_books_request::Which, ledger_service_server::LedgerService,
        open_stock_response::Outcome,
    },
    values::{EPOCH_CLAIM_MAX, Epoch, INITIAL_STOCK_MAX, Invalid, Item, Quantity, ReservationId, Stamp},
};
use service::rpc::reply;
use tonic::{Request, Response, Status};

use super::bounded;
use crate::ledger::{BooksOf, Ledger, OpenOutcome, QUERY_BATCH_MAX, ResolveQuery, Restock, RestockOutcome, Verdict};

/// Serves the ledger to the inventory service.
pub struct LedgerApi {
    ledger: Arc<dyn Ledger>,
}

impl LedgerApi {
    /// Over the ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }

    async fn open(&self, request: OpenStockRequest) -> Result<OpenStockResponse, Failure> {
        let item = parse("item", Item::parse(&request.item))?;
        let initial = parse("initial", initial(request.initial))?;
        let dead = Epoch(parse("dead_epoch", not_negative(request.dead_epoch))?);
        // However high an epoch is, the item can be lent again; but nobody may use up the numbers above it in one step.
        if dead.0 > EPOCH_CLAIM_MAX && dead > self.ledger.stock(slice::from_ref(&item), initial).await?[0].epoch {
            return Err(Failure::field("dead_epoch", "is above every lease of this item"));
        }
        let outcome = match self.ledger.open_stock(&item, initial, dead).await? {
            OpenOutcome::Lease(lease) => {
                Outcome::Lease(proto::Lease { epoch: lease.epoch.0, received: lease.received, sold: lease.sold })
            }
            OpenOutcome::Wait => Outcome::Wait(proto::Wait {}),
        };
        Ok(OpenStockResponse { outcome: Some(outcome) })
    }

    async fn stock(&self, request: GetStockRequest) -> Result<GetStockResponse, Failure> {
        bounded("items", &request.items, QUERY_BATCH_MAX)?;
        let initial = parse("initial", initial(request.initial))?;
        let items = request.items.iter().map(|item| Item::parse(item)).collect::<Result<Vec<_>, _>>();
        let stocks = self.ledger.stock(&parse("items", items)?, initial).await?;
        let stocks = stocks
            .into_iter()
            .map(|stock| proto::ItemStock { epoch: stock.epoch.0, received: stock.received, sold: stock.sold })
            .collect();
        Ok(GetStockResponse { stocks })
    }

    async fn resolve(&self, request: ResolveReservationRequest) -> Result<ResolveReservationResponse, Failure> {
        bounded("reservations", &request.reservations, QUERY_BATCH_MAX)?;
        let queries = request.reservations.iter().map(query).collect::<Result<Vec<_>, _>>();
        let verdicts = self.ledger.resolve(&parse("reservations", queries)?).await?;
        Ok(ResolveReservationResponse { verdicts: verdicts.into_iter().map(|v| verdict(v).into()).collect() })
    }

    async fn restock(&self, request: RecordRestockRequest) -> Result<RecordRestockResponse, Failure> {
        let restock = Restock {
            id: parse("id", ReservationId::parse(&request.id))?.0,
            item: parse("item", Item::parse(&request.item))?,
            quantity: parse("quantity", Quantity::parse(request.quantity))?,
        };
        let initial = parse("initial", initial(request.initial))?;
        match self.ledger.record_restock(&restock, initial).await? {
            RestockOutcome::Journalled(epoch) => Ok(RecordRestockResponse { epoch: epoch.0 }),
            RestockOutcome::OtherContent => Err(Failure::of(Reason::RestockMismatch)),
        }
    }

    async fn books(&self, request: GetBooksRequest) -> Result<GetBooksResponse, Failure> {
        let of = match request.which {
            Some(Which::Item(item)) => BooksOf::Item(parse("item", Item::parse(&item))?),
            Some(Which::After(after)) if after.is_empty() => BooksOf::After(None),
            Some(Which::After(after)) => BooksOf::After(Some(parse("after", Item::parse(&after))?)),
            None => return Err(Failure::field("which", "item or after must be set")),
        };
        let books = self.ledger.books(&of).await?.map(|books| proto::Books {
            item: books.item.to_string(),
            epoch: books.epoch.0,
            received: books.received,
            settled: books.settled,
            outbox_units: books.outbox_units,
            outbox_events: books.outbox_events,
            orders: books.orders,
        });
        Ok(GetBooksResponse { books })
    }
}

fn initial(units: i64) -> Result<i64, Invalid> {
    if (0..=INITIAL_STOCK_MAX).contains(&units) {
        Ok(units)
    } else {
        Err(Invalid(format!("must be 0 to {INITIAL_STOCK_MAX}")))
    }
}

fn not_negative(number: i64) -> Result<i64, Invalid> {
    if number < 0 { Err(Invalid("must not be negative".to_owned())) } else { Ok(number) }
}

/// A hold's stamp. Number 0 is nobody's: of an id that has no hold, or one that a hand has touched.
fn stamp(stamp: &proto::Stamp) -> Result<Stamp, Invalid> {
    let (item, epoch, number) = (Item::parse(&stamp.item)?, not_negative(stamp.epoch)?, not_negative(stamp.number)?);
    if epoch == 0 && number > 0 {
        return Err(Invalid("a stamp with a number has an epoch of 1 or more".to_owned()));
    }
    Ok(Stamp { item, epoch: Epoch(epoch), number })
}

fn query(query: &proto::ReservationQuery) -> Result<ResolveQuery, Invalid> {
    let stamp = query.stamp.as_ref().map(stamp).transpose()?;
    Ok(ResolveQuery { id: ReservationId::parse(&query.reservation_id)?, stamp })
}

fn verdict(verdict: Verdict) -> proto::Verdict {
    match verdict {
        Verdict::Confirmed => proto::Verdict::Confirmed,
        Verdict::ConfirmedElsewhere => proto::Verdict::ConfirmedElsewhere,
        Verdict::Aborted => proto::Verdict::Aborted,
        Verdict::Unknown => proto::Verdict::Unknown,
    }
}

#[tonic::async_trait]
impl LedgerService for LedgerApi {
    async fn open_stock(&self, request: Request<OpenStockRequest>) -> Result<Response<OpenStockResponse>, Status> {
        reply(self.open(request.into_inner()).await)
    }

    async fn get_stock(&self, request: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        reply(self.stock(request.into_inner()).await)
    }

    async fn resolve_reservation(
        &self,
        request: Request<ResolveReservationRequest>,
    ) -> Result<Response<ResolveReservationResponse>, Status> {
        reply(self.resolve(request.into_inner()).await)
    }

    async fn record_restock(
        &self,
        request: Request<RecordRestockRequest>,
    ) -> Result<Response<RecordRestockResponse>, Status> {
        reply(self.restock(request.into_inner()).await)
    }

    async fn get_books(&self, request: Request<GetBooksRequest>) -> Result<Response<GetBooksResponse>, Status> {
        reply(self.books(request.into_inner()).await)
    }
}
