//! The ledger over gRPC. Answers are parsed here: what cannot be is an internal error, and nothing is done with it.

use async_trait::async_trait;
use contracts::{
    Failure,
    orders::v1::{
        GetStockRequest, OpenStockRequest, RecordRestockRequest, ReservationQuery, ResolveReservationRequest,
        Stamp as StampMessage, Verdict as VerdictMessage, ledger_service_client::LedgerServiceClient,
        open_stock_response::Outcome,
    },
    values::{Epoch, Item, Lease},
};
use service::{call::Call, rpc_client::Peer};
use tonic::transport::Channel;

use super::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict};

/// A client of `orders.v1.LedgerService`.
pub struct GrpcLedger {
    peer: Peer,
    client: LedgerServiceClient<Channel>,
}

impl GrpcLedger {
    /// Connects when first used.
    pub fn new(peer: Peer) -> Self {
        let client = LedgerServiceClient::new(peer.channel());
        Self { peer, client }
    }
}

#[async_trait]
impl StockLedger for GrpcLedger {
    async fn open_stock(&self, call: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        let message = OpenStockRequest { item: item.to_string(), initial, dead_epoch: dead.0 };
        let mut client = self.client.clone();
        let work = client.open_stock(self.peer.request(call, message));
        let answer = self.peer.unary(call, "orders.v1.LedgerService/OpenStock", work).await?;
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
        let mut client = self.client.clone();
        let work = client.get_stock(self.peer.request(call, message));
        let answer = self.peer.unary(call, "orders.v1.LedgerService/GetStock", work).await?;
        let parse = |stock: contracts::orders::v1::ItemStock| {
            if stock.epoch < 0 || stock.sold < 0 || stock.received < stock.sold {
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
        let mut client = self.client.clone();
        let work = client.resolve_reservation(self.peer.request(call, message));
        let answer = self.peer.unary(call, "orders.v1.LedgerService/ResolveReservation", work).await?;
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
        let mut client = self.client.clone();
        let work = client.record_restock(self.peer.request(call, message));
        let answer = self.peer.unary(call, "orders.v1.LedgerService/RecordRestock", work).await?;
        if answer.epoch < 0 {
            return Err(Failure::internal(format!("a restock of epoch {}", answer.epoch)));
        }
        Ok(Epoch(answer.epoch))
    }
}
