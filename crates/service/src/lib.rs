//! What every process does around its work. No module knows what an order is.
//!
//! - [`settings`]: environment variables, every bad one told at once
//! - [`telemetry`]: logs and traces; [`tls`]: what encrypts
//! - [`cli`]: `--help`, `--version`, and how a binary fails
//! - [`environment`]: time, randomness and tasks, as arguments
//! - [`manual`]: an environment for tests, whose clock is moved by hand
//! - [`call`]: deadline and request id, which travel with every call
//! - [`server`]: listening, for HTTP and gRPC alike
//! - [`rpc`], [`rpc_client`]: the two sides of gRPC; [`health`]: asking a peer whether it serves
//! - [`http`]: metrics and request ids of HTTP
//! - [`admin`]: metrics and health over HTTP; [`healthcheck`]: the command that asks for it
//! - [`readiness`]: health, over gRPC and HTTP, in step with the stores
//! - [`outage`]: how background work waits while something is down
//! - [`planted`]: bugs that the simulation must find, in the crate below so that its types can have one, too
//! - [`process`]: a process from its start to its end; [`open_files`]: how many it may have
//! - [`lifecycle`]: the stages in which it ends; [`signals`]: what makes it end

pub mod admin;
pub mod call;
pub mod cli;
pub mod environment;
pub mod health;
pub mod healthcheck;
pub mod http;
pub mod lifecycle;
pub mod manual;
pub mod open_files;
pub mod outage;
pub mod process;
pub mod readiness;
pub mod rpc;
pub mod rpc_client;
pub mod server;
pub mod settings;
pub mod signals;
pub mod telemetry;
pub mod tls;

pub use contracts::planted;
