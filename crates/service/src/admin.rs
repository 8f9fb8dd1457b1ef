//! What operators and orchestrators ask a process, on a port of its own: `/metrics`, `/healthz`, `/readyz`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::BoxFuture;
use http::{StatusCode, header};
use prometheus_client::registry::Registry;
use serde::Serialize;

pub mod process;

/// Media type of OpenMetrics text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Asks a process how it is.
pub type HealthCheck = Arc<dyn Fn() -> BoxFuture<'static, HealthReport> + Send + Sync>;

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Whether it can do its work.
    pub ready: bool,
    /// The things it depends on, and whether each is well.
    pub parts: Vec<(String, bool)>,
    /// Why those that are not well are not, in words for the operator, where that is known.
    pub causes: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct HealthBody<'a> {
    status: &'static str,
    parts: BTreeMap<&'a str, &'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    causes: &'a BTreeMap<String, String>,
}

/// 200 when ready, else 503. Parts that are not well make a ready process `degraded`.
impl IntoResponse for HealthReport {
    fn into_response(self) -> Response {
        let well = self.parts.iter().all(|(_, ok)| *ok);
        let (code, status) = match (self.ready, well) {
            (true, true) => (StatusCode::OK, "ready"),
            (true, false) => (StatusCode::OK, "degraded"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let parts = self.parts.iter().map(|(name, ok)| (name.as_str(), if *ok { "ok" } else { "failing" }));
        let body = HealthBody { status, parts: parts.collect(), causes: &self.causes };
        (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }
}

/// `/metrics` in OpenMetrics text, `/healthz` (the process answers) and `/readyz` (it can do its work).
pub fn router(registry: Arc<Registry>, health: HealthCheck) -> Router {
    Router::new()
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || health().await))
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(e) => {
            tracing::error!(error = %e, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
