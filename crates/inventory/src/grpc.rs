//! `inventory.v1.InventoryService`: parses, calls [`Reservations`], answers. Nothing is decided here.

use std::time::Duration;

use contracts::{
    Failure,
    failure::BadFields,
    inventory::v1::{
        GetStockRequest, GetStockResponse, Held, Insufficient, ReleaseRequest, ReleaseResponse,
        ReserveRequest as ReserveMessage, ReserveResponse, RestockRequest, RestockResponse,
        inventory_service_server::InventoryService, reserve_response::Outcome,
    },
    values::{Epoch, Invalid, Item, Quantity, ReservationId, Ttl},
};
use service::{
    call::{CALL_TIMEOUT_DEFAULT_MS, Call},
    environment::Env,
    rpc,
};
use tonic::{Request, Response, Status};

use crate::{
    ledger::Restock,
    reservations::{Reservations, Reserved},
    stock::ReserveRequest,
};

/// Highest least epoch that a caller may ask for. Whether it makes sense is the ledger's to say.
pub const LEAST_EPOCH_MAX: i64 = i64::MAX - 1;

/// The server.
pub struct InventoryGrpc {
    env: Env,
    reservations: Reservations,
}

impl InventoryGrpc {
    /// Serves these.
    pub fn new(env: Env, reservations: Reservations) -> Self {
        Self { env, reservations }
    }

    async fn reserve(&self, call: &Call, message: &ReserveMessage) -> Result<ReserveResponse, Failure> {
        let request = self.parse_reserve(message)?;
        // An id that is made here nobody has used before, and of one that the order service derived nobody else knows.
        let may_be_judged = message.reservation_id.is_some() && request.id.is_client() && !message.skip_verdict;
        let reserved = if may_be_judged {
            let request = request.clone();
            self.to_its_end(call, move |reservations, call| async move {
                reservations.reserve_unjudged(&call, &request).await
            })
            .await?
        } else {
            self.reservations.reserve(call, &request).await?
        };
        let outcome = match reserved {
            Reserved::Held { stamp, remaining, deadline } => Outcome::Held(Held {
                reservation_id: request.id.to_string(),
                epoch: stamp.epoch.0,
                number: stamp.number,
                remaining,
                expire_time: Some(deadline.to_proto()),
            }),
            Reserved::Insufficient { remaining } => Outcome::Insufficient(Insufficient { remaining }),
        };
        Ok(ReserveResponse { outcome: Some(outcome) })
    }

    fn parse_reserve(&self, message: &ReserveMessage) -> Result<ReserveRequest, Failure> {
        let mut bad = BadFields::default();
        let id = match &message.reservation_id {
            Some(text) => bad.check("reservation_id", reservation_id(text)),
            None => Some(ReservationId(self.env.uuid())),
        };
        let item = bad.check("item", Item::parse(&message.item));
        let quantity = bad.check("quantity", Quantity::parse(message.quantity));
        let ttl = bad.check("ttl", message.ttl.map_or(Ok(Ttl::DEFAULT), ttl));
        let least_epoch = bad.check("least_epoch", least_epoch(message.least_epoch));
        match (id, item, quantity, ttl, least_epoch) {
            (Some(id), Some(item), Some(quantity), Some(ttl), Some(least_epoch)) => {
                Ok(ReserveRequest { id, item, quantity, ttl, least_epoch, hint: id.is_client() })
            }
            _ => Err(bad.into_failure()),
        }
    }

    async fn release(&self, call: &Call, message: &ReleaseRequest) -> Result<ReleaseResponse, Failure> {
        let mut bad = BadFields::default();
        let id = bad.check("reservation_id", ReservationId::parse(&message.reservation_id));
        let item = match message.item.as_str() {
            "" => Some(None),
            text => bad.check("item", Item::parse(text)).map(Some),
        };
        let (Some(id), Some(item)) = (id, item) else { return Err(bad.into_failure()) };
        self.to_its_end(
            call,
            move |reservations, call| async move { reservations.release(&call, id, item.as_ref()).await },
        )
        .await?;
        Ok(ReleaseResponse {})
    }

    async fn get_stock(&self, call: &Call, message: &GetStockRequest) -> Result<GetStockResponse, Failure> {
        let item = contracts::failure::parse("item", Item::parse(&message.item))?;
        let stock = self.reservations.available(call, &item).await?;
        Ok(GetStockResponse { item: item.to_string(), stock })
    }

    async fn restock(&self, call: &Call, message: &RestockRequest) -> Result<RestockResponse, Failure> {
        let mut bad = BadFields::default();
        let id = bad.check("id", ReservationId::parse(&message.id));
        let item = bad.check("item", Item::parse(&message.item));
        let quantity = bad.check("quantity", Quantity::parse(message.quantity));
        let (Some(id), Some(item), Some(quantity)) = (id, item, quantity) else { return Err(bad.into_failure()) };
        let name = item.to_string();
        let restock = Restock { id: id.0, item, quantity };
        let stock = self
            .to_its_end(call, move |reservations, call| async move { reservations.restock(&call, &restock).await })
            .await?;
        Ok(RestockResponse { item: name, stock })
    }

    /// Runs work of two steps, ledger and store, in a task and with a deadline of its own: a caller that hangs up, or
    /// whose time is over, does not stop it between them.
    async fn to_its_end<T: Send + 'static, F>(
        &self,
        call: &Call,
        work: impl FnOnce(Reservations, Call) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let timeout = Duration::from_millis(CALL_TIMEOUT_DEFAULT_MS);
        let call = Call::new(&*self.env, timeout, call.request_id.clone());
        let work = work(self.reservations.clone(), call);
        self.env.detached(work).await.unwrap_or_else(|| Err(Failure::internal("the work panicked")))
    }
}

#[tonic::async_trait]
impl InventoryService for InventoryGrpc {
    async fn reserve(&self, request: Request<ReserveMessage>) -> Result<Response<ReserveResponse>, Status> {
        rpc::reply(self.reserve(&rpc::call(&request), request.get_ref()).await)
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        rpc::reply(self.release(&rpc::call(&request), request.get_ref()).await)
    }

    async fn get_stock(&self, request: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        rpc::reply(self.get_stock(&rpc::call(&request), request.get_ref()).await)
    }

    async fn restock(&self, request: Request<RestockRequest>) -> Result<Response<RestockResponse>, Status> {
        rpc::reply(self.restock(&rpc::call(&request), request.get_ref()).await)
    }
}

/// An id that a client chose or that the order service derived. Those two kinds cannot meet, and there is no third.
fn reservation_id(text: &str) -> Result<ReservationId, Invalid> {
    let id = ReservationId::parse(text)?;
    let derived = id.0.get_version_num() == 8 && id.0.get_variant() == uuid::Variant::RFC4122;
    if id.is_client() || derived { Ok(id) } else { Err(Invalid("must be a version 4 UUID".to_owned())) }
}

fn ttl(duration: prost_types::Duration) -> Result<Ttl, Invalid> {
    if duration.nanos != 0 {
        return Err(Invalid("must be whole seconds".to_owned()));
    }
    Ttl::parse_seconds(duration.seconds)
}

fn least_epoch(epoch: i64) -> Result<Epoch, Invalid> {
    if (0..=LEAST_EPOCH_MAX).contains(&epoch) {
        Ok(Epoch(epoch))
    } else {
        Err(Invalid(format!("must be 0 to {LEAST_EPOCH_MAX}")))
    }
}
