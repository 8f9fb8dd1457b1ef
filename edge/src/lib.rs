//! The HTTP/JSON edge: parses strictly, asks the services over gRPC, and says in HTTP what they meant.
//!
//! - `operations`: the table of everything served; [`routes`] makes a router of it
//! - `front`: what happens around every request: ids, deadline, limits, span, metrics, log, problems; `place`: the room that
//!   reads and writes have
//! - `orders`, `inventory`, `health`: the handlers
//! - `body`, `headers`, `path`, `query`: parsers that say everything that is wrong at once, into `fields`
//! - `problem`: refusals as RFC 9457 bodies; `problem_pages`: the page behind each problem's `type`
//! - [`openapi`]: the document of all this, made from the table; `docs`: the page that shows it
//! - [`settings`]: what the environment sets

mod body;
mod docs;
mod fields;
mod front;
mod headers;
mod health;
mod inventory;
pub mod openapi;
mod operations;
mod orders;
mod path;
mod place;
mod problem;
mod problem_pages;
mod query;
pub mod routes;
pub mod settings;

pub use body::BODIES_MAX;
pub use health::health_check;
pub use routes::{Ready, router};
pub use settings::EdgeSettings;
