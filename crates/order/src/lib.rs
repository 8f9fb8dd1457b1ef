//! The order service.
//!
//! - [`place_order`]: the use case, from request to verdict
//! - [`attempt`]: the reservation ids that a request may use, one after the other
//! - [`committer`]: group commit, as many waiting orders as there are in one transaction
//! - [`ledger`]: the port to the only judge of what is sold, and its stores
//! - [`inventory`]: the port to the inventory service, and its gRPC client
//! - [`relay`]: publishes the outbox
//! - [`janitor`]: deletes tombstones that can no longer matter
//! - [`grpc`]: `OrderService` and `LedgerService`
//! - [`assembly`]: puts it together
//! - [`metrics`], [`settings`]: what operators see and set

pub mod assembly;
pub mod attempt;
pub mod committer;
pub mod grpc;
pub mod inventory;
pub mod janitor;
pub mod ledger;
pub mod metrics;
pub mod place_order;
pub mod relay;
pub mod settings;
