//! The real services over simulated stores, network and clock, from a seed.
//!
//! - [`ledger`]: the database of the order services
//! - [`redis`]: the stock store's servers, which run the product's scripts
//! - [`broker`]: the message broker

pub mod broker;
pub mod ledger;
pub mod redis;
