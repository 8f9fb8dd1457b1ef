//! Events between services: the port that the outbox relay publishes through and the consumer reads from, and what
//! implements it.
//!
//! - this module: the port
//! - [`in_process`]: a durable queue in a SQLite file, for the all-in-one process
//! - [`rabbitmq`]: a RabbitMQ server
//! - [`queues`]: the system's queues
//! - [`replay`](mod@replay): publishes dead letters again
//! - [`conformance`]: the suite that every implementation passes

pub mod conformance;
pub mod in_process;
pub mod queues;
pub mod rabbitmq;
pub mod replay;
pub mod settings;

use std::collections::BTreeMap;

use async_trait::async_trait;

/// Most bytes of a message's body.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a message's headers, names and values together.
pub const HEADERS_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of a message's id, of its routing key, and of a header's name.
pub const ID_BYTES_MAX: usize = 255;
/// Most bytes of a queue's name, so that its dead-letter queue's name is no longer than a routing key may be.
pub const QUEUE_NAME_BYTES_MAX: usize = 250;
/// How the names of dead-letter queues end, and no other's.
pub const DEAD_LETTER_SUFFIX: &str = ".dead";
/// Most messages of one [`Broker::publish`].
pub const PUBLISH_BATCH_MAX: usize = 500;

/// A message to publish. Always persistent and mandatory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Names the message; for events the order's id. At most [`ID_BYTES_MAX`].
    pub id: String,
    /// The queue it is for. A dead letter bears its dead-letter queue's name.
    pub routing_key: String,
    /// At most [`BODY_BYTES_MAX`].
    pub body: Vec<u8>,
    /// `traceparent` and the like, at most [`HEADERS_BYTES_MAX`].
    pub headers: BTreeMap<String, String>,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker has it, and keeps it over a crash.
    Confirmed,
    /// No queue takes this routing key.
    Returned,
    /// The queue is full, or the broker could not store it. Publish it again later.
    Refused,
}

/// A message handed to a consumer. It stays the broker's until it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What [`Consumer::settle`] takes.
    pub tag: u64,
    /// The message.
    pub message: Message,
    /// How often it was delivered and not settled before; 0 the first time.
    pub earlier_deliveries: u32,
}

/// What to do with a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is handled: forget it.
    Acknowledge,
    /// Deliver it again, to whomever; past the queue's delivery limit it is dead-lettered.
    Requeue,
    /// It can never be handled: to the dead letters. A dead-letter queue has none of its own: there it is a requeue.
    DeadLetter,
}

/// The broker does not answer, the connection was lost, or it was asked what it cannot do; the text says which. Unless
/// a method says otherwise, what was under way may or may not have happened.
#[derive(Debug, thiserror::Error)]
#[error("broker: {0}")]
pub struct BrokerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl BrokerError {
    fn of(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }

    fn text(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }
}

/// Whether a batch keeps the bounds of this module. Every implementation asks it before it publishes anything.
pub fn check_batch(messages: &[Message]) -> Result<(), BrokerError> {
    if messages.len() > PUBLISH_BATCH_MAX {
        return Err(BrokerError::text(format!(
            "{} messages in a batch, more than {PUBLISH_BATCH_MAX}",
            messages.len()
        )));
    }
    for message in messages {
        let headers = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let header_name = message.headers.keys().map(String::len).max().unwrap_or(0);
        for (what, bytes, bytes_max) in [
            ("body", message.body.len(), BODY_BYTES_MAX),
            ("headers", headers, HEADERS_BYTES_MAX),
            ("id", message.id.len(), ID_BYTES_MAX),
            ("routing key", message.routing_key.len(), ID_BYTES_MAX),
            ("header's name", header_name, ID_BYTES_MAX),
        ] {
            if bytes > bytes_max {
                return Err(BrokerError::text(format!("a message's {what} has {bytes} bytes, more than {bytes_max}")));
            }
        }
    }
    Ok(())
}

/// Whether a queue may have this name. Every implementation asks it before it declares anything.
pub fn check_queue(queue: &QueueSpec) -> Result<(), BrokerError> {
    let name = &queue.name;
    if name.is_empty() || name.len() > QUEUE_NAME_BYTES_MAX {
        return Err(BrokerError::text(format!("a queue's name has 1 to {QUEUE_NAME_BYTES_MAX} bytes")));
    }
    if name.ends_with(DEAD_LETTER_SUFFIX) {
        return Err(BrokerError::text(format!(
            "{name:?} is a dead-letter queue's name: declare the queue it belongs to"
        )));
    }
    Ok(())
}

/// How a queue is declared. Declaring again with the same values changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name, which is also its routing key. Its dead letters go to `<name>.dead`.
    pub name: String,
    /// Most messages that wait in it; publishing past it is [`PublishOutcome::Refused`]. Those in consumers' hands may
    /// count, too, or come on top. Its dead-letter queue has the same bound, and a dead letter that finds no room there
    /// waits in its queue.
    pub length_max: u32,
    /// How often a message may be delivered again before it is dead-lettered.
    pub redeliveries_max: u32,
}

impl QueueSpec {
    /// Where the dead letters go.
    pub fn dead_letter_queue(&self) -> String {
        format!("{}{DEAD_LETTER_SUFFIX}", self.name)
    }
}

/// A message broker.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Makes a queue and its dead-letter queue, if they are missing. If one is there with other values, that is an
    /// error and nothing changes.
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError>;

    /// Publishes up to [`PUBLISH_BATCH_MAX`] messages and waits until each is judged; one outcome for each, in order.
    /// A batch or a message past its bounds is an error, and nothing of the batch is published.
    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError>;

    /// Reads a declared queue (or a dead-letter queue), with at most `prefetch` (at least 1) unsettled deliveries at a
    /// time. Consumers of one queue share its messages. A consumer that is dropped gives its unsettled deliveries back,
    /// each counted as delivered once more; so may those that were fetched ahead for it. An unknown queue is an error.
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Messages in a queue: all that wait to be delivered, and those in consumers' hands if the broker can tell.
    async fn depth(&self, queue: &str) -> Result<u64, BrokerError>;
}

/// One reader of a queue. It may work on several deliveries at once: read some, handle them, settle them together.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for at least one message, then returns those that are ready, oldest first, at most `max` and never more
    /// than `prefetch` unsettled ones in all. With `prefetch` unsettled already (or `max` 0) it is an error, for it
    /// would wait forever. Dropping the future loses nothing.
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Settles deliveries of this consumer, each named by its tag, in one step. An unknown tag, or the same one twice,
    /// is an error and settles none. After any other error their tags are spent, and they may be delivered again.
    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError>;
}
