//! An edge that has taken all the writes it takes: what it says to the next one, how soon, and that reads go on.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use contracts::{
    DESCRIPTORS,
    orders::v1::{
        CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
        ListOrdersResponse,
        order_service_server::{OrderService, OrderServiceServer},
    },
};
use futures::future::join_all;
use prometheus_client::registry::Registry;
use service::{
    environment::{Env, RealEnvironment},
    rpc::{RpcMetrics, RpcServer},
    server::{Limits, Listener, serve},
};
use system_tests::{Answer, gateway::Edge, raw};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

/// What an edge takes.
const TAKEN: u32 = 2_048;
/// More than that.
const ORDERS: usize = 2_150;
/// After which an edge gives an order up.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Refusals that are timed.
const REFUSALS: usize = 100;
/// Within this, past the bound.
const REFUSAL_MAX_MS: u128 = 50;
const ORDER: &[u8] = br#"{"item":"widget","quantity":1}"#;

/// An order service that never places an order, but counts those that it is asked for, and lists none at once.
struct Hanging(Arc<Semaphore>);

#[tonic::async_trait]
impl OrderService for Hanging {
    async fn create_order(&self, _: Request<CreateOrderRequest>) -> Result<Response<CreateOrderResponse>, Status> {
        self.0.add_permits(1);
        std::future::pending().await
    }

    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_orders(&self, _: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        Ok(Response::new(ListOrdersResponse::default()))
    }
}

async fn hanging(taken: Arc<Semaphore>) -> SocketAddr {
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let metrics = RpcMetrics::register(&mut Registry::default());
    let rpc = RpcServer::new(Arc::clone(&env), metrics, DESCRIPTORS).add(OrderServiceServer::new(Hanging(taken)));
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let addr = listener.addr();
    tokio::spawn(serve(listener, rpc.router(), Limits::internal(), env, CancellationToken::new()));
    addr
}

async fn ask(stream: &mut TcpStream, request: &[u8]) -> (Answer, Duration) {
    let begun = Instant::now();
    raw::write(stream, request).await;
    (raw::read(stream).await.expect("an answer"), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_its_bound_an_edge_says_so_within_50_ms_and_goes_on_reading() {
    service::open_files::raise_limit();
    let taken = Arc::new(Semaphore::new(0));
    let service = format!("http://{}", hanging(Arc::clone(&taken)).await);
    let edge = Edge::start_between(service.clone(), service).await;
    let order = raw::post_json("/orders", ORDER);
    let list = raw::get("/orders", "", b"");

    let mut clients = join_all((0..ORDERS).map(|_| raw::connect(edge.addr()))).await;
    let (mut refused, mut reader) = (raw::connect(edge.addr()).await, raw::connect(edge.addr()).await);
    let begun = Instant::now();
    let flood = join_all(clients.iter_mut().map(|stream| ask(stream, &order)));
    let timed = async {
        // The flood is taken first; its orders are given up after 5 s.
        let full = tokio::time::timeout(ORDER_TIMEOUT, taken.acquire_many(TAKEN)).await;
        full.expect("it fills up in time").expect("open").forget();
        let (mut refusals, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..REFUSALS {
            let (answer, took) = ask(&mut refused, &order).await;
            answer.problem(503, "OVERLOADED");
            assert_eq!(answer.header("retry-after"), "1");
            refusals.push(took.as_millis());
            let (answer, took) = ask(&mut reader, &list).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            reads.push(took.as_millis());
        }
        let took = begun.elapsed();
        assert!(took < ORDER_TIMEOUT, "it was full all the time: {took:?}");
        refusals.sort_unstable();
        reads.sort_unstable();
        (refusals, reads)
    };
    let (flood, (refusals, reads)) = futures::join!(flood, timed);
    let middle = REFUSALS / 2;
    println!("refused within {} ms, at most {} ms", refusals[middle], refusals[REFUSALS - 1]);
    println!("read within {} ms, at most {} ms", reads[middle], reads[REFUSALS - 1]);
    // Of a hundred a few may meet another test's burst.
    assert!(refusals[REFUSALS * 9 / 10] <= REFUSAL_MAX_MS, "{refusals:?}");
    let given_up = flood.iter().filter(|(answer, _)| answer.status == 504).count();
    assert_eq!(given_up, TAKEN as usize, "the bound");
    assert!(flood.iter().all(|(answer, _)| [503, 504].contains(&answer.status.as_u16())));
}
