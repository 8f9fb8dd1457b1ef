//! Publishing: confirms and returns.
//!
//! A message that no queue takes is returned *and* confirmed; the return comes first. lapin hands a return out with the
//! confirm that it happens to see next, which may be another message's. So nothing is judged before every confirm of the
//! batch is there: by then every return is, too, and says whose it is.

use std::{collections::HashSet, time::Duration};

use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use service::environment::Env;
use tokio::sync::Mutex;

use super::{
    OPERATION_TIMEOUT_MS,
    connection::{Connector, Line},
    message::{in_order, properties, short},
};
use crate::{BrokerError, Message, PublishOutcome};

/// Publishes one batch at a time, over a connection of its own.
pub(super) struct Publisher {
    connector: Connector,
    env: Env,
    outlet: Mutex<Option<Outlet>>,
}

struct Outlet {
    channel: Channel,
    line: Line,
    /// Whether all that was published here was judged. What was not may still be confirmed, at any time.
    judged: bool,
}

/// What the broker said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ack,
    Nack,
}

impl Publisher {
    pub(super) fn new(connector: Connector, env: Env) -> Self {
        Self { connector, env, outlet: Mutex::default() }
    }

    /// Publishes a batch that keeps its bounds, in time. A channel on which that failed is never used again.
    pub(super) async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        let prepared = messages.iter().map(prepared).collect::<Result<Vec<_>, _>>()?;
        let work = async {
            let mut slot = self.outlet.lock().await;
            // It stays open, and what it could not publish stays with it: whoever came with a new connection instead would
            // have every one of its tries published once the alarm is over.
            if slot.as_ref().is_some_and(|outlet| outlet.line.is_blocked()) {
                return Err(blocked());
            }
            let outlet = match slot.take().filter(Outlet::works) {
                Some(outlet) => outlet,
                None => self.open().await?,
            };
            let outlet = slot.insert(outlet);
            outlet.judged = false;
            let (verdicts, returned) = outlet.publish(messages, prepared).await.map_err(BrokerError::of)?;
            outlet.judged = true;
            Ok(judge(messages, &verdicts, &returned))
        };
        match self.env.timeout(Duration::from_millis(OPERATION_TIMEOUT_MS), work).await {
            Ok(result) => result,
            Err(_) => Err(self.gave_up()),
        }
    }

    /// Throws away what did not answer, but not what is blocked.
    fn gave_up(&self) -> BrokerError {
        let Ok(mut slot) = self.outlet.try_lock() else {
            return BrokerError::text(format!("no turn within {OPERATION_TIMEOUT_MS} ms"));
        };
        if slot.as_ref().is_some_and(|outlet| outlet.line.is_blocked()) {
            return blocked();
        }
        *slot = slot.take().filter(Outlet::works);
        BrokerError::text(format!("no confirms within {OPERATION_TIMEOUT_MS} ms"))
    }

    async fn open(&self) -> Result<Outlet, BrokerError> {
        let line = self.connector.connect().await?;
        let channel = line.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(BrokerError::of)?;
        Ok(Outlet { channel, line, judged: true })
    }
}

impl Outlet {
    fn works(&self) -> bool {
        self.judged && self.line.works() && self.channel.status().connected()
    }

    /// The verdict on each message, and those that were returned, by id and routing key.
    async fn publish(
        &self,
        messages: &[Message],
        prepared: Vec<(ShortString, BasicProperties)>,
    ) -> lapin::Result<(Vec<Verdict>, HashSet<(String, String)>)> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sends = messages.iter().zip(prepared).map(|(message, (routing_key, properties))| {
            self.channel.basic_publish("".into(), routing_key, options, &message.body, properties)
        });
        let (mut verdicts, mut returned) = (Vec::with_capacity(messages.len()), HashSet::new());
        for confirm in in_order(sends).await? {
            let (verdict, message) = match confirm.await? {
                Confirmation::Ack(message) => (Verdict::Ack, message),
                Confirmation::Nack(message) => (Verdict::Nack, message),
                Confirmation::NotRequested => return Err(std::io::Error::other("the channel confirms nothing").into()),
            };
            verdicts.push(verdict);
            if let Some(message) = message {
                let id = message.properties.message_id().as_ref().map(ToString::to_string);
                returned.insert((id.unwrap_or_default(), message.routing_key.to_string()));
            }
        }
        Ok((verdicts, returned))
    }
}

fn prepared(message: &Message) -> Result<(ShortString, BasicProperties), BrokerError> {
    Ok((short(message.routing_key.as_str())?, properties(message)?))
}

fn blocked() -> BrokerError {
    BrokerError::text("the server takes no messages: it is short of memory or disk")
}

/// Of messages with one id and routing key a return means any: all of them count as returned.
fn judge(messages: &[Message], verdicts: &[Verdict], returned: &HashSet<(String, String)>) -> Vec<PublishOutcome> {
    assert_eq!(messages.len(), verdicts.len(), "one verdict for each message");
    let judged = messages.iter().zip(verdicts).map(|(message, verdict)| {
        if returned.contains(&(message.id.clone(), message.routing_key.clone())) {
            return PublishOutcome::Returned;
        }
        match verdict {
            Verdict::Ack => PublishOutcome::Confirmed,
            Verdict::Nack => PublishOutcome::Refused,
        }
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_counts_for_its_id_and_key_whichever_confirm_brought_it() {
        let message = |id: &str, key: &str| Message {
            id: id.to_owned(),
            routing_key: key.to_owned(),
            body: Vec::new(),
            headers: [].into(),
        };
        let messages =
            [message("1", "q"), message("1", "gone"), message("2", "q"), message("2", "q"), message("3", "q")];
        let verdicts = [Verdict::Ack, Verdict::Ack, Verdict::Ack, Verdict::Nack, Verdict::Nack];
        let returned = |pairs: &[(&str, &str)]| pairs.iter().map(|(id, key)| ((*id).into(), (*key).into())).collect();
        let judged = |pairs| judge(&messages, &verdicts, &returned(pairs));
        let [c, r, f] = [PublishOutcome::Confirmed, PublishOutcome::Returned, PublishOutcome::Refused];
        assert_eq!(judged(&[]), [c, c, c, f, f]);
        assert_eq!(judged(&[("1", "gone")]), [c, r, c, f, f]);
        assert_eq!(judged(&[("2", "q"), ("1", "gone")]), [c, r, r, r, f]);
        assert_eq!(judged(&[("3", "q")]), [c, c, c, f, r]);
    }
}
