//! Real servers, started by a test itself and by `servers run`.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]
#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod leftovers;
mod run;
mod start;
