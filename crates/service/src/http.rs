//! Metrics and request ids of HTTP, by the OpenTelemetry conventions.

use std::{borrow::Cow, time::Duration};

use contracts::values::Token;
use http::{HeaderMap, Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::environment::Environment;

/// Names a request, over all services that it passes.
pub const REQUEST_ID: &str = "x-request-id";

/// Upper bounds of the buckets of every duration of a call, in seconds, by the OpenTelemetry conventions.
pub const DURATION_BUCKETS_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Stands in metrics for a name that a stranger made up: label values have to be few.
pub const OTHER: &str = "_OTHER";

/// A histogram of durations.
pub fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS_SECONDS)
}

/// The request's id: the caller's if it is sane, else a new one.
pub fn request_id(headers: &HeaderMap, env: &dyn Environment) -> Token {
    let given = headers.get(REQUEST_ID).and_then(|value| Token::parse(value.to_str().ok()?).ok());
    given.unwrap_or_else(|| env.uuid().into())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the names are those of the labels")]
struct HttpLabels {
    http_request_method: Cow<'static, str>,
    http_route: Cow<'static, str>,
    http_response_status_code: u16,
}

/// `http_server_request_duration_seconds{http_request_method,http_route,http_response_status_code}`.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    durations: Family<HttpLabels, Histogram, fn() -> Histogram>,
}

impl HttpMetrics {
    /// Adds them to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let help = "Time from a request's head to its answer's head";
        registry.register_with_unit("http_server_request_duration", help, Unit::Seconds, durations.clone());
        Self { durations }
    }

    /// Counts one answer. `route` is the template, as in `/orders/{id}`; `None` when no route matched.
    pub fn observe(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        let labels = HttpLabels {
            http_request_method: Cow::Borrowed(method_label(method)),
            http_route: route.map_or(Cow::Borrowed(OTHER), |route| Cow::Owned(route.to_owned())),
            http_response_status_code: status.as_u16(),
        };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// The method, or [`OTHER`] for one that no standard names: spans and metrics must not grow with what strangers send.
pub fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => OTHER,
    }
}
