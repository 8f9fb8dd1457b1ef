//! The stock store in Redis, on real servers: the conformance suite on one server, on a cluster and on a pair whose
//! replica takes over, and what only Redis can do wrong.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

mod acl;
mod faults;
mod fixture;
mod hands;
mod hints;
mod lives;
mod proxy;
mod registry;

use crate::fixture::{ClusterFixture, PairFixture, SingleFixture};

mod one_server {
    use super::*;

    inventory::stock_conformance!(SingleFixture::start().await);
}

mod cluster_of_three {
    use super::*;

    inventory::stock_conformance!(one_fixture_per_file: ClusterFixture::start().await);
}

mod replica_pair {
    use super::*;

    inventory::stock_conformance!(one_fixture_per_file: PairFixture::start().await);
}
