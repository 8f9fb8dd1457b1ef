//! One reader of a queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use async_trait::async_trait;
use broker::{BrokerError, Consumer, Delivery, Settlement};

use super::{Connection, Server, State, error, queue::Settled};
use crate::redis::wire::Pause;

/// Reads a queue. Dropped, it gives back what was not settled.
pub(super) struct SimConsumer {
    server: Arc<Server>,
    pause: Pause,
    connection: Connection,
    /// The queue's name, and which queue of the name it is.
    queue: (String, u64),
    prefetch: usize,
    tags: u64,
    /// Places in the queue, by tag.
    unsettled: BTreeMap<u64, u64>,
}

impl SimConsumer {
    pub(super) fn new(
        server: Arc<Server>,
        pause: Pause,
        connection: Connection,
        queue: (String, u64),
        prefetch: u16,
    ) -> Self {
        Self { server, pause, connection, queue, prefetch: prefetch.into(), tags: 0, unsettled: BTreeMap::new() }
    }

    /// Whether it is connected still, to the queue that it was made for.
    fn alive(&self, state: &mut State) -> Result<(), BrokerError> {
        state.connected(self.connection)?;
        let (name, number) = &self.queue;
        if state.queue(name)?.number == *number { Ok(()) } else { Err(error("its queue was deleted")) }
    }
}

#[async_trait]
impl Consumer for SimConsumer {
    async fn next(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let max = max.min(self.prefetch - self.unsettled.len());
        if max == 0 {
            return Err(error("asked for the next message without room for one"));
        }
        (self.pause)("broker: next").await;
        let server = Arc::clone(&self.server);
        loop {
            // Listens before it looks: a message that comes in between rings.
            let mut rung = pin!(server.bell.notified());
            rung.as_mut().enable();
            let taken = {
                let state = &mut *server.state();
                self.alive(state)?;
                state.queue(&self.queue.0)?.take(self.connection.0, max)
            };
            if taken.is_empty() {
                rung.await;
                continue;
            }
            let deliveries = taken.into_iter().map(|(place, message, earlier_deliveries)| {
                self.tags += 1;
                self.unsettled.insert(self.tags, place);
                Delivery { tag: self.tags, message, earlier_deliveries }
            });
            return Ok(deliveries.collect());
        }
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        let mut named = BTreeSet::new();
        if let Some((tag, _)) =
            settlements.iter().find(|(tag, _)| !self.unsettled.contains_key(tag) || !named.insert(tag))
        {
            return Err(error(format!("delivery {tag} is not unsettled here, or is named twice")));
        }
        (self.pause)("broker: settle").await;
        let mut settled = Vec::with_capacity(settlements.len());
        for (tag, settlement) in settlements {
            let Some(place) = self.unsettled.remove(tag) else { continue };
            settled.push((
                place,
                match settlement {
                    Settlement::Acknowledge => Settled::Gone,
                    Settlement::Requeue => Settled::Back,
                    Settlement::DeadLetter => Settled::Dead,
                },
            ));
        }
        let result = self.server.step(|state| {
            self.alive(state)?;
            state.settle(&self.queue.0, settled);
            Ok(())
        });
        (self.pause)("broker: settled").await;
        result
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        let places = std::mem::take(&mut self.unsettled).into_values().map(|place| (place, Settled::Back));
        self.server.step(|state| {
            if self.alive(state).is_ok() {
                state.settle(&self.queue.0, places);
            }
        });
    }
}
