//! The inventory service over the real memory store and the real in-process broker, with a ledger that the test can take
//! down.
//!
//! - [`world`], [`ledger`], [`store`], [`flaky_broker`]: what the tests stand on
//! - the others: one for each part of the service

mod consumer;
mod flaky_broker;
mod grpc;
mod ledger;
mod ledger_client;
mod opener;
mod races;
mod reaper;
mod releases;
mod reservations;
mod restocks;
mod spent;
mod store;
mod world;
