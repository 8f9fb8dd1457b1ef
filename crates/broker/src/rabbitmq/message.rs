//! Messages as AMQP has them. Headers whose names begin with `x-` are the server's: its account of a dead letter's way,
//! and how often a message was delivered. They are not handed out, so that a dead letter that is published again is the
//! message that it once was.

use std::collections::BTreeMap;

use futures::{future::maybe_done, poll};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{BrokerError, Message};

/// What the server calls a message that it keeps over a crash.
const PERSISTENT: u8 = 2;
/// Where the server writes how often it delivered a message before.
const DELIVERY_COUNT: &str = "x-delivery-count";
const SERVERS_HEADERS: &str = "x-";

/// AMQP's name of something; at most 255 bytes.
pub(super) fn short(text: impl Into<String>) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(BrokerError::of)
}

pub(super) fn properties(message: &Message) -> Result<BasicProperties, BrokerError> {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(short(name.as_str())?, AMQPValue::LongString(value.as_str().into()));
    }
    let id = short(message.id.as_str())?;
    Ok(BasicProperties::default().with_delivery_mode(PERSISTENT).with_message_id(id).with_headers(headers))
}

/// What was delivered from a queue. Anybody may have published it: what is missing is empty.
pub(super) fn message(queue: &str, properties: &BasicProperties, body: Vec<u8>) -> Message {
    let table = properties.headers().as_ref().map(FieldTable::inner);
    let headers: BTreeMap<String, String> = table
        .into_iter()
        .flatten()
        .filter(|(name, _)| !name.as_str().starts_with(SERVERS_HEADERS))
        .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
        .collect();
    let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    Message { id, routing_key: queue.to_owned(), body, headers }
}

fn text(value: &AMQPValue) -> Option<String> {
    let text = value.as_long_string()?;
    std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned)
}

/// How often the server delivered the message before.
pub(super) fn earlier_deliveries(properties: &BasicProperties) -> u32 {
    let count =
        properties.headers().as_ref().and_then(|headers| headers.inner().get(DELIVERY_COUNT)?.as_long_long_int());
    count.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// Sends each after the one before it, and then waits for all: lapin numbers and queues a frame when its future is first
/// polled. Whoever stops waiting stops none of them.
pub(super) async fn in_order<T>(
    sends: impl Iterator<Item = impl Future<Output = lapin::Result<T>>>,
) -> lapin::Result<Vec<T>> {
    let mut under_way: Vec<_> = sends.map(|send| Box::pin(maybe_done(send))).collect();
    for send in &mut under_way {
        let _ = poll!(send.as_mut());
    }
    let mut sent = Vec::with_capacity(under_way.len());
    for mut send in under_way {
        send.as_mut().await;
        sent.push(send.as_mut().take_output().expect("it was waited for, and is taken once")?);
    }
    Ok(sent)
}
