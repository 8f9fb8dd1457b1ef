//! A call's answer on its way out: gRPC says how the call went only at its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use contracts::Failure;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{RpcMetrics, methods::Method, metrics::code_name};
use crate::{environment::Env, http::OTHER, server::Draining};

/// A call under way. Told once how it ended; a call that is dropped before its end was cancelled by its client.
pub struct Progress {
    env: Env,
    metrics: RpcMetrics,
    method: Option<Method>,
    span: Span,
    started: Duration,
    permit: Option<OwnedSemaphorePermit>,
    ended: bool,
}

impl Progress {
    pub fn new(env: Env, metrics: RpcMetrics, method: Option<Method>, span: Span) -> Self {
        let started = env.uptime();
        Self { env, metrics, method, span, started, permit: None, ended: false }
    }

    /// Keeps room for the call until its end.
    pub fn holds(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.permit = None;
        let name = code_name(code);
        self.span.set_attribute("rpc.response.status_code", name);
        if is_fault(code) {
            self.span.record("otel.status_code", "ERROR");
            self.span.set_attribute("error.type", name);
        }
        let took = self.env.uptime().saturating_sub(self.started);
        self.metrics.observe(self.method.map_or(OTHER, |method| method.name), code, took);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Codes that are the server's fault, by the OpenTelemetry conventions.
fn is_fault(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}

/// The body of an answer.
pub struct Answer {
    body: Body,
    progress: Progress,
    /// Ends the body early.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    cut: bool,
}

impl Answer {
    /// Watches `response` for its status. With `draining`, ends it when the server ends.
    pub fn wrap(response: Response, mut progress: Progress, draining: Option<Draining>) -> Response {
        // A call that fails at once carries its status in the head and has no body.
        if let Some(code) = status(response.headers()) {
            progress.end(code);
        }
        let draining = draining.map(|draining| Box::pin(draining.0.cancelled_owned()));
        response.map(|body| Body::new(Self { body, progress, draining, cut: false }))
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> bool {
        self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready())
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.cut {
            return Poll::Ready(None);
        }
        if self.drained(cx) {
            self.cut = true;
            self.progress.end(Code::Unavailable);
            let status = Status::from(Failure::unavailable("draining"));
            let mut trailers = HeaderMap::new();
            // It only fails for text that no header can carry, and tonic encodes the text.
            let _ = status.add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(status) {
                    self.progress.end(code);
                }
            }
            Some(Err(_)) | None => self.progress.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.cut || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn status(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
