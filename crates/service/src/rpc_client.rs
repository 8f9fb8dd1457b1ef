//! The client side of gRPC.

use std::{error::Error, sync::Arc, time::Duration};

use contracts::{Failure, Reason};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::Uri;
use tonic::{Code, ConnectError, Request, Response, Status, TimeoutExpired, transport::Channel};
use tower::retry::budget::{Budget, TpsBudget};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    call::Call,
    environment::Env,
    http::REQUEST_ID,
    rpc::code_name,
    telemetry::{TRACEPARENT, traceparent},
};

mod address;
mod addresses;
mod metrics;
mod network;

use addresses::{Addresses, Attempt};
use metrics::{Outcome, PeerMetrics};
use network::Network;

pub use address::{HEAD_START_MS, LEFT_ALONE_MAX_MS, LEFT_ALONE_MIN_MS, TRY_TIMEOUT_MS, VOUCHED_MS};
pub use addresses::{ADDRESSES_MAX, RESOLVE_INTERVAL_MS, RESOLVE_TIMEOUT_MS};
pub use metrics::RpcClientMetrics;
pub(crate) use network::endpoint;
pub use network::{KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS};

/// So long without an answer, a call is sent to another address too, in milliseconds.
pub const PATIENCE_MS: u64 = 500;
/// Most attempts of a call.
pub const ATTEMPTS_MAX: usize = 4;
/// First wait before another attempt after a failure, in milliseconds; it doubles.
pub const BACKOFF_MS: u64 = 10;
/// What may be sent again, of all calls of the last [`BUDGET_WINDOW_S`],
pub const BUDGET_PERCENT: u32 = 20;
/// and beside that in each second, for who calls seldom.
pub const BUDGET_FLOOR_PER_S: u32 = 2;
/// How long a call counts, in seconds.
pub const BUDGET_WINDOW_S: u64 = 10;

/// A peer has no URL.
#[derive(Debug, thiserror::Error)]
#[error("no URL of {0} is given")]
pub struct NoUrl(&'static str);

/// What may be done with a call that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It may be sent again although it was perhaps done: it reads, or an id in it makes a second one do nothing.
    Safe,
    /// The same, and to another address when a peer answers that it cannot now. For the first in a row of services alone: if
    /// each of them did it, what they all stand on would be asked twice as often by each when it is down.
    SafeElsewhere,
    /// It may be sent again, but never beside one that is being done: a second one does something, which spoils the first.
    OneAtATime,
    /// It may be sent again only if it has surely not left.
    Unsent,
}

/// Another service, behind one address or several that do the same. Calls go to each in turn, and all that is sent again
/// in this system for want of an answer is sent again here.
#[derive(Clone)]
pub struct Peer {
    name: &'static str,
    addresses: Arc<Addresses>,
    budget: Arc<TpsBudget>,
    metrics: PeerMetrics,
    env: Env,
}

/// What a failed attempt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The peer has decided, or the time is over.
    Final,
    /// It has left nothing anywhere.
    Unsent,
    /// It may have been done.
    InDoubt,
    /// The peer cannot now. Another one may, but if that cannot either, what they share is down.
    CannotNow,
}

impl Peer {
    /// Does not connect yet. `name` is for logs and metrics. Needs a tokio runtime.
    pub fn new(name: &'static str, urls: &[Uri], env: Env, metrics: &RpcClientMetrics) -> Result<Self, NoUrl> {
        if urls.is_empty() {
            return Err(NoUrl(name));
        }
        let metrics = metrics.of(name);
        let addresses = Addresses::new(name, urls, env.clone(), metrics.clone(), Network::system());
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let share = BUDGET_PERCENT as f32 / 100.0;
        let budget = TpsBudget::new(Duration::from_secs(BUDGET_WINDOW_S), BUDGET_FLOOR_PER_S, share);
        Ok(Self { name, addresses, budget: Arc::new(budget), metrics, env })
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

    /// One call to the method `package.Service/Method`, bounded by the call's deadline. `send` makes an attempt with a
    /// generated client.
    pub async fn unary<M: Clone, T, F>(
        &self,
        call: &Call,
        method: &'static str,
        repeat: Repeat,
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
        let work = self.attempts(call, repeat, |channel| send(channel, self.request(call, message.clone())));
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

    /// Attempts until one is answered. One that was not sent, or failed without an answer, is followed by another; one
    /// that takes long is joined by another if it may be, and the first answer counts.
    async fn attempts<T, F>(
        &self,
        call: &Call,
        repeat: Repeat,
        send: impl Fn(Channel) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.budget.deposit();
        // Who has little time must find out within it.
        let patience = Duration::from_millis(PATIENCE_MS).min(call.remaining(&*self.env) / 2);
        let mut made: Vec<Attempt> = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut next = Some(self.next(&made).await?);
        loop {
            if let Some(attempt) = next.take() {
                let number = made.len();
                under_way.push(send(attempt.channel()).map(move |answer| (number, answer)));
                made.push(attempt);
            }
            let answered = self.env.timeout(patience, under_way.next()).await;
            let mut may_go_on = made.len() < ATTEMPTS_MAX;
            let Ok(answered) = answered else {
                made.iter().filter(|attempt| attempt.under_way).for_each(Attempt::doubt);
                let silent = made.iter().all(|attempt| !attempt.under_way || attempt.is_silent());
                let may_join = match repeat {
                    Repeat::Safe | Repeat::SafeElsewhere => true,
                    Repeat::OneAtATime => silent,
                    Repeat::Unsent => false,
                };
                if may_go_on && may_join {
                    next = self.addresses.next_now(&made).filter(|_| self.may_repeat(Outcome::slow));
                }
                if next.is_none() && silent {
                    return Err(Status::unavailable("no sign of life"));
                }
                continue;
            };
            let (number, answer) = answered.expect("one is under way");
            made[number].under_way = false;
            let Err(status) = answer else {
                made[number].answered();
                return answer;
            };
            let outcome = match judge(&status, &made[number]) {
                Verdict::Unsent => Outcome::unsent,
                Verdict::InDoubt if repeat != Repeat::Unsent => Outcome::failed,
                Verdict::CannotNow if repeat == Repeat::SafeElsewhere => {
                    may_go_on &= self.addresses.has_other(&made);
                    Outcome::failed
                }
                Verdict::InDoubt | Verdict::CannotNow | Verdict::Final => return Err(status),
            };
            let others = made.iter().any(|attempt| attempt.under_way);
            if !may_go_on || !self.may_repeat(outcome) {
                if others {
                    continue;
                }
                return Err(status);
            }
            if others {
                next = self.addresses.next_now(&made);
                continue;
            }
            if outcome == Outcome::failed && !self.back_off(call, made.len()).await {
                return Err(status);
            }
            next = Some(self.next(&made).await?);
        }
    }

    async fn next(&self, made: &[Attempt]) -> Result<Attempt, Status> {
        self.addresses.next(made).await.map_err(Status::unavailable)
    }

    /// Whether an attempt may follow, which is counted. What was not sent burdens nobody.
    fn may_repeat(&self, outcome: Outcome) -> bool {
        let may = outcome == Outcome::unsent || self.budget.withdraw();
        self.metrics.retry(if may { outcome } else { Outcome::no_budget });
        may
    }

    /// Waits a little, so that the calls that failed together do not come again together. False when there is no time.
    async fn back_off(&self, call: &Call, made: usize) -> bool {
        let pause = self.env.jittered(Duration::from_millis(BACKOFF_MS << (made - 1).min(ATTEMPTS_MAX)));
        if call.remaining(&*self.env) <= pause {
            return false;
        }
        self.env.sleep(pause).await;
        true
    }
}

/// What a failed attempt says, to the caller and of the connection.
fn judge(status: &Status, attempt: &Attempt) -> Verdict {
    if status.source().is_none() {
        attempt.answered();
        // Only that it cannot now. That it has too much to do must not give it more.
        let cannot_now = Failure::from_status(status).reason == Reason::Unavailable;
        return if cannot_now { Verdict::CannotNow } else { Verdict::Final };
    }
    if chain(status).any(<dyn Error>::is::<TimeoutExpired>) {
        return Verdict::Final;
    }
    if let Some(error) = chain(status).find_map(|error| error.downcast_ref::<h2::Error>()) {
        if error.is_reset() {
            // This call was ended, not the connection.
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return if refused { Verdict::Unsent } else { Verdict::InDoubt };
        }
        // A peer that goes away says up to which call it has taken them. The others end so.
        if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) {
            attempt.lost();
            return Verdict::Unsent;
        }
    }
    attempt.lost();
    // No connection was there any more, or it ended before it took the call.
    let ended = chain(status).any(<dyn Error>::is::<ConnectError>);
    let not_taken = chain(status).any(|error| error.downcast_ref().is_some_and(hyper::Error::is_canceled));
    if ended || not_taken { Verdict::Unsent } else { Verdict::InDoubt }
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
