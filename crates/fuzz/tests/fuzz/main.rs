//! Made-up input for everything that reads what strangers write. A target makes inputs and holds what becomes of each
//! against an independent reading of the rules: not only that nothing panics. CONTRIBUTING.md tells how to add one.
//!
//! - [`driver`]: runs a target over its corpus and over new inputs, for `FUZZ_SECONDS` and from `FUZZ_SEED` on
//! - [`corpus`]: what is kept: good cases made by hand, and everything that ever failed
//! - [`json`], [`rules`]: the rules once more, without the product's parsers
//! - [`edge`]: an edge without sockets, and its peers
//! - the others: the targets
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

mod bodies;
mod calls;
mod corpus;
mod driver;
mod edge;
mod events;
mod failures;
mod headers;
mod json;
mod rules;
mod settings;
mod targets;
