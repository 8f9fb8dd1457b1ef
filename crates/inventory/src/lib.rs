//! The inventory service: sets stock aside and gives it back.
//!
//! - [`stock`]: the stock store port, and what implements it
//! - [`ledger`]: the port to the ledger, the judge of what is sold; over gRPC
//! - [`backend`]: the two of them, as every part below works on them
//! - [`opener`]: opens an item by a lease, one request at a time
//! - [`reservations`]: reserve, release, restock, read
//! - [`reaper`]: sells or gives back what is overdue, and finds items of another epoch
//! - [`consumer`]: sells the holds of committed orders
//! - [`audit`]: holds the ledger's books and the store against each other, and lends anew what has drifted
//! - [`grpc`]: the gRPC service
//! - [`metrics`], [`settings`]
//!
//! `main.rs` is the service as a process of its own.

pub mod audit;
pub mod backend;
pub mod consumer;
pub mod grpc;
pub mod ledger;
pub mod metrics;
pub mod opener;
pub mod reaper;
pub mod reservations;
pub mod settings;
pub mod stock;

use std::sync::Arc;

use broker::Broker;
use contracts::inventory::v1::inventory_service_server::InventoryServiceServer;
use service::readiness::Check;

use crate::{
    audit::Auditor, backend::Backend, consumer::OrderConsumer, grpc::InventoryGrpc, ledger::LedgerBooks,
    metrics::AuditMetrics, opener::Opener, reaper::Reaper, reservations::Reservations, stock::StockStore,
};

/// Whether the stock store can be asked.
pub fn check(store: &Arc<dyn StockStore>) -> Check {
    Check::new("stock", store, |store| async move { store.ping().await })
}

/// The whole service, assembled; what runs its parts is up to the process.
#[derive(Clone)]
pub struct Inventory {
    backend: Backend,
    broker: Arc<dyn Broker>,
    opener: Opener,
}

impl Inventory {
    /// Over this store and ledger, with the events of this broker.
    pub fn new(backend: Backend, broker: Arc<dyn Broker>) -> Self {
        let opener = Opener::new(backend.clone());
        Self { backend, broker, opener }
    }

    /// The gRPC service.
    pub fn service(&self) -> InventoryServiceServer<InventoryGrpc> {
        InventoryServiceServer::new(InventoryGrpc::new(self.backend.env.clone(), self.reservations()))
    }

    /// What the gRPC service calls.
    pub fn reservations(&self) -> Reservations {
        Reservations::new(self.backend.clone(), self.opener.clone())
    }

    /// To be run in the background.
    pub fn reaper(&self) -> Reaper {
        Reaper::new(self.backend.clone(), self.opener.clone())
    }

    /// To be run in the background, and asked by operators.
    pub fn auditor(&self, books: Arc<dyn LedgerBooks>, metrics: AuditMetrics) -> Auditor {
        Auditor::new(self.backend.clone(), self.opener.clone(), books, metrics)
    }

    /// To be run in the background.
    pub fn consumer(&self) -> OrderConsumer {
        OrderConsumer::new(self.backend.clone(), self.opener.clone(), self.broker.clone())
    }
}
