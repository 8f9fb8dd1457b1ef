//! Metrics of calls, by the OpenTelemetry conventions.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use tonic::Code;

use crate::http::duration_histogram;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc_method: &'static str,
    rpc_response_status_code: &'static str,
}

/// `rpc_server_call_duration_seconds{rpc_method,rpc_response_status_code}`.
#[derive(Debug, Clone)]
pub struct RpcMetrics {
    durations: Family<RpcLabels, Histogram, fn() -> Histogram>,
}

impl RpcMetrics {
    /// Adds them to the registry. All servers of a process share them.
    pub fn register(registry: &mut Registry) -> Self {
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let help = "Time from a call's head to its status";
        registry.register_with_unit("rpc_server_call_duration", help, Unit::Seconds, durations.clone());
        Self { durations }
    }

    /// Makes the series of a method exist before its first call: a rate needs a zero to start from.
    pub(super) fn expect(&self, method: &'static str) {
        drop(self.durations.get_or_create(&RpcLabels { rpc_method: method, rpc_response_status_code: "OK" }));
    }

    pub(super) fn observe(&self, method: &'static str, code: Code, took: Duration) {
        let labels = RpcLabels { rpc_method: method, rpc_response_status_code: code_name(code) };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// A status code as gRPC's documents write it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
