//! `/healthz` and `/readyz`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use contracts::{Failure, Reason};
use serde_json::{Map, json};
use service::{
    admin::{HealthCheck, HealthReport},
    call::Call,
    environment::Env,
    health::serving,
    rpc_client::Peer,
};

use crate::{
    problem::Problem,
    query,
    routes::{Ready, Shared},
};

/// Time for the peers to say that they serve.
pub const READY_CHECK_TIMEOUT_MS: u64 = 1_000;

/// `GET /healthz`: the process answers.
pub async fn live(request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    Ok(Json(json!({ "status": "ok" })).into_response())
}

/// `GET /readyz`: an order can be placed.
pub async fn ready(State(edge): State<Shared>, request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let report = (edge.health)().await;
    if report.ready {
        return Ok(report.into_response());
    }
    let part = |(name, ok): (String, bool)| (name, (if ok { "ok" } else { "failing" }).into());
    let parts: Map<_, _> = report.parts.into_iter().map(part).collect();
    let failure = Failure::new(Reason::Unavailable, "No order can be placed now.");
    Err(Problem::from(failure).member("parts", parts.into()))
}

/// Whether an order can be placed: the process takes requests and the order service says that it serves. Inventory alone
/// only makes the edge degraded, because the order service judges by itself whether it can do without.
///
/// Asks at every call and remembers nothing, so that the answer is never older than the question.
pub fn health_check(env: Env, orders: Peer, inventory: Peer, ready: Ready) -> HealthCheck {
    Arc::new(move || {
        let (env, orders, inventory, ready) = (Arc::clone(&env), orders.clone(), inventory.clone(), Arc::clone(&ready));
        Box::pin(async move {
            let call = Call::new(&*env, Duration::from_millis(READY_CHECK_TIMEOUT_MS), env.uuid().into());
            let (order, inventory) = futures::join!(
                serving(&orders, &call, "orders.v1.OrderService"),
                serving(&inventory, &call, "inventory.v1.InventoryService"),
            );
            let parts = vec![("order".to_owned(), order), ("inventory".to_owned(), inventory)];
            HealthReport { ready: ready() && order, parts, causes: BTreeMap::new() }
        })
    })
}
