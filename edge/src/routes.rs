//! The router: everything in the table of operations, behind `front`.

use std::sync::Arc;

use axum::{Router, middleware};
use service::{admin::HealthCheck, environment::Env, http::HttpMetrics, rpc_client::Peer};

use crate::{body::Bodies, front, health, operations::OPERATIONS, place::Room, problem};

/// Whether the process takes requests: false before it is set up and once it drains.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// Asks whether the process lives.
pub const HEALTHZ: &str = "/healthz";
/// Asks whether an order can be placed.
pub const READYZ: &str = "/readyz";

/// Places an order, and lists them.
pub const ORDERS: &str = "/orders";

/// What every handler works with.
pub(crate) struct Edge {
    pub env: Env,
    pub orders: Peer,
    pub inventory: Peer,
    pub metrics: HttpMetrics,
    pub health: HealthCheck,
    pub room: Room,
    pub bodies: Bodies,
}

pub(crate) type Shared = Arc<Edge>;

/// Everything of the edge that listens. `orders` and `inventory` are asked over gRPC.
pub fn router(env: Env, orders: Peer, inventory: Peer, metrics: HttpMetrics, ready: Ready) -> Router {
    let health = health::health_check(Arc::clone(&env), orders.clone(), inventory.clone(), ready);
    let (room, bodies) = (Room::default(), Bodies::default());
    let edge = Arc::new(Edge { env, orders, inventory, metrics, health, room, bodies });
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
    use std::task::Poll;

    use axum::{
        body::Body,
        routing::{any, get},
    };
    use http::{Method, Request, Response, StatusCode, header::RETRY_AFTER};
    use http_body_util::BodyExt;
    use serde_json::Value;
    use service::{environment::RealEnvironment, rpc_client::RpcClientMetrics};
    use tower::ServiceExt;

    use super::*;

    /// An edge with so much room for each kind, with some routes of its own, and peers that are never asked.
    fn edge(room: usize) -> Router {
        let env: Env = Arc::new(RealEnvironment::new(tokio_util::task::TaskTracker::new()));
        let url = ["http://127.0.0.1:1".parse().expect("valid")];
        let peer = Peer::new("nobody", &url, Arc::clone(&env), &RpcClientMetrics::default()).expect("valid");
        let metrics = HttpMetrics::register(&mut prometheus_client::registry::Registry::default());
        let health = health::health_check(Arc::clone(&env), peer.clone(), peer.clone(), Arc::new(|| true));
        let (orders, room, bodies) = (peer.clone(), Room::new(room, room, room), Bodies::default());
        let edge = Arc::new(Edge { env, orders, inventory: peer, metrics, health, room, bodies });
        let routes = Router::new()
            .route("/panic", get(async || -> StatusCode { panic!("secret of the inside") }))
            .route("/hang", any(hang))
            .route(ORDERS, any(hang))
            .route(HEALTHZ, get(health::live))
            .fallback(problem::not_found);
        behind_front(routes, edge)
    }

    async fn ask(edge: &Router, method: Method, path: &str) -> (Response<()>, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
        let response = edge.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("whole").to_bytes();
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_that_tells_nothing() {
        let (response, body) = ask(&edge(1), Method::GET, "/panic").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["reason"], "INTERNAL");
        assert!(!body.to_string().contains("secret"), "{body}");
        assert!(response.headers().contains_key("x-request-id"));
    }

    #[tokio::test]
    async fn a_full_edge_refuses_at_once_but_still_says_that_it_lives() {
        let full = edge(0);
        let (response, body) = ask(&full, Method::GET, "/nothing").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reason"], "OVERLOADED");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(ask(&full, Method::GET, HEALTHZ).await.0.status(), StatusCode::OK);
        assert_eq!(ask(&edge(1), Method::GET, "/nothing").await.0.status(), StatusCode::NOT_FOUND);
    }

    async fn hang() -> StatusCode {
        std::future::pending().await
    }

    #[tokio::test]
    async fn no_kind_of_request_takes_another_one_s_room() {
        const ROOM: usize = 3;
        let kinds = [
            [(Method::GET, "/hang"), (Method::HEAD, "/nothing")],
            [(Method::GET, ORDERS), (Method::HEAD, ORDERS)],
            [(Method::POST, ORDERS), (Method::DELETE, "/nothing")],
        ];
        for kind in &kinds {
            let (edge, (method, path)) = (edge(ROOM), &kind[0]);
            let mut hanging = Vec::new();
            for _ in 0..ROOM {
                let mut asking = Box::pin(ask(&edge, method.clone(), path));
                assert!(settled(&mut asking).await.is_none());
                hanging.push(asking);
            }
            for other in &kinds {
                for (method, path) in other {
                    let answer = settled(&mut Box::pin(ask(&edge, method.clone(), path))).await;
                    let refused = answer.is_some_and(|(answer, _)| answer.status() == StatusCode::SERVICE_UNAVAILABLE);
                    assert_eq!(refused, other == kind, "{method} {path}");
                }
            }
        }
    }

    /// What it ends with, if it ends by itself. The work of a request has a task of its own, which has to run too.
    async fn settled<T>(asking: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        for _ in 0..10 {
            if let Poll::Ready(done) = futures::poll!(&mut *asking) {
                return Some(done);
            }
            tokio::task::yield_now().await;
        }
        None
    }
}
