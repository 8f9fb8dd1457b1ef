//! A queue and its dead-letter queue, as the server is told. Both are quorum queues: replicated where the server is a
//! cluster, and on disk before a publish is confirmed.

use lapin::{
    ErrorKind,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{connection::Line, message::short};
use crate::{BrokerError, QueueSpec};

/// How often a dead letter may be delivered again. Newer servers have a limit unless they are told one, older ones know
/// no word for "none": so it is one that nobody reaches.
const DEAD_LETTER_REDELIVERIES_MAX: i64 = i32::MAX as i64;
/// The reply code that says that there is no such queue.
const NOT_FOUND: u16 = 404;

struct Declaration {
    name: ShortString,
    arguments: FieldTable,
}

impl Declaration {
    fn new(name: &str, length_max: u32, redeliveries_max: i64) -> Result<Self, BrokerError> {
        let mut declaration = Self { name: short(name)?, arguments: FieldTable::default() };
        declaration.set("x-queue-type", AMQPValue::LongString("quorum".into()));
        declaration.set("x-max-length", AMQPValue::LongLongInt(length_max.into()));
        declaration.set("x-overflow", AMQPValue::LongString("reject-publish".into()));
        declaration.set("x-delivery-limit", AMQPValue::LongLongInt(redeliveries_max));
        Ok(declaration)
    }

    /// A dead letter leaves its queue when its new queue has confirmed it.
    fn with_dead_letters(mut self, to: &str) -> Self {
        self.set("x-dead-letter-exchange", AMQPValue::LongString("".into()));
        self.set("x-dead-letter-routing-key", AMQPValue::LongString(to.into()));
        self.set("x-dead-letter-strategy", AMQPValue::LongString("at-least-once".into()));
        self
    }

    fn set(&mut self, name: &'static str, value: AMQPValue) {
        self.arguments.insert(name.into(), value);
    }

    /// On a channel of its own, for an error ends the channel.
    async fn declare(self, line: &Line) -> Result<(), BrokerError> {
        let channel = line.channel().await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(self.name, options, self.arguments).await.map_err(BrokerError::of)?;
        Ok(())
    }
}

/// Makes what is missing. What is there is compared first, so that an error leaves everything as it was.
pub(super) async fn declare(line: &Line, spec: &QueueSpec) -> Result<(), BrokerError> {
    let dead = spec.dead_letter_queue();
    let queue = Declaration::new(&spec.name, spec.length_max, spec.redeliveries_max.into())?.with_dead_letters(&dead);
    let dead = Declaration::new(&dead, spec.length_max, DEAD_LETTER_REDELIVERIES_MAX)?;
    let mut missing = Vec::new();
    // The dead-letter queue is made first: no queue is ever without.
    for declaration in [dead, queue] {
        if look(line, declaration.name.clone()).await?.is_some() {
            declaration.declare(line).await?;
        } else {
            missing.push(declaration);
        }
    }
    for declaration in missing {
        declaration.declare(line).await?;
    }
    Ok(())
}

/// Messages that wait to be delivered. AMQP does not tell how many are in consumers' hands.
pub(super) async fn ready(line: &Line, name: ShortString) -> Result<u64, BrokerError> {
    let text = name.to_string();
    look(line, name).await?.map(u64::from).ok_or_else(|| BrokerError::text(format!("no queue {text:?}")))
}

/// The messages that wait in a queue, if it is there.
async fn look(line: &Line, name: ShortString) -> Result<Option<u32>, BrokerError> {
    let channel = line.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(name, options, FieldTable::default()).await {
        Ok(queue) => Ok(Some(queue.message_count())),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(BrokerError::of(error)),
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == NOT_FOUND)
}
