//! The whole system in one process: the same three services, talking gRPC over loopback, on embedded stores.
//!
//! - [`settings`]: what an operator sets
//! - [`stores`]: the embedded stores, in one directory
//! - [`system`]: binds, connects and serves

pub mod settings;
pub mod stores;
pub mod system;
