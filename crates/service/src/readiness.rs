//! Keeps what health says, over gRPC and HTTP, in step with the stores that a service stands on. It falls before the drain.

use std::{fmt::Display, sync::Arc, time::Duration};

use futures::future::{BoxFuture, join_all};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{HealthCheck, HealthReport},
    environment::Env,
    lifecycle::Lifecycle,
    rpc::Health,
};

/// Time between checks, in milliseconds.
pub const CHECK_INTERVAL_MS: u64 = 1_000;
/// A store that takes longer to answer is counted as down, in milliseconds.
pub const CHECK_TIMEOUT_MS: u64 = 1_000;

/// A store, and how to ask whether it can answer.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    ask: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl Check {
    /// `ask` says why the store cannot answer.
    pub fn new<S, F, E>(name: &'static str, store: &Arc<S>, ask: impl Fn(Arc<S>) -> F + Send + Sync + 'static) -> Self
    where
        S: ?Sized + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let store = Arc::clone(store);
        let ask = move || -> BoxFuture<'static, Result<(), String>> {
            let asked = ask(Arc::clone(&store));
            Box::pin(async move { asked.await.map_err(|why| why.to_string()) })
        };
        Self { name, ask: Arc::new(ask) }
    }

    async fn answer(&self, env: &Env) -> Result<(), String> {
        let limit = Duration::from_millis(CHECK_TIMEOUT_MS);
        env.timeout(limit, (self.ask)()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

/// Says for each of `services` whether it serves, as `check` tells, until `leaving`; then none of them serves. Logs when
/// the store stops to answer, with the reason, and when it answers again.
pub async fn keep(env: Env, health: Health, services: &[&'static str], check: Check, leaving: CancellationToken) {
    let say = |serving| {
        for service in services {
            health.say(service, serving);
        }
    };
    let follow = async {
        let mut trouble: Option<String> = None;
        loop {
            let answer = check.answer(&env).await.err();
            say(answer.is_none());
            match &answer {
                Some(why) if trouble.as_ref() != Some(why) => {
                    tracing::error!(store = check.name, why, "cannot be used");
                }
                None if trouble.is_some() => tracing::info!(store = check.name, "can be used again"),
                _ => {}
            }
            trouble = answer;
            env.sleep(Duration::from_millis(CHECK_INTERVAL_MS)).await;
        }
    };
    tokio::select! {
        biased;
        () = leaving.cancelled() => say(false),
        never = follow => never,
    }
}

/// What a health report says of a process that does not serve, beside its parts.
pub const NOT_SERVING: (&str, &str) = ("process", "it has not begun to serve, or is about to end");

/// For `/readyz`: ready while the process serves and the first store answers. The others are told, and recover by
/// themselves.
pub fn report(lifecycle: &Lifecycle, checks: Vec<Check>) -> HealthCheck {
    let (env, lifecycle, checks) = (lifecycle.env(), lifecycle.clone(), Arc::new(checks));
    Arc::new(move || {
        let (env, checks, serving) = (env.clone(), checks.clone(), lifecycle.is_ready());
        Box::pin(async move {
            let ask = |check: &Check| {
                let (check, env) = (check.clone(), env.clone());
                async move { (check.name.to_owned(), check.answer(&env).await) }
            };
            let answers = join_all(checks.iter().map(ask)).await;
            let ready = serving && answers.first().is_none_or(|(_, answer)| answer.is_ok());
            let parts = answers.iter().map(|(name, answer)| (name.clone(), answer.is_ok())).collect();
            let failing = answers.into_iter().filter_map(|(name, answer)| Some((name, answer.err()?)));
            let causes = failing.chain(not_serving(serving)).collect();
            HealthReport { ready, parts, causes }
        })
    })
}

/// The cause to tell, unless the process is serving.
pub fn not_serving(serving: bool) -> Option<(String, String)> {
    (!serving).then(|| (NOT_SERVING.0.to_owned(), NOT_SERVING.1.to_owned()))
}
