//! `grpc.health.v1`: whether each service serves. Written by hand because tonic's only changes in async code, while an
//! entry has to exist from the moment its service is added.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, future::Either, stream, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server};

/// What each service says of itself; `""` is the whole server.
#[derive(Debug, Clone)]
pub struct Health {
    entries: Arc<RwLock<BTreeMap<&'static str, watch::Sender<ServingStatus>>>>,
}

impl Default for Health {
    fn default() -> Self {
        let overall = watch::Sender::new(ServingStatus::NotServing);
        Self { entries: Arc::new(RwLock::new(BTreeMap::from([("", overall)]))) }
    }
}

impl Health {
    /// As [`Health::say`], for async code.
    pub fn set(&self, service: &'static str, serving: bool) -> Ready<()> {
        self.say(service, serving);
        ready(())
    }

    /// Says whether a service serves, by its full name; `""` is the whole server.
    pub fn say(&self, service: &'static str, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.entry(service).or_insert_with(|| watch::Sender::new(status)).send_replace(status);
    }

    fn subscribe(&self, service: &str) -> Option<watch::Receiver<ServingStatus>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(service).map(watch::Sender::subscribe)
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let entry = self.subscribe(&request.get_ref().service);
        let entry = entry.ok_or_else(|| Status::not_found("no such service"))?;
        let status = *entry.borrow();
        Ok(Response::new(response(status)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// An unknown service is no error here: it might come. Ours never come late, so the stream only stays open.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let statuses = match self.subscribe(&request.get_ref().service) {
            None => Either::Left(stream::once(ready(ServingStatus::ServiceUnknown)).chain(stream::pending())),
            Some(mut entry) => {
                entry.mark_changed();
                Either::Right(stream::unfold(entry, |mut entry| async move {
                    entry.changed().await.ok()?;
                    let status = *entry.borrow_and_update();
                    Some((status, entry))
                }))
            }
        };
        Ok(Response::new(statuses.map(|status| Ok(response(status))).boxed()))
    }
}
