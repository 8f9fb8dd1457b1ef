//! `/healthz` and `/readyz`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use contracts::{Failure, Reason};
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use serde_json::{Map, json};
use service::{
    admin::{HealthCheck, HealthReport},
    call::Call,
    environment::Env,
    health::serving,
    readiness::{NOT_SERVING, not_serving},
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
    let detail = match report.causes.get(NOT_SERVING.0) {
        Some(_) => "The process is about to end: whoever chooses among several should leave it out.",
        None => "No order can be placed now.",
    };
    let failure = Failure::new(Reason::Unavailable, detail);
    Err(Problem::from(failure).member("parts", parts.into()))
}

/// Whether an order can be placed: the process takes requests and the order service says that it serves. Inventory alone
/// only makes the edge degraded, because the order service judges by itself whether it can do without.
///
/// Remembers nothing: who asks while it is being found out is told what comes out, so that many who ask cost no more than
/// one.
pub fn health_check(env: Env, orders: Peer, inventory: Peer, ready: Ready) -> HealthCheck {
    let under_way: Arc<Mutex<Option<Finding>>> = Arc::default();
    Arc::new(move || {
        let mut finding = lock(&under_way);
        if let Some(found) = finding.as_ref().filter(|found| found.peek().is_none()) {
            return found.clone().boxed();
        }
        let (orders, inventory, ready) = (orders.clone(), inventory.clone(), Arc::clone(&ready));
        let (env, under_way) = (Arc::clone(&env), Arc::clone(&under_way));
        let begun = async move {
            // A task, so that it comes to its end although who asked has left.
            let found = env.detached(find_out(Arc::clone(&env), orders, inventory, ready, under_way)).await;
            found.unwrap_or(HealthReport { ready: false, parts: Vec::new(), causes: BTreeMap::new() })
        };
        finding.insert(begun.boxed().shared()).clone().boxed()
    })
}

/// Of those that ask at the same time.
type Finding = future::Shared<BoxFuture<'static, HealthReport>>;

async fn find_out(
    env: Env,
    orders: Peer,
    inventory: Peer,
    ready: Ready,
    under_way: Arc<Mutex<Option<Finding>>>,
) -> HealthReport {
    let call = Call::new(&*env, Duration::from_millis(READY_CHECK_TIMEOUT_MS), env.uuid().into());
    let (order, inventory) = futures::join!(
        serving(&orders, &call, "orders.v1.OrderService"),
        serving(&inventory, &call, "inventory.v1.InventoryService"),
    );
    // Who comes from now on asks anew.
    *lock(&under_way) = None;
    let parts = vec![("order".to_owned(), order), ("inventory".to_owned(), inventory)];
    let serving = ready();
    HealthReport { ready: serving && order, parts, causes: not_serving(serving).into_iter().collect() }
}

fn lock(under_way: &Mutex<Option<Finding>>) -> MutexGuard<'_, Option<Finding>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use service::{environment::RealEnvironment, rpc_client::RpcClientMetrics};

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_once_cost_no_more_than_one_and_the_next_is_told_anew() {
        let env: Env = Arc::new(RealEnvironment::new(tokio_util::task::TaskTracker::new()));
        let url = ["http://127.0.0.1:1".parse().expect("valid")];
        let nobody = Peer::new("nobody", &url, Arc::clone(&env), &RpcClientMetrics::default()).expect("valid");
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let ready: Ready = Arc::new(move || counted.fetch_add(1, Ordering::Relaxed) > 0);
        let health = health_check(env, nobody.clone(), nobody, ready);
        // One leaves before it is told.
        drop(health());
        let reports = join_all((0..100).map(|_| health())).await;
        assert!(reports.iter().all(|report| !report.ready && report.parts.len() == 2), "{reports:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        health().await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
