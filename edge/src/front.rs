//! What happens around every request, whether its path is served or not: ids, the deadline, a place among those in
//! flight, span, metrics, the access log, and the bodies of all problems.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contracts::{Failure, Reason, values::Token};
use futures::FutureExt;
use http::{
    HeaderValue, Method, StatusCode, Version,
    header::{CACHE_CONTROL, HOST, USER_AGENT, X_CONTENT_TYPE_OPTIONS},
};
use service::{
    call::Call,
    http::{OTHER, method_label},
    server::UnderWay,
    telemetry::{TRACEPARENT, continue_trace},
};
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    headers::{self, X_ATTEMPT_ID, X_REQUEST_ID},
    path,
    place::Place,
    problem::Problem,
    routes::{HEALTHZ, READYZ, Shared},
};

/// Time for a request, from its head to its answer. Travels with every call that it causes.
pub const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// What handlers know of a request besides the request itself.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its deadline and id.
    pub call: Call,
    /// Names the attempt; a repeat by a gateway has the same.
    pub attempt_id: Token,
    /// Its place among those under way. `None` for what asks after health: that is told even when there is none.
    pub place: Option<Place>,
}

/// The middleware. Every request is served in a task of its own: a client that hangs up must not cancel the calls of its
/// request, because too many cancelled calls end the connection to a service, which all clients share.
pub async fn front(State(edge): State<Shared>, request: Request, next: Next) -> Response {
    let env = Arc::clone(&edge.env);
    let answer = env.detached(serve(edge, request, next)).await;
    // Nobody else to say it: what panics behind this line has no request id.
    answer.unwrap_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn serve(edge: Shared, request: Request, next: Next) -> Response {
    let start = edge.env.uptime();
    let request_id = headers::token(request.headers(), X_REQUEST_ID).unwrap_or_else(|| edge.env.uuid().into());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();

    let span = span(&request, route, &request_id);
    let mut response = answer(&edge, request, next, route, &request_id).instrument(span.clone()).await;

    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
        problem.write(&request_id, &mut response);
        log_failure(&problem, &request_id);
    }
    complete_headers(&mut response, &request_id);
    let status = response.status();
    let took = edge.env.uptime().saturating_sub(start);
    record(&span, status);
    edge.metrics.observe(&method, route, status, took);
    log_access(&method, route, &path, status, took, &request_id);
    response
}

async fn answer(edge: &Shared, mut request: Request, next: Next, route: Option<&str>, request_id: &Token) -> Response {
    let under_way = request.extensions_mut().remove::<UnderWay>();
    if under_way.as_ref().is_some_and(UnderWay::is_one_too_many) {
        return Problem::of(Reason::Overloaded).into_response();
    }
    let place = match route {
        Some(HEALTHZ | READYZ) => None,
        _ => match edge.room.take(request.method(), route) {
            Ok(place) => Some(place),
            Err(problem) => return problem.into_response(),
        },
    };
    if let Err(problem) = path::check(request.uri()) {
        return problem.into_response();
    }
    let timeout = Duration::from_millis(REQUEST_TIMEOUT_MS);
    let call = Call::new(&*edge.env, timeout, request_id.clone());
    let attempt_id = headers::token(request.headers(), X_ATTEMPT_ID).unwrap_or_else(|| edge.env.uuid().into());
    request.extensions_mut().insert(Context { call, attempt_id, place: place.clone() });
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    drop((place, under_way));
    // What it said is logged by the panic hook.
    response.unwrap_or_else(|_| Problem::from(Failure::internal("the handler panicked")).into_response())
}

fn complete_headers(response: &mut Response, request_id: &Token) {
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(request_id.as_str()).expect("letters, digits and hyphens");
    headers.insert(X_REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A server span by the OpenTelemetry conventions for HTTP.
fn span(request: &Request, route: Option<&str>, request_id: &Token) -> Span {
    let method = method_label(request.method());
    let verb = if method == OTHER { "HTTP" } else { method };
    let name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
    let span =
        tracing::info_span!("http", otel.name = name, otel.kind = "server", otel.status_code = Empty, %request_id);
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(parent) = headers::single(request.headers(), TRACEPARENT).and_then(|value| value.to_str().ok()) {
        continue_trace(&span, parent);
    }
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let attributes = [
        ("http.request.method", Some(method)),
        ("http.route", route),
        ("url.path", Some(request.uri().path())),
        ("url.scheme", Some("http")),
        ("network.protocol.version", Some(version)),
        ("server.address", text(HOST)),
        ("user_agent.original", text(USER_AGENT)),
    ];
    for (name, value) in attributes {
        if let Some(value) = value {
            span.set_attribute(name, value.to_owned());
        }
    }
    span
}

fn record(span: &Span, status: StatusCode) {
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    // A client's fault is no error of the server's.
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.set_attribute("error.type", status.as_str().to_owned());
    }
}

/// The one place that logs why a request failed.
fn log_failure(problem: &Problem, request_id: &Token) {
    let reason = problem.reason();
    let cause = problem.cause();
    if reason.http_status() >= 500 {
        tracing::warn!(reason = reason.name(), cause, %request_id, "request failed");
    } else if cause.is_some() {
        tracing::debug!(reason = reason.name(), cause, %request_id, "request refused");
    }
}

fn log_access(
    method: &Method,
    route: Option<&str>,
    path: &str,
    status: StatusCode,
    took: Duration,
    request_id: &Token,
) {
    let status = status.as_u16();
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(%method, route, path, status, ms, %request_id, "answered");
}
