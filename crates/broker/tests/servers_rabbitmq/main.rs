//! RabbitMQ: the suite of the port, and what the suite leaves open.
//!
//! - `bench`: a server with a queue, and what the tests ask of it
//! - `working`: while the server works
//! - `outages`: while it is dead, stopped or full

mod bench;
mod outages;
mod working;

use std::sync::Arc;

use async_trait::async_trait;
use broker::{Broker, conformance::Fixture, rabbitmq::RabbitMqBroker};
use servers::RabbitMq;
use service::environment::{Env, RealEnvironment};
use tokio_util::task::TaskTracker;

broker::broker_conformance!(shared: VirtualHost::shared().await, own: VirtualHost::own().await);

/// Of a server.
struct VirtualHost {
    server: RabbitMq,
    url: String,
    env: Env,
}

impl VirtualHost {
    async fn shared() -> Self {
        Self::with(RabbitMq::shared().await).await
    }

    /// Of a server that may be killed.
    async fn own() -> Self {
        let server = Self::with(RabbitMq::start().await).await;
        server.set_up().await;
        server
    }

    async fn with(server: RabbitMq) -> Self {
        let url = server.vhost().await;
        Self { server, url, env: Arc::new(RealEnvironment::new(TaskTracker::new())) }
    }

    /// It tries soon again to move a dead letter that found no room; unless it is told it waits three minutes.
    async fn set_up(&self) {
        let told = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 200).";
        assert_eq!(self.server.ctl(&["eval", told]).await, "ok");
    }
}

#[async_trait]
impl Fixture for VirtualHost {
    fn env(&self) -> Env {
        self.env.clone()
    }

    async fn broker(&self) -> Arc<dyn Broker> {
        RabbitMqBroker::new(&self.url.parse().expect("a URL"), self.env.clone())
    }

    async fn restart(&self) {
        self.server.kill().await;
        self.server.start_again().await;
        self.set_up().await;
    }
}
