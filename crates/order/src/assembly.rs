//! Puts the order service together over its ports; the binaries and the all-in-one choose what implements them.

use std::sync::Arc;

use broker::Broker;
use contracts::{
    orders::v1::{ledger_service_server::LedgerServiceServer, order_service_server::OrderServiceServer},
    values::Ttl,
};
use futures::future::BoxFuture;
use service::environment::Env;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    committer::Committer,
    grpc::{ledger::LedgerApi, orders::OrderApi},
    inventory::Inventory,
    janitor,
    ledger::Ledger,
    metrics::OrderMetrics,
    place_order::PlaceOrder,
    relay::Relay,
};

/// What the order service stands on.
pub struct Ports {
    /// Time, randomness and tasks.
    pub env: Env,
    /// The judge of what is sold.
    pub ledger: Arc<dyn Ledger>,
    /// The inventory service.
    pub inventory: Arc<dyn Inventory>,
    /// Takes the events.
    pub broker: Arc<dyn Broker>,
}

/// The order service, put together.
pub struct OrderService {
    /// The use case.
    pub place_order: PlaceOrder,
    /// Where orders wait for their commit.
    pub committer: Committer,
    /// To be served on the order service's port.
    pub orders: OrderServiceServer<OrderApi>,
    /// To be served on the order service's port.
    pub ledger: LedgerServiceServer<LedgerApi>,
    /// To be run until shutdown: commits, relays and prunes.
    pub background: Vec<BoxFuture<'static, ()>>,
}

impl OrderService {
    /// `stop` ends the background work after its current step.
    pub fn new(ports: Ports, hold_ttl: Ttl, metrics: &OrderMetrics, stop: &CancellationToken) -> Self {
        let Ports { env, ledger, inventory, broker } = ports;
        let wake_relay = Arc::new(Notify::new());
        let (committer, commits) = Committer::new(env.clone(), ledger.clone(), metrics.clone(), wake_relay.clone());
        let relay = Relay::new(env.clone(), ledger.clone(), broker, metrics.clone(), wake_relay);
        let place_order = PlaceOrder::new(env.clone(), ledger.clone(), inventory, committer.clone(), hold_ttl);
        let background: Vec<BoxFuture<'static, ()>> = vec![
            Box::pin(commits.run(stop.clone())),
            Box::pin(relay.run(stop.clone())),
            Box::pin(janitor::run(env.clone(), ledger.clone(), stop.clone())),
        ];
        Self {
            orders: OrderServiceServer::new(OrderApi::new(env, place_order.clone(), ledger.clone())),
            ledger: LedgerServiceServer::new(LedgerApi::new(ledger)),
            place_order,
            committer,
            background,
        }
    }
}
