//! Real servers as local processes, each on ports of its own and in a directory of its own, for tests and for trying the
//! system out. As root they run as `nobody`. They end with the value that started them, and with the thread
//! that did: so start a server on a test's own thread, not on a helper thread that ends sooner.
//!
//! - [`Postgres`], [`Redis`], [`RedisCluster`], [`Sentinel`], [`RabbitMq`], [`Nginx`], [`Prometheus`]: the
//!   servers
//! - [`gateway_config`]: the repository's own configuration of NGINX
//! - [`Port`]: a port that nobody else takes, although the server behind it is down
//! - [`Process`]: one of our services; [`binary`], [`signal`], [`metric`], [`eventually`]: what goes with it
//! - `server`: one process tree: starts, ends, pauses and starts again
//! - `programs`: where the binaries are, and how they are run unprivileged
//!
//! - [`stack`]: the whole order system on real servers, in the background
//!
//! All but the last panics when it fails, with the end of the server's log: its callers could do nothing else.
//! The binary `servers` starts one Postgres and one RabbitMQ for a whole test run: see [`Postgres::shared`].

#![expect(clippy::disallowed_methods, reason = "real servers are waited for on the real clock")]

mod gateway;
mod http;
mod nginx;
mod port;
mod postgres;
mod process;
mod programs;
mod prometheus;
mod rabbitmq;
mod redis;
mod redis_groups;
mod server;
pub mod stack;

pub use gateway::gateway_config;
pub use http::{get, metric};
pub use nginx::Nginx;
pub use port::Port;
pub use postgres::{POSTGRES_URL_VARIABLE, Postgres};
pub use process::{Process, READY_TIMEOUT, STOP_TIMEOUT, binary, eventually, local, signal};
pub use prometheus::Prometheus;
pub use rabbitmq::{RABBITMQ_DIRECTORY_VARIABLE, RABBITMQ_URL_VARIABLE, RabbitMq};
pub use redis::Redis;
pub use redis_groups::{RedisCluster, Sentinel};
