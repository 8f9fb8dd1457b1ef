//! The client side of gRPC.

use std::{error::Error, sync::Arc};

use contracts::Failure;
use http::Uri;
use tonic::{Code, ConnectError, Request, Response, Status, TimeoutExpired, transport::Channel};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    call::Call,
    environment::Env,
    http::REQUEST_ID,
    rpc::code_name,
    telemetry::{TRACEPARENT, traceparent},
};

mod addresses;

use addresses::Addresses;

pub use addresses::{ADDRESSES_MAX, LEFT_ALONE_MAX_MS, LEFT_ALONE_MIN_MS, RESOLVE_INTERVAL_MS, RESOLVE_TIMEOUT_MS};

/// Time to reach a peer.
pub const CONNECT_TIMEOUT_MS: u64 = 2_000;

/// A peer has no URL.
#[derive(Debug, thiserror::Error)]
#[error("no URL of {0} is given")]
pub struct NoUrl(&'static str);

/// Another service, behind one address or several that do the same. Calls go to each in turn; one that cannot be
/// reached is passed over, at once and for a while.
#[derive(Clone)]
pub struct Peer {
    name: &'static str,
    addresses: Arc<Addresses>,
    env: Env,
}

impl Peer {
    /// Does not connect yet. `name` is for logs. Needs a tokio runtime.
    pub fn new(name: &'static str, urls: &[Uri], env: Env) -> Result<Self, NoUrl> {
        if urls.is_empty() {
            return Err(NoUrl(name));
        }
        Ok(Self { name, addresses: Addresses::new(name, urls, env.clone()), env })
    }

    /// A request that carries what is left of the call's time, its request id and the current span.
    fn request<T>(&self, call: &Call, message: T) -> Request<T> {
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

    /// One call to the method `package.Service/Method`, bounded by the call's deadline. `send` makes the call with a
    /// generated client; it is called again, for another address, only when nothing was sent to the one before.
    pub async fn unary<M: Clone, T, F>(
        &self,
        call: &Call,
        method: &'static str,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<T, Failure>
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
        let work = async {
            let mut unreached = Status::unavailable("no address of it could be reached a moment ago");
            for trial in self.addresses.in_turn().await {
                match send(trial.channel(), self.request(call, message.clone())).await {
                    Err(status) if never_sent(&status) => {
                        trial.not_reached();
                        unreached = status;
                    }
                    answer => {
                        trial.reached();
                        return answer;
                    }
                }
            }
            Err(unreached)
        };
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

/// No connection could be made, or the one there was ended before it took the call: it has left nothing anywhere.
fn never_sent(status: &Status) -> bool {
    let not_taken = |error: &(dyn Error + 'static)| error.downcast_ref().is_some_and(hyper::Error::is_canceled);
    chain(status).any(|error| error.is::<ConnectError>() || not_taken(error))
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
