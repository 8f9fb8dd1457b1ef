//! The admin port.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::body::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prometheus_client::registry::Registry;
use service::{
    admin::{self, HealthReport},
    http::HttpMetrics,
    server::{Limits, serve},
};
use tokio_util::sync::CancellationToken;

use crate::fixture::{env, listener, url};

#[tokio::test]
async fn it_serves_metrics_and_health() {
    let (env, listener) = (env(), listener().await);
    let addr = listener.addr();
    let mut registry = Registry::default();
    admin::process::register(&mut registry, &*env);
    let metrics = HttpMetrics::register(&mut registry);
    let took = std::time::Duration::from_millis(3);
    metrics.observe(&Method::GET, Some("/orders/{id}"), StatusCode::OK, took);
    metrics.observe(&Method::from_bytes(b"BREW").expect("a token"), None, StatusCode::NOT_FOUND, took);
    let (ready, well) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let health: admin::HealthCheck = {
        let (ready, well) = (Arc::clone(&ready), Arc::clone(&well));
        Arc::new(move || {
            let parts = vec![("ledger".to_owned(), true), ("broker".to_owned(), well.load(Ordering::Relaxed))];
            let why = || ("broker".to_owned(), "it is away".to_owned());
            let causes = (!well.load(Ordering::Relaxed)).then(why).into_iter().collect();
            let report = HealthReport { ready: ready.load(Ordering::Relaxed), parts, causes };
            Box::pin(std::future::ready(report))
        })
    };
    let router = admin::router(Arc::new(registry), health);
    tokio::spawn(serve(listener, router, Limits::default(), env, CancellationToken::new()));

    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let get = async |path: &str| {
        let request = Request::get(url(addr, path)).body(Empty::new()).expect("valid");
        let response = client.request(request).await.expect("answered");
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        (status, kind, String::from_utf8(body.into()).expect("UTF-8"))
    };

    assert_eq!(get("/healthz").await.0, 200);
    let (status, kind, text) = get("/metrics").await;
    assert_eq!((status, kind.as_str()), (200, admin::OPENMETRICS));
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in [
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_route=\"/orders/{id}\",\
         http_response_status_code=\"200\"} 1",
        "http_server_request_duration_seconds_count{http_request_method=\"_OTHER\",http_route=\"_OTHER\",\
         http_response_status_code=\"404\"} 1",
        "process_start_time_seconds ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line} in {text}");
    }

    let readiness = async || {
        let (status, kind, body) = get("/readyz").await;
        assert_eq!(kind, "application/json");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        (status, body)
    };
    let parts = |broker| serde_json::json!({"ledger": "ok", "broker": broker});
    assert_eq!(readiness().await, (503, serde_json::json!({"status": "unavailable", "parts": parts("ok")})));
    ready.store(true, Ordering::Relaxed);
    assert_eq!(readiness().await, (200, serde_json::json!({"status": "ready", "parts": parts("ok")})));
    well.store(false, Ordering::Relaxed);
    let degraded =
        serde_json::json!({"status": "degraded", "parts": parts("failing"), "causes": {"broker": "it is away"}});
    assert_eq!(readiness().await, (200, degraded));
}
