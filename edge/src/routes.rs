//! The router: everything in the table of operations, behind `front`.

use std::sync::Arc;

use axum::{Router, middleware};
use service::{admin::HealthCheck, environment::Env, http::HttpMetrics, rpc_client::Peer};
use tokio::sync::Semaphore;

use crate::{
    front::{self, REQUESTS_IN_FLIGHT_MAX},
    health,
    operations::OPERATIONS,
    problem,
};

/// Whether the process takes requests: false before it is set up and once it drains.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// Asks whether the process lives.
pub const HEALTHZ: &str = "/healthz";
/// Asks whether an order can be placed.
pub const READYZ: &str = "/readyz";

/// What every handler works with.
pub(crate) struct Edge {
    pub env: Env,
    pub orders: Peer,
    pub inventory: Peer,
    pub metrics: HttpMetrics,
    pub health: HealthCheck,
    pub in_flight: Semaphore,
}

pub(crate) type Shared = Arc<Edge>;

/// Everything of the edge that listens. `orders` and `inventory` are asked over gRPC.
pub fn router(env: Env, orders: Peer, inventory: Peer, metrics: HttpMetrics, ready: Ready) -> Router {
    let health = health::health_check(Arc::clone(&env), orders.clone(), inventory.clone(), ready);
    let in_flight = Semaphore::new(REQUESTS_IN_FLIGHT_MAX);
    let edge = Arc::new(Edge { env, orders, inventory, metrics, health, in_flight });
    let routes = OPERATIONS.iter().fold(Router::new(), |routes, operation| {
        let method = operation.method.clone().try_into().expect("axum routes every method of the table");
        routes.route(operation.path, (operation.handler)(method))
    });
    let routes = routes.fallback(problem::not_found).method_not_allowed_fallback(problem::method_not_allowed);
    behind_front(routes, edge)
}

/// Every answer goes through `front`, that of a fallback too.
fn behind_front(routes: Router<Shared>, edge: Shared) -> Router {
    routes.layer(middleware::from_fn_with_state(Arc::clone(&edge), front::front)).with_state(edge)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, Response, StatusCode, header::RETRY_AFTER};
    use http_body_util::BodyExt;
    use serde_json::Value;
    use service::environment::RealEnvironment;
    use tower::ServiceExt;

    use service::rpc_client::RpcClientMetrics;

    use super::*;

    /// An edge that takes so many requests at a time, with one route more, and peers that are never asked.
    async fn get(path: &str, in_flight_max: usize) -> (Response<()>, Value) {
        let env: Env = Arc::new(RealEnvironment::new(tokio_util::task::TaskTracker::new()));
        let url = ["http://127.0.0.1:1".parse().expect("valid")];
        let peer = Peer::new("nobody", &url, Arc::clone(&env), &RpcClientMetrics::default()).expect("valid");
        let metrics = HttpMetrics::register(&mut prometheus_client::registry::Registry::default());
        let health = health::health_check(Arc::clone(&env), peer.clone(), peer.clone(), Arc::new(|| true));
        let (orders, in_flight) = (peer.clone(), Semaphore::new(in_flight_max));
        let edge = Arc::new(Edge { env, orders, inventory: peer, metrics, health, in_flight });
        let routes = Router::new()
            .route("/panic", axum::routing::get(async || -> StatusCode { panic!("secret of the inside") }))
            .route(HEALTHZ, axum::routing::get(health::live))
            .fallback(problem::not_found);
        let request = Request::get(path).body(Body::empty()).expect("valid");
        let response = behind_front(routes, edge).oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("whole").to_bytes();
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_that_tells_nothing() {
        let (response, body) = get("/panic", 1).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["reason"], "INTERNAL");
        assert!(!body.to_string().contains("secret"), "{body}");
        assert!(response.headers().contains_key("x-request-id"));
    }

    #[tokio::test]
    async fn a_full_edge_refuses_at_once_but_still_says_that_it_lives() {
        let (response, body) = get("/nothing", 0).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reason"], "OVERLOADED");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(get(HEALTHZ, 0).await.0.status(), StatusCode::OK);
        assert_eq!(get("/nothing", 1).await.0.status(), StatusCode::NOT_FOUND);
    }
}
