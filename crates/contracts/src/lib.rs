//! What the services say to each other, and nothing else.
//!
//! - [`orders`], [`inventory`]: code generated from `proto/`, the same for every side
//! - [`values`]: the types that a request is parsed into before anything is done with it
//! - [`event`]: the `order_created` message
//! - [`ledger`]: questions to the ledger and its answers
//! - [`reason`]: the one table of error reasons
//! - [`failure`]: an error on its way to a caller, over gRPC and back
//! - [`planted`]: bugs that the simulation must find

pub mod event;
pub mod failure;
pub mod ledger;
pub mod planted;
pub mod reason;
pub mod values;

/// Package `orders.v1`.
pub mod orders {
    #[expect(
        missing_docs,
        unused_qualifications,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("orders.v1");
    }
}

/// Package `inventory.v1`.
pub mod inventory {
    #[expect(
        missing_docs,
        unused_qualifications,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("inventory.v1");
    }
}

/// Descriptors of everything under `proto/`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

pub use failure::Failure;
pub use reason::Reason;
