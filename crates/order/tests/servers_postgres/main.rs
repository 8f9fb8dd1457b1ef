//! The ledger suite over a real Postgres, and what only a server can show.
//!
//! - this module: the suite
//! - `fixture`: a ledger in a database of its own
//! - `several`: order services that share a database
//! - `schema`: migrations, roles, and what is refused
//! - `failures`: servers that die or hang, and clients that do
//! - `plans`: statements and the tables they read
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

use fixture::PostgresFixture;

mod failures;
mod fixture;
mod plans;
mod schema;
mod several;

order::ledger_conformance!(PostgresFixture);
