//! Real servers and clients over loopback, around a small gRPC service.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

mod admin;
mod client;
mod fixture;
mod ledger;
mod limits;
mod retries;
mod rpc;
mod server;
