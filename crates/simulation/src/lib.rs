//! The real services over simulated stores, network and clock, from a seed.
//!
//! - [`redis`]: the stock store's servers, which run the product's scripts
//! - [`broker`]: the message broker

pub mod broker;
pub mod redis;
