//! The real services over simulated stores, network and clock, from a seed.
//!
//! - [`world`]: one seed's world, put together; where to start reading
//! - [`executor`]: tasks, virtual time and dice, on one thread; [`environment`]: what a process sees of them
//! - [`trace`]: what happened, as a hash

pub mod environment;
pub mod executor;
pub mod trace;
pub mod watch;
pub mod world;
