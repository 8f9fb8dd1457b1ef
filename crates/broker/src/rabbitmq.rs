//! Events on a RabbitMQ server, 3.10 or newer.
//!
//! - this module: [`RabbitMqBroker`], and its connection for everything but publishing
//! - `connection`: one connection, how it is opened, how often, and how it is thrown away
//! - `publisher`: confirms and returns
//! - `consumer`: one reader
//! - `topology`: a queue and its dead-letter queue, as the server is told
//! - `message`: messages as AMQP has them
//!
//! The server need not run: while it is down every call is an error, soon, and the first call after it is back works.
//! Nothing recovers behind the caller's back: a connection that failed is thrown away with its channels, and the next call
//! opens another. Whoever publishes has a connection of its own, because a server short of memory or disk stops reading
//! from connections that publish, and acknowledgements must not wait for that.

mod connection;
mod consumer;
mod message;
mod publisher;
mod topology;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lapin::{
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
    uri::AMQPUri,
};
use service::environment::Env;
use tokio::sync::Mutex;

use self::{
    connection::{Connector, Line},
    consumer::RabbitMqConsumer,
    message::short,
    publisher::Publisher,
};
use crate::{Broker, BrokerError, Consumer, Message, PublishOutcome, QueueSpec, check_batch, check_queue};

/// How long a connection may take to open, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 2_000;
/// How long any call but [`Consumer::next`] may take, opening a connection included, in milliseconds. Past it the
/// connection is thrown away. Callers that wait a little longer hear why.
pub const OPERATION_TIMEOUT_MS: u64 = 4_000;
/// Seconds between two heartbeats, unless the URL names other. The peer is given up when two are missing, so a consumer
/// that waits learns within three times as long that the server vanished.
pub const HEARTBEAT_SECONDS: u16 = 3;
/// First pause after an attempt to connect failed, in milliseconds; it doubles. Calls in it fail at once.
pub const RECONNECT_BACKOFF_MIN_MS: u64 = 100;
/// Longest pause between attempts to connect, in milliseconds.
pub const RECONNECT_BACKOFF_MAX_MS: u64 = 1_000;

/// This is no URL of a RabbitMQ server. The text shows nothing of it, for it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected amqp://user:password@host:port/vhost or amqps://..., with the virtual host percent-encoded and the host a \
     name or an IPv4 address"
)]
pub struct BadUrl;

/// Where a RabbitMQ server is, and how to sign in: `amqp://user:password@host:port/vhost`, or `amqps` for TLS.
#[derive(Clone)]
pub struct RabbitMqUrl(AMQPUri);

/// A RabbitMQ server. See the module.
pub struct RabbitMqBroker {
    env: Env,
    publisher: Publisher,
    connector: Connector,
    /// What declares, counts and consumes; each with a channel of its own.
    line: Mutex<Option<Arc<Line>>>,
}

impl RabbitMqBroker {
    /// The server at this URL; nothing is asked of it yet. For `amqps` the process has installed a default provider of
    /// cryptography for rustls.
    pub fn new(url: &RabbitMqUrl, env: Env) -> Arc<Self> {
        let publisher = Publisher::new(Connector::new(url, env.clone(), "publishing"), env.clone());
        let connector = Connector::new(url, env.clone(), "consuming");
        Arc::new(Self { env, publisher, connector, line: Mutex::default() })
    }

    async fn line(&self) -> Result<Arc<Line>, BrokerError> {
        let mut slot = self.line.lock().await;
        match slot.take().filter(|line| line.works()) {
            Some(line) => Ok(Arc::clone(slot.insert(line))),
            None => Ok(Arc::clone(slot.insert(Arc::new(self.connector.connect().await?)))),
        }
    }

    /// Does `work` on the connection, in time. A server that does not answer has its connection thrown away.
    async fn on_line<T, F>(&self, work: impl FnOnce(Arc<Line>) -> F + Send) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, BrokerError>> + Send,
    {
        let mut used = None;
        let work = async {
            let line = self.line().await?;
            used = Some(Arc::clone(&line));
            work(line).await
        };
        match self.env.timeout(Duration::from_millis(OPERATION_TIMEOUT_MS), work).await {
            Ok(result) => result,
            Err(_) => Err(gave_up(used.as_deref())),
        }
    }
}

/// The connection is not used again, and its other users learn that it is dead.
fn gave_up(line: Option<&Line>) -> BrokerError {
    if let Some(line) = line {
        line.sever();
    }
    BrokerError::text(format!("no answer within {OPERATION_TIMEOUT_MS} ms"))
}

#[async_trait]
impl Broker for RabbitMqBroker {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        check_queue(queue)?;
        self.on_line(async |line: Arc<Line>| topology::declare(&line, queue).await).await
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        check_batch(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        self.publisher.publish(messages).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        if prefetch == 0 {
            return Err(BrokerError::text("a consumer with prefetch 0 would get messages without end"));
        }
        let name = short(queue)?;
        let open = async |line: Arc<Line>| {
            let channel = line.channel().await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(BrokerError::of)?;
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let tag = short("")?;
            let deliveries = channel.basic_consume(name, tag, options, arguments).await.map_err(BrokerError::of)?;
            Ok(RabbitMqConsumer::new(self.env.clone(), line, channel, deliveries, queue, prefetch))
        };
        Ok(Box::new(self.on_line(open).await?))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        let name = short(queue)?;
        self.on_line(async |line: Arc<Line>| topology::ready(&line, name).await).await
    }
}
