//! The edge's router on real sockets, against a real gRPC server whose two services answer what a test tells them to.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

mod docs;
mod health;
mod hostile;
mod inventory;
mod methods;
mod openapi;
mod orders;
mod problem_pages;
mod problems;
mod process;
mod support;
mod telemetry;
