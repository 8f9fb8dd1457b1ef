//! The services as each other's peers: the ports that gRPC implements in the product, over the simulated network.

use std::sync::Arc;

use async_trait::async_trait;
use contracts::{
    Failure,
    inventory::v1::inventory_service_server::InventoryService,
    orders::v1::ledger_service_server::LedgerService,
    values::{Epoch, Item, ReservationId},
};
use inventory::ledger::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict, grpc as ledger};
use order::inventory::{Inventory, Reserve, Reserved, grpc as stock};
use service::{call::Call, environment::Env, rpc_client::Repeat};

use crate::{ports::Port, process::Cluster};

/// The inventory services, as an order process sees them.
pub struct InventoryPeer {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) env: Env,
    pub(crate) port: Port,
}

#[async_trait]
impl Inventory for InventoryPeer {
    async fn reserve(&self, call: &Call, request: &Reserve) -> Result<Reserved, Failure> {
        let _wait = self.port.enter("inventory.reserve");
        let (peers, message) = (self.cluster.inventories(), stock::reserve_message(request));
        let work = self.cluster.call(&self.env, &peers, call, Repeat::Safe, message, |host, request| {
            Box::pin(async move { host.inventory().reserve(request).await })
        });
        stock::reserved(&request.item, work.await)
    }

    async fn release(&self, call: &Call, id: ReservationId, item: &Item) -> Result<(), Failure> {
        let _wait = self.port.enter("inventory.release");
        let (peers, message) = (self.cluster.inventories(), stock::release_message(id, item));
        let work = self.cluster.call(&self.env, &peers, call, Repeat::Safe, message, |host, request| {
            Box::pin(async move { host.inventory().release(request).await })
        });
        work.await.map(drop)
    }
}

/// The order services, as an inventory process sees them.
pub struct LedgerPeer {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) env: Env,
    pub(crate) port: Port,
}

#[async_trait]
impl StockLedger for LedgerPeer {
    async fn open_stock(&self, call: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        let _wait = self.port.enter("ledger.open_stock");
        let (peers, message) = (self.cluster.orders(), ledger::open_message(item, initial, dead));
        let work = self.cluster.call(&self.env, &peers, call, Repeat::OneAtATime, message, |host, request| {
            Box::pin(async move { host.ledger().open_stock(request).await })
        });
        ledger::opened(item, dead, &work.await?)
    }

    async fn stock(&self, call: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        let _wait = self.port.enter("ledger.stock");
        let (peers, message) = (self.cluster.orders(), ledger::stock_message(items, initial));
        let work = self.cluster.call(&self.env, &peers, call, Repeat::Safe, message, |host, request| {
            Box::pin(async move { host.ledger().get_stock(request).await })
        });
        ledger::stocks(work.await?)
    }

    async fn resolve(&self, call: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        let _wait = self.port.enter("ledger.resolve");
        let (peers, message) = (self.cluster.orders(), ledger::resolve_message(queries));
        let work = self.cluster.call(&self.env, &peers, call, Repeat::Safe, message, |host, request| {
            Box::pin(async move { host.ledger().resolve_reservation(request).await })
        });
        ledger::verdicts(&work.await?)
    }

    async fn record_restock(&self, call: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure> {
        let _wait = self.port.enter("ledger.record_restock");
        let (peers, message) = (self.cluster.orders(), ledger::restock_message(restock, initial));
        let work = self.cluster.call(&self.env, &peers, call, Repeat::Safe, message, |host, request| {
            Box::pin(async move { host.ledger().record_restock(request).await })
        });
        ledger::restocked(&work.await?)
    }
}
