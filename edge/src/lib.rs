//! The HTTP/JSON edge: parses strictly, asks the services over gRPC, and says in HTTP what they meant.
//!
//! - [`routes`]: the table of everything served
//! - `front`: what happens around every request: ids, deadline, limits, span, metrics, log, problems
//! - `orders`, `inventory`, `health`: the handlers
//! - `body`, `headers`, `path`, `query`: parsers that say everything that is wrong at once, into `fields`
//! - `problem`: refusals as RFC 9457 bodies, and the page behind each problem's `type`
//! - [`settings`]: what the environment sets

mod body;
mod fields;
mod front;
mod headers;
mod health;
mod inventory;
mod orders;
mod path;
mod problem;
mod query;
pub mod routes;
pub mod settings;

pub use health::health_check;
pub use routes::{Ready, router};
pub use settings::EdgeSettings;
