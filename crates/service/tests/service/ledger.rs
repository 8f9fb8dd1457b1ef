//! A ledger that does what the item's name says, and remembers the calls that it saw.

use std::{sync::Arc, time::Duration};

use contracts::{
    Failure, Reason,
    orders::v1::{
        GetBooksRequest, GetBooksResponse, GetStockRequest, GetStockResponse, ItemStock, OpenStockRequest,
        OpenStockResponse, RecordRestockRequest, RecordRestockResponse, ResolveReservationRequest,
        ResolveReservationResponse, ledger_service_server::LedgerService,
    },
};
use service::{
    environment::Env,
    rpc::{call, reply},
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

pub const GET_STOCK: &str = "orders.v1.LedgerService/GetStock";
pub const SERVICE: &str = "orders.v1.LedgerService";

/// `slow` answers after 10 s, `held` when it is let go, `panic` panics, `short`, `cannot` and `too much` fail; everything
/// else answers the call's remaining milliseconds as the epoch.
#[derive(Clone)]
pub struct Ledger {
    pub env: Env,
    /// Lets one held call go.
    pub release: Arc<Notify>,
    /// Told for every held call that has come.
    pub held: Arc<tokio::sync::Semaphore>,
    /// Request ids of calls.
    pub ids: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Ledger {
    async fn stock(&self, request: Request<GetStockRequest>) -> Result<GetStockResponse, Failure> {
        let call = call(&request);
        self.ids.lock().expect("not poisoned").push(call.request_id.to_string());
        match request.get_ref().items.first().map_or("", String::as_str) {
            "slow" => self.env.sleep(Duration::from_secs(10)).await,
            "held" => {
                self.held.add_permits(1);
                self.release.notified().await;
            }
            "panic" => panic!("asked to"),
            "short" => return Err(Failure::insufficient(3)),
            "cannot" => return Err(Failure::unavailable("asked to")),
            "too much" => return Err(Failure::of(Reason::Overloaded)),
            _ => {}
        }
        let epoch = i64::try_from(call.remaining(&*self.env).as_millis()).expect("short");
        Ok(GetStockResponse { stocks: vec![ItemStock { epoch, received: 0, sold: 0 }] })
    }
}

#[tonic::async_trait]
impl LedgerService for Ledger {
    async fn get_stock(&self, request: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        reply(self.stock(request).await)
    }

    async fn open_stock(&self, _: Request<OpenStockRequest>) -> Result<Response<OpenStockResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn resolve_reservation(
        &self,
        _: Request<ResolveReservationRequest>,
    ) -> Result<Response<ResolveReservationResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn record_restock(
        &self,
        _: Request<RecordRestockRequest>,
    ) -> Result<Response<RecordRestockResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_books(&self, _: Request<GetBooksRequest>) -> Result<Response<GetBooksResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
