//! What is counted at the client side.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Why a call was sent again, or that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the values of the label")]
pub(super) enum Outcome {
    /// It had not left.
    unsent,
    /// The connection was lost, or the peer said that it cannot now.
    failed,
    /// No answer yet; whichever comes first counts.
    slow,
    /// It was not sent again: too many calls were.
    no_budget,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    peer: &'static str,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: &'static str,
}

/// `rpc_client_retries_total{peer,outcome}` and `rpc_client_addresses_down{peer}`.
#[derive(Debug, Clone, Default)]
pub struct RpcClientMetrics {
    retries: Family<RetryLabels, Counter>,
    addresses_down: Family<PeerLabels, Gauge>,
}

impl RpcClientMetrics {
    /// Adds them to the registry. All peers of a process share them.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        let help = "Calls that were sent again, and those that were not because too many were";
        registry.register("rpc_client_retries", help, this.retries.clone());
        let help = "Addresses of a peer that cannot be reached or do not answer";
        registry.register("rpc_client_addresses_down", help, this.addresses_down.clone());
        this
    }

    /// Those of one peer. Makes the series exist before anything happens: a rate needs a zero to start from.
    pub(super) fn of(&self, peer: &'static str) -> PeerMetrics {
        let this = PeerMetrics { peer, all: self.clone() };
        for outcome in [Outcome::unsent, Outcome::failed, Outcome::slow, Outcome::no_budget] {
            drop(this.all.retries.get_or_create(&RetryLabels { peer, outcome }));
        }
        drop(this.all.addresses_down.get_or_create(&PeerLabels { peer }));
        this
    }
}

/// The same of one peer.
#[derive(Debug, Clone)]
pub(super) struct PeerMetrics {
    peer: &'static str,
    all: RpcClientMetrics,
}

impl PeerMetrics {
    pub fn retry(&self, outcome: Outcome) {
        self.all.retries.get_or_create(&RetryLabels { peer: self.peer, outcome }).inc();
    }

    pub fn down(&self) {
        self.all.addresses_down.get_or_create(&PeerLabels { peer: self.peer }).inc();
    }

    pub fn up(&self) {
        self.all.addresses_down.get_or_create(&PeerLabels { peer: self.peer }).dec();
    }
}
