//! What stands around every method: limits, deadline, request id, span, metric, and a net for panics.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contracts::{Failure, Reason};
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    RpcMetrics,
    answer::{Answer, Progress},
    methods::{Method, Methods},
};
use crate::{
    call::{CALL_TIMEOUT_DEFAULT_MS, Call},
    environment::Env,
    http::{OTHER, request_id},
    server::Draining,
    telemetry::{TRACEPARENT, continue_trace},
};

/// Calls of one method under way in one server. More are refused with OVERLOADED. Each method has room of its own: orders
/// wait for leases and reads wait for nobody, so neither may have to wait for a flood of orders to end.
pub const RPC_IN_FLIGHT_MAX: usize = 4096;
/// Largest request, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

const GRPC_TIMEOUT: &str = "grpc-timeout";
const GRPC_TIMEOUT_DIGITS_MAX: usize = 8;

/// What the calls of one server share.
pub struct Guard {
    env: Env,
    metrics: RpcMetrics,
    methods: Methods,
    /// By method.
    rooms: HashMap<&'static str, Arc<Semaphore>>,
    /// For what is no method.
    other: Arc<Semaphore>,
}

impl Guard {
    pub fn new(env: Env, metrics: RpcMetrics, methods: Methods) -> Self {
        methods.all().for_each(|method| metrics.expect(method.name));
        let room = || Arc::new(Semaphore::new(RPC_IN_FLIGHT_MAX));
        let rooms = methods.all().map(|method| (method.name, room())).collect();
        Self { env, metrics, methods, rooms, other: room() }
    }

    fn room(&self, method: Option<Method>) -> Result<OwnedSemaphorePermit, Failure> {
        let room = method.and_then(|method| self.rooms.get(method.name)).unwrap_or(&self.other);
        Arc::clone(room).try_acquire_owned().map_err(|_| Failure::of(Reason::Overloaded))
    }
}

/// Wraps one call.
pub async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let method = guard.methods.get(request.uri().path());
    let id = request_id(request.headers(), &*guard.env);
    let span = span(method, id.as_str(), request.headers());
    // A stream has no natural end: it ends with its client or with the server. A call ends by itself, at its deadline.
    let streaming = method.is_some_and(|method| method.streaming);
    let draining = request.extensions_mut().remove::<Draining>().filter(|_| streaming);
    let mut progress = Progress::new(Arc::clone(&guard.env), guard.metrics.clone(), method, span.clone());
    let work = async {
        progress.holds(guard.room(method)?);
        let timeout = grpc_timeout(request.headers())?;
        let call = Call::new(&*guard.env, timeout.unwrap_or(DEFAULT), id);
        request.extensions_mut().insert(call.clone());
        let request = request.map(|body| limited(until_drained(body, draining.as_ref())));
        let handler = caught(next.run(request));
        if streaming { handler.await } else { call.bounded(&guard.env, handler).await }
    };
    let response = work.instrument(span.clone()).await.unwrap_or_else(|failure| {
        span.in_scope(|| super::log(&failure));
        Status::from(failure).into_http()
    });
    Answer::wrap(response, progress, draining)
}

const DEFAULT: Duration = Duration::from_millis(CALL_TIMEOUT_DEFAULT_MS);

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn span(method: Option<Method>, request_id: &str, headers: &HeaderMap) -> Span {
    let name = method.map_or(OTHER, |method| method.name);
    let span = tracing::info_span!(
        "rpc",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        request_id
    );
    if let Some(parent) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        continue_trace(&span, parent);
    }
    span.set_attribute("rpc.system.name", "grpc");
    span.set_attribute("rpc.method", name);
    span.set_attribute("request.id", request_id.to_owned());
    span
}

async fn caught(handler: impl Future<Output = Response>) -> Result<Response, Failure> {
    // The panic itself is logged by the hook. Whatever the handler left half done was its own: nothing here is shared.
    AssertUnwindSafe(handler).catch_unwind().await.map_err(|_| Failure::internal("the handler panicked"))
}

/// A handler may hold on to the requests of a stream after its answers have ended, and with them to the connection.
fn until_drained(body: Body, draining: Option<&Draining>) -> Body {
    let Some(Draining(token)) = draining else { return body };
    Body::from_stream(body.into_data_stream().take_until(token.clone().cancelled_owned()))
}

fn limited(body: Body) -> Body {
    let limited = Limited::new(body, MESSAGE_BYTES_MAX).map_err(|e| {
        if e.is::<LengthLimitError>() {
            let detail = format!("The message is larger than {MESSAGE_BYTES_MAX} bytes.");
            Status::from(Failure::new(Reason::BodyTooLarge, detail)).into()
        } else {
            e
        }
    });
    Body::new(limited)
}

/// The time that the caller gives, as gRPC writes it: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_timeout);
    parsed.map(Some).ok_or_else(|| Failure::field(GRPC_TIMEOUT, "must be 1 to 8 digits and one of H, M, S, m, u, n"))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > GRPC_TIMEOUT_DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}
