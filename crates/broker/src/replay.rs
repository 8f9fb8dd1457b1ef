//! Publishes dead letters again, once what killed them is mended.

use std::{slice, time::Duration};

use service::environment::Env;

use crate::{Broker, BrokerError, Delivery, Message, PublishOutcome, QueueSpec, Settlement, check_batch};

/// Most dead letters in hand at once.
pub const REPLAY_BATCH_MAX: u16 = 100;
/// How long to wait for a dead letter that was counted, in milliseconds: somebody else may have it.
pub const REPLAY_WAIT_MS: u64 = 2_000;

/// What became of the dead letters that were there when the replay began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Published to their queue again, and no dead letters any more.
    pub moved: u64,
    /// Dead letters still: past `max`, not taken by their queue, in somebody else's hands, or larger than a message may
    /// be.
    pub left: u64,
}

/// Publishes up to `max` dead letters to their queue again, oldest first. Each is acknowledged when the broker has
/// confirmed it, so that one that dies in between is there twice and never lost. What becomes a dead letter meanwhile,
/// again or for the first time, is not taken. A queue that takes no more ends the replay.
pub async fn replay(env: &Env, broker: &dyn Broker, queue: &QueueSpec, max: u64) -> Result<Replayed, BrokerError> {
    broker.declare(queue).await?;
    let dead = queue.dead_letter_queue();
    let there = broker.depth(&dead).await?;
    let mut to_take = there.min(max);
    let mut replayed = Replayed { moved: 0, left: there };
    let prefetch = u16::try_from(to_take).unwrap_or(u16::MAX).min(REPLAY_BATCH_MAX);
    if prefetch == 0 {
        return Ok(replayed);
    }
    let mut consumer = broker.consume(&dead, prefetch).await?;
    let mut room = usize::from(prefetch);
    while to_take > 0 && room > 0 {
        let most = room.min(usize::try_from(to_take).unwrap_or(room));
        let next = env.timeout(Duration::from_millis(REPLAY_WAIT_MS), consumer.next(most)).await;
        let Ok(next) = next else { break };
        let taken = next?;
        to_take -= taken.len() as u64;
        // Those that cannot be published stay in hand, and go back when the consumer goes.
        let (good, bad): (Vec<Delivery>, Vec<Delivery>) =
            taken.into_iter().partition(|delivery| check_batch(slice::from_ref(&delivery.message)).is_ok());
        room -= bad.len();
        let messages: Vec<Message> = good
            .iter()
            .map(|delivery| Message { routing_key: queue.name.clone(), ..delivery.message.clone() })
            .collect();
        let outcomes = broker.publish(&messages).await?;
        let confirmed: Vec<_> = good
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == PublishOutcome::Confirmed)
            .map(|(delivery, _)| (delivery.tag, Settlement::Acknowledge))
            .collect();
        consumer.settle(&confirmed).await?;
        replayed.moved += confirmed.len() as u64;
        replayed.left = replayed.left.saturating_sub(confirmed.len() as u64);
        if confirmed.len() < good.len() {
            break;
        }
    }
    Ok(replayed)
}
