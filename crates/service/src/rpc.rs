//! The server side of gRPC: every method gets a deadline, a request id, a span and a metric, and no panic gets out.
//!
//! tonic's own server is not used: it answers an expired deadline with CANCELLED.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use axum::{Router, middleware, response::IntoResponse};
use contracts::{Failure, reason::Reason};
use http::Request;
use tonic::{Response, Status, body::Body, server::NamedService, service::Routes};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder as Reflection;
use tower::Service;

use crate::{call::Call, environment::Env};

mod answer;
mod guard;
mod health;
mod methods;
mod metrics;

pub use guard::{MESSAGE_BYTES_MAX, RPC_IN_FLIGHT_MAX};
pub use health::Health;
pub use metrics::RpcMetrics;
pub(crate) use metrics::code_name;

/// Collects services, and then becomes a router for [`crate::server::serve`].
pub struct RpcServer {
    env: Env,
    metrics: RpcMetrics,
    descriptors: &'static [u8],
    routes: Routes,
    names: BTreeSet<&'static str>,
    health: Health,
}

impl RpcServer {
    /// Without services. `descriptors` is an encoded `FileDescriptorSet` of all that will be added.
    pub fn new(env: Env, metrics: RpcMetrics, descriptors: &'static [u8]) -> Self {
        let routes = Routes::default();
        Self { env, metrics, descriptors, routes, names: BTreeSet::new(), health: Health::default() }
    }

    /// Adds a service. Its health entry exists from now on, as not serving.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "nobody takes a server for a number")]
    pub fn add<S>(self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.health.say(S::NAME, false);
        self.plain(service)
    }

    fn plain<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.insert(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// The services' health. Nothing serves until it is said here.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Everything on one router: the services, health, reflection, and gRPC-Web.
    pub fn router(self) -> Router {
        let descriptors = self.descriptors;
        let health = HealthServer::new(self.health.clone());
        let all = self.plain(health);
        let v1 = reflection(descriptors, &all.names).build_v1().expect("the descriptors were made by the build");
        let v1alpha = reflection(descriptors, &all.names).build_v1alpha();
        let v1alpha = v1alpha.expect("the descriptors were made by the build");
        let all = all.plain(v1).plain(v1alpha);
        let guard = guard::Guard::new(all.env, all.metrics, methods::Methods::of(descriptors, &all.names));
        all.routes
            .prepare()
            .into_axum_router()
            .layer(middleware::from_fn_with_state(Arc::new(guard), guard::guard))
            .layer(tonic_web::GrpcWebLayer::new())
    }
}

/// Lists what is served here, and describes everything: messages refer to each other across services.
fn reflection(descriptors: &'static [u8], names: &BTreeSet<&'static str>) -> Reflection<'static> {
    let listing = Reflection::configure();
    let own = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    let listing = names.iter().chain(&own).fold(listing, |listing, name| listing.with_service_name(*name));
    listing
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Deadline and request id of a request that came through [`RpcServer::router`].
pub fn call<T>(request: &tonic::Request<T>) -> Call {
    request.extensions().get().cloned().expect("RpcServer::router gives every request one")
}

/// The answer of a handler. Logs a failure, with its cause: this is where it leaves the process.
pub fn reply<T>(result: Result<T, Failure>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|failure| {
        log(&failure);
        failure.into()
    })
}

/// A fault of ours is for the operator at once, a lack of something may be, and a refusal is the client's affair.
fn log(failure: &Failure) {
    let (reason, cause) = (failure.reason.name(), failure.cause.as_deref().unwrap_or_default());
    match failure.reason {
        Reason::Internal => tracing::error!(reason, cause, "call failed"),
        Reason::Unavailable | Reason::Overloaded | Reason::DeadlineExceeded => {
            tracing::warn!(reason, cause, "call failed");
        }
        Reason::InvalidRequest
        | Reason::RouteNotFound
        | Reason::OrderNotFound
        | Reason::ReservationNotFound
        | Reason::MethodNotAllowed
        | Reason::RequestTimeout
        | Reason::InsufficientStock
        | Reason::ReservationMismatch
        | Reason::ReservationReleased
        | Reason::ReservationConfirmed
        | Reason::RestockMismatch
        | Reason::BodyTooLarge
        | Reason::UnsupportedMediaType
        | Reason::IdempotencyKeyReused => tracing::debug!(reason, cause, "call refused"),
    }
}
