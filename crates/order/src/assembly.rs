//! Puts the order service together over its ports; the binaries and the all-in-one choose what implements them.

use std::{sync::Arc, time::Duration};

use broker::Broker;
use contracts::{
    Failure,
    orders::v1::{ledger_service_server::LedgerServiceServer, order_service_server::OrderServiceServer},
    values::Ttl,
};
use futures::future::BoxFuture;
use service::{environment::Env, outage::Outage, readiness::Check};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    committer::Committer,
    grpc::{ledger::LedgerApi, orders::OrderApi},
    inventory::Inventory,
    janitor,
    ledger::{Ledger, postgres::PostgresLedger},
    metrics::OrderMetrics,
    place_order::PlaceOrder,
    relay::Relay,
};

/// Whether the ledger can take orders.
pub fn check(ledger: &Arc<dyn Ledger>) -> Check {
    Check::new("ledger", ledger, |ledger| async move { ledger.ping().await })
}

/// How long a start waits for the ledger, in milliseconds.
pub const PREPARE_FIRST_MAX_MS: u64 = 1_000;

/// Prepares a ledger on Postgres before the service serves, if that can be done soon: peers call as soon as it does
/// (test `everything_restarted_in_turn_under_load_fails_nobody`). Otherwise it is left to [`prepare`].
pub async fn prepare_first(ledger: &PostgresLedger, migrate: bool, env: &Env) {
    let limit = Duration::from_millis(PREPARE_FIRST_MAX_MS);
    drop(env.timeout(limit, ledger.prepare(migrate)).await);
}

/// Prepares a ledger on Postgres, however often it takes, until `stop`. Until then the ledger answers nobody.
pub async fn prepare(ledger: Arc<PostgresLedger>, migrate: bool, env: Env, stop: CancellationToken) {
    let mut outage = Outage::new(env.clone(), "preparing the ledger's schema");
    while let Err(error) = ledger.prepare(migrate).await {
        let pause = outage.failed(&Failure::unavailable(error));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = env.sleep(pause) => {}
        }
    }
    outage.works();
    // Background work that ends by itself ends the process.
    stop.cancelled().await;
}

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
