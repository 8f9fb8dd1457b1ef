//! The real services over simulated stores, network and clock, from a seed.
//!
//! - [`ledger`]: the database of the order services

pub mod ledger;
