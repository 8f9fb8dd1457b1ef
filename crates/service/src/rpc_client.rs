//! The client side of gRPC.

use std::{error::Error, time::Duration};

use contracts::Failure;
use http::Uri;
use tonic::{
    Code, Request, Response, Status, TimeoutExpired,
    transport::{Channel, Endpoint},
};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    call::Call,
    environment::Env,
    http::REQUEST_ID,
    rpc::code_name,
    server::{KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS},
    telemetry::{TRACEPARENT, traceparent},
};

/// Time to reach a peer.
pub const CONNECT_TIMEOUT_MS: u64 = 2_000;

/// The URLs of a peer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPeer {
    /// There are none.
    #[error("no URL of {0} is given")]
    NoUrl(&'static str),
    /// gRPC cannot use one.
    #[error("a URL of {0} is bad: {1}")]
    BadUrl(&'static str, tonic::transport::Error),
}

/// Another service, behind one address or several that do the same.
#[derive(Clone)]
pub struct Peer {
    name: &'static str,
    channel: Channel,
    env: Env,
}

impl Peer {
    /// Does not connect yet. `name` is for logs. Needs a tokio runtime.
    pub fn new(name: &'static str, urls: &[Uri], env: Env) -> Result<Self, BadPeer> {
        let endpoints: Result<Vec<_>, _> = urls.iter().map(endpoint).collect();
        let endpoints = endpoints.map_err(|e| BadPeer::BadUrl(name, e))?;
        let channel = match &*endpoints {
            [] => return Err(BadPeer::NoUrl(name)),
            [one] => one.connect_lazy(),
            _ => Channel::balance_list(endpoints.into_iter()),
        };
        Ok(Self { name, channel, env })
    }

    /// For a generated client. It connects at the first call, and again when the connection is lost.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request that carries what is left of the call's time, its request id and the current span. Make it inside the
    /// future given to [`Peer::unary`], so that this is the call's own span.
    pub fn request<T>(&self, call: &Call, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(call.remaining(&*self.env));
        let headers = [(REQUEST_ID, call.request_id.to_string()), (TRACEPARENT, traceparent())];
        for (name, value) in headers {
            if let (false, Ok(value)) = (value.is_empty(), value.parse()) {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }

    /// One call to the method `package.Service/Method`, bounded by the call's deadline.
    pub async fn unary<T, F>(&self, call: &Call, method: &'static str, work: F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        call.check(&*self.env)?;
        let span = tracing::info_span!(
            "rpc_client",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            peer = self.name
        );
        span.set_attribute("rpc.system.name", "grpc");
        span.set_attribute("rpc.method", method);
        let answer = self.env.timeout(call.remaining(&*self.env), work.instrument(span.clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        record(&span, code);
        answer.map(Response::into_inner).map_err(|status| {
            let failure = failure(&status);
            // Why a peer cannot be reached stands in the sources only.
            let cause =
                failure.cause.clone().map(|cause| format!("{} {method}: {cause}{}", self.name, sources(&status)));
            Failure { cause, ..failure }
        })
    }
}

fn endpoint(url: &Uri) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::new(url.clone())?
        .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
        .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(KEEPALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

fn record(span: &Span, code: Code) {
    span.set_attribute("rpc.response.status_code", code_name(code));
    if code != Code::Ok {
        span.record("otel.status_code", "ERROR");
        span.set_attribute("error.type", code_name(code));
    }
}

/// What the peer said, or that the connection was lost before it said anything: tonic makes statuses of all codes of
/// that, and only those have a source.
fn failure(status: &Status) -> Failure {
    if chain(status).next().is_none() || chain(status).any(<dyn Error>::is::<TimeoutExpired>) {
        return Failure::from_status(status);
    }
    Failure::unavailable(format!("{:?}: {}", status.code(), status.message()))
}

fn sources(status: &Status) -> String {
    chain(status).fold(String::new(), |text, error| text + ": " + &error.to_string())
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error| Error::source(*error))
}
