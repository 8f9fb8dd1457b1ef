//! The inventory service over gRPC.

use async_trait::async_trait;
use contracts::{
    Failure, Reason,
    inventory::v1::{
        ReleaseRequest, ReserveRequest, ReserveResponse, inventory_service_client::InventoryServiceClient,
        reserve_response::Outcome,
    },
    values::{Epoch, Item, ReservationId, Stamp},
};
use service::{
    call::Call,
    rpc_client::{Peer, Repeat},
};

use super::{Inventory, Reserve, Reserved};

/// A client of `inventory.v1.InventoryService`.
pub struct GrpcInventory {
    peer: Peer,
}

impl GrpcInventory {
    /// Connects when first used.
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

/// The message of a reserve.
pub fn reserve_message(request: &Reserve) -> ReserveRequest {
    let ttl = i64::try_from(request.ttl.duration().as_secs()).expect("at most a day");
    ReserveRequest {
        reservation_id: Some(request.id.to_string()),
        item: request.item.to_string(),
        quantity: request.quantity.get(),
        ttl: Some(prost_types::Duration { seconds: ttl, nanos: 0 }),
        least_epoch: request.least_epoch.0,
        skip_verdict: true,
    }
}

/// What the answer to a reserve of `item` says.
pub fn reserved(item: &Item, answer: Result<ReserveResponse, Failure>) -> Result<Reserved, Failure> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => match failure.reason {
            Reason::ReservationReleased => return Ok(Reserved::Released),
            Reason::ReservationMismatch => return Ok(Reserved::Mismatch),
            Reason::ReservationConfirmed => return Ok(Reserved::Confirmed),
            _ => return Err(failure),
        },
    };
    match answer.outcome {
        Some(Outcome::Held(held)) => {
            Ok(Reserved::Held(Stamp { item: item.clone(), epoch: Epoch(held.epoch), number: held.number }))
        }
        Some(Outcome::Insufficient(short)) => Ok(Reserved::Insufficient { remaining: short.remaining }),
        None => Err(Failure::internal("a reserve was answered without an outcome")),
    }
}

/// The message of a release.
pub fn release_message(id: ReservationId, item: &Item) -> ReleaseRequest {
    ReleaseRequest { reservation_id: id.to_string(), item: item.to_string() }
}

#[async_trait]
impl Inventory for GrpcInventory {
    async fn reserve(&self, call: &Call, request: &Reserve) -> Result<Reserved, Failure> {
        let answer = self
            .peer
            .unary(
                call,
                "inventory.v1.InventoryService/Reserve",
                Repeat::Safe,
                reserve_message(request),
                |channel, request| async move { InventoryServiceClient::new(channel).reserve(request).await },
            )
            .await;
        reserved(&request.item, answer)
    }

    async fn release(&self, call: &Call, id: ReservationId, item: &Item) -> Result<(), Failure> {
        self.peer
            .unary(
                call,
                "inventory.v1.InventoryService/Release",
                Repeat::Safe,
                release_message(id, item),
                |channel, request| async move { InventoryServiceClient::new(channel).release(request).await },
            )
            .await
            .map(drop)
    }
}
