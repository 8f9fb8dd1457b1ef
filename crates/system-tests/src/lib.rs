#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]
//! Runs the all-in-one as a real process and talks to it as its users do, or wires its services together in the test's
//! own process.
//!
//! - [`System`]: the process, on free ports and a data directory of its own
//! - [`Client`], [`Answer`]: HTTP
//! - [`raw`]: HTTP as bytes, as no client library would send it; [`frames`]: the same for HTTP/2
//! - [`gateway`]: NGINX, and edges as processes of their own behind it
//! - [`books`]: whether everything adds up
//! - [`collector`]: takes traces
//! - [`holds`]: clients that race each other for holds
//! - [`stack`]: the services as separate processes on real servers, with NGINX in front
//! - [`wired`]: order and inventory service in this process, with scripted faults between them

pub mod books;
mod client;
pub mod collector;
pub mod frames;
pub mod gateway;
pub mod holds;
pub mod raw;
pub mod stack;
pub mod system;
pub mod wired;

pub use client::{Answer, Client};
pub use servers::eventually;
pub use system::System;
