//! The real services over simulated stores, network and clock, from a seed.
//!
//! - [`world`]: one seed's world, put together; where to start reading
//! - [`executor`]: tasks, virtual time and dice, on one thread; [`environment`]: what a process sees of them
//! - [`trace`]: what happened, as a hash
//! - [`process`]: the services' processes, and how they end; [`stores`]: what they share
//! - [`ledger`]: the database of the order services
//! - [`redis`]: the stock store's servers, which run the product's scripts
//! - [`broker`](mod@broker): the message broker
//! - [`network`]: calls between them; [`peers`]: the ports over it; [`ports`]: stands in front of every port
//! - [`faults`]: what breaks; [`disasters`]: what happens to whole parts; [`awaits`]: which awaits a crash has hit
//! - [`workload`]: what a seed's callers do; [`clients`]: they do it; [`history`]: what they are told
//! - [`watch`]: what the services are told by the stores; [`books`]: what stands there
//! - [`invariants`]: what must hold; [`oracle`]: asks after each step whether it does
//! - [`run`](mod@run): a seed from start to verdict; [`campaign`]: many of them; [`report`]: what they did
//! - [`planted`]: the seeds that find each planted bug

pub mod awaits;
pub mod books;
pub mod broker;
pub mod campaign;
pub mod clients;
pub mod disasters;
pub mod environment;
pub mod executor;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod ledger;
pub mod network;
pub mod oracle;
pub mod peers;
pub mod planted;
pub mod ports;
pub mod process;
pub mod redis;
pub mod report;
pub mod run;
pub mod stores;
pub mod trace;
pub mod watch;
pub mod workload;
pub mod world;
