//! The ledger over gRPC, answered by a server that says what the test wants.

use std::sync::{Arc, Mutex};

use contracts::{
    DESCRIPTORS, Reason,
    orders::v1::{
        GetBooksRequest, GetBooksResponse, GetStockRequest, GetStockResponse, ItemStock as ItemStockMessage,
        Lease as LeaseMessage, OpenStockRequest, OpenStockResponse, RecordRestockRequest, RecordRestockResponse,
        ResolveReservationRequest, ResolveReservationResponse, Verdict as VerdictMessage, Wait,
        ledger_service_server::{LedgerService, LedgerServiceServer},
        open_stock_response::Outcome,
    },
    values::{Epoch, Lease, Stamp},
};
use inventory::ledger::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict, grpc::GrpcLedger};
use prometheus_client::registry::Registry;
use service::{
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{Peer, RpcClientMetrics},
    server::{Limits, Listener, serve},
};
use tonic::{Request, Response, Status};

use crate::world::{Running, World, item, quantity};

/// Answers these, and remembers what it was asked.
#[derive(Default)]
struct Script {
    lease: Option<Outcome>,
    stocks: Vec<ItemStockMessage>,
    verdicts: Vec<VerdictMessage>,
    asked: Option<ResolveReservationRequest>,
    dead: i64,
}

#[derive(Clone, Default)]
struct ScriptedLedger(Arc<Mutex<Script>>);

#[tonic::async_trait]
impl LedgerService for ScriptedLedger {
    async fn open_stock(&self, request: Request<OpenStockRequest>) -> Result<Response<OpenStockResponse>, Status> {
        let mut script = self.0.lock().expect("whole");
        script.dead = request.get_ref().dead_epoch;
        Ok(Response::new(OpenStockResponse { outcome: script.lease }))
    }

    async fn get_stock(&self, _: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        Ok(Response::new(GetStockResponse { stocks: self.0.lock().expect("whole").stocks.clone() }))
    }

    async fn resolve_reservation(
        &self,
        request: Request<ResolveReservationRequest>,
    ) -> Result<Response<ResolveReservationResponse>, Status> {
        let mut script = self.0.lock().expect("whole");
        script.asked = Some(request.into_inner());
        let verdicts = script.verdicts.iter().map(|verdict| i32::from(*verdict)).collect();
        Ok(Response::new(ResolveReservationResponse { verdicts }))
    }

    async fn record_restock(
        &self,
        request: Request<RecordRestockRequest>,
    ) -> Result<Response<RecordRestockResponse>, Status> {
        if request.get_ref().quantity == 6 {
            return Err(contracts::Failure::of(Reason::RestockMismatch).into());
        }
        Ok(Response::new(RecordRestockResponse { epoch: 4 }))
    }

    async fn get_books(&self, _: Request<GetBooksRequest>) -> Result<Response<GetBooksResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

async fn scripted(world: &World) -> (GrpcLedger, ScriptedLedger, Running) {
    let script = ScriptedLedger::default();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
    let url = format!("http://{}", listener.addr()).parse().expect("a URL");
    let metrics = RpcMetrics::register(&mut Registry::default());
    let server = LedgerServiceServer::new(script.clone());
    let router = RpcServer::new(world.env.clone(), metrics, DESCRIPTORS).add(server).router();
    let env = world.env.clone();
    let running = world.run(|stop| serve(listener, router, Limits::default(), env, stop));
    let peer = Peer::new("order-service", &[url], world.env.clone(), &RpcClientMetrics::default()).expect("a good URL");
    (GrpcLedger::new(peer), script, running)
}

#[tokio::test]
async fn a_lease_is_taken_only_if_it_can_be() {
    let world = World::new().await;
    let (ledger, script, _running) = scripted(&world).await;
    let item = item("widget");
    let open = async |lease: Option<Outcome>| {
        script.0.lock().expect("whole").lease = lease;
        let answer = ledger.open_stock(&world.call(), &item, 100, Epoch(3)).await;
        assert_eq!(script.0.lock().expect("whole").dead, 3);
        answer.map_err(|failure| failure.reason)
    };
    let lease = |epoch, received, sold| Some(Outcome::Lease(LeaseMessage { epoch, received, sold }));
    let good = Lease { item: item.clone(), epoch: Epoch(4), received: 100, sold: 100 };
    assert_eq!(open(lease(4, 100, 100)).await, Ok(OpenOutcome::Lease(good)));
    assert_eq!(open(Some(Outcome::Wait(Wait {}))).await, Ok(OpenOutcome::Wait));
    for nonsense in [None, lease(3, 100, 0), lease(4, 100, 101), lease(4, 100, -1)] {
        assert_eq!(open(nonsense).await, Err(Reason::Internal), "{nonsense:?}");
    }
}

#[tokio::test]
async fn stocks_are_parsed_and_must_be_as_many_as_were_asked_for() {
    let world = World::new().await;
    let (ledger, script, _running) = scripted(&world).await;
    let backend = inventory::backend::Backend { ledger: Arc::new(ledger), ..world.backend.clone() };
    let ask = async |stocks: &[(i64, i64, i64)]| {
        let message = |(epoch, received, sold): &(i64, i64, i64)| ItemStockMessage {
            epoch: *epoch,
            received: *received,
            sold: *sold,
        };
        script.0.lock().expect("whole").stocks = stocks.iter().map(message).collect();
        backend.lent_of(&world.call(), &item("widget")).await.map_err(|failure| failure.reason)
    };
    assert_eq!(ask(&[(2, 10, 4)]).await, Ok(ItemStock { epoch: Epoch(2), received: 10, sold: 4 }));
    for nonsense in [&[][..], &[(2, 10, 4), (2, 10, 4)], &[(2, -1, 0)], &[(-1, 3, 2)], &[(2, 3, -2)]] {
        assert_eq!(ask(nonsense).await, Err(Reason::Internal), "{nonsense:?}");
    }
}

#[tokio::test]
async fn verdicts_keep_their_order_and_stamps_are_named_when_there_are_some() {
    let world = World::new().await;
    let (ledger, script, _running) = scripted(&world).await;
    let verdicts = [
        VerdictMessage::Confirmed,
        VerdictMessage::ConfirmedElsewhere,
        VerdictMessage::Aborted,
        VerdictMessage::Unknown,
    ];
    script.0.lock().expect("whole").verdicts = verdicts.to_vec();
    let stamp = Stamp { item: item("widget"), epoch: Epoch(2), number: 7 };
    let ids = [(); 4].map(|()| world.id());
    let query = |(index, id): (usize, &_)| ResolveQuery { id: *id, stamp: (index == 0).then(|| stamp.clone()) };
    let queries: Vec<_> = ids.iter().enumerate().map(query).collect();
    let answer = ledger.resolve(&world.call(), &queries).await;
    assert_eq!(answer, Ok(vec![Verdict::Confirmed, Verdict::ConfirmedElsewhere, Verdict::Aborted, Verdict::Unknown]));
    let asked = script.0.lock().expect("whole").asked.take().expect("asked").reservations;
    assert!(asked.iter().zip(&ids).all(|(query, id)| query.reservation_id == id.to_string()));
    let named = asked[0].stamp.as_ref().expect("a stamp");
    assert_eq!((named.item.as_str(), named.epoch, named.number), ("widget", 2, 7));
    assert!(asked[1..].iter().all(|query| query.stamp.is_none()));
}

#[tokio::test]
async fn a_restock_answers_its_epoch_or_why_it_is_refused() {
    let world = World::new().await;
    let (ledger, _script, _running) = scripted(&world).await;
    let mut restock = Restock { id: world.env.uuid(), item: item("widget"), quantity: quantity(5) };
    assert_eq!(ledger.record_restock(&world.call(), &restock, 100).await, Ok(Epoch(4)));
    restock.quantity = quantity(6);
    let refused = ledger.record_restock(&world.call(), &restock, 100).await;
    assert_eq!(refused.map_err(|failure| failure.reason), Err(Reason::RestockMismatch));
}
