//! A message broker in memory, shared by all processes of a simulation, and what can befall it.
//!
//! - this module: [`Server`], its queues and its faults, and [`SimBroker`], a process' connection to it
//! - [`queue`]: one queue: what waits, what is in consumers' hands, what has no room as a dead letter
//! - [`consumer`]: one reader
//!
//! What the server has stored it keeps over everything but [`Server::delete_queue`]. A connection that breaks gives back
//! what its consumers had in hand.

pub mod consumer;
pub mod queue;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Message, PublishOutcome, QueueSpec, check_batch, check_queue};
use tokio::sync::Notify;

use self::{
    consumer::SimConsumer,
    queue::{Queue, Settled},
};
use crate::redis::wire::Pause;

/// What becomes of a message on its way to the server.
pub type Hook = Arc<dyn Fn(&Message) -> Publishing + Send + Sync>;

/// What becomes of a message on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// It is stored, and that is confirmed.
    Pass,
    /// The connection breaks before it is stored.
    LoseBefore,
    /// The connection breaks after it was stored: its confirm is lost.
    LoseConfirm,
    /// It is stored twice.
    Twice,
    /// The server cannot store it.
    Refuse,
}

/// The broker.
#[derive(Default)]
pub struct Server {
    state: Mutex<State>,
    /// Rung at whatever a waiting consumer may want to know.
    bell: Notify,
}

#[derive(Default)]
struct State {
    down: bool,
    queues: BTreeMap<String, Queue>,
    /// Connections, and queues with their contents, are told apart by numbers.
    numbers: u64,
    /// Which life of its connection each process is in.
    connections: BTreeMap<u64, u64>,
}

impl Server {
    /// Without queues.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// It goes down: every connection breaks.
    pub fn down(&self) {
        let mut state = self.state();
        state.down = true;
        state.connections.values_mut().for_each(|life| *life += 1);
        for name in state.queues.keys().cloned().collect::<Vec<_>>() {
            state.give_back(&name, |_| true);
        }
        drop(state);
        self.bell.notify_waiters();
    }

    /// It is there again, with all that it had stored.
    pub fn up(&self) {
        self.state().down = false;
    }

    /// Deletes a queue, with what is in it and in its consumers' hands. Its dead letters stay.
    pub fn delete_queue(&self, name: &str) {
        self.state().queues.remove(name);
        self.bell.notify_waiters();
    }

    /// Messages in a queue, in hand or not; `None` without the queue.
    pub fn messages(&self, name: &str) -> Option<Vec<Message>> {
        self.state().queues.get(name).map(Queue::messages)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a step in one go, and wakes whoever it may concern.
    fn step<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let done = step(&mut self.state());
        self.bell.notify_waiters();
        done
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn queue(&mut self, name: &str) -> Result<&mut Queue, BrokerError> {
        if self.down {
            return Err(error("it is down"));
        }
        self.queues.get_mut(name).ok_or_else(|| error(format!("no queue {name:?}")))
    }

    /// Whose connection it is, in which life.
    fn connected(&self, (process, life): Connection) -> Result<(), BrokerError> {
        match self.connections.get(&process) {
            Some(present) if *present == life && !self.down => Ok(()),
            _ => Err(error("the connection was lost")),
        }
    }

    fn declare(&mut self, spec: &QueueSpec) -> Result<(), BrokerError> {
        if self.down {
            return Err(error("it is down"));
        }
        let dead = QueueSpec { name: spec.dead_letter_queue(), redeliveries_max: u32::MAX, ..spec.clone() };
        let there = |spec: &QueueSpec| self.queues.get(&spec.name);
        for spec in [&dead, spec] {
            if there(spec).is_some_and(|queue| queue.spec != *spec) {
                return Err(error(format!("queue {:?} was declared with other values", spec.name)));
            }
        }
        for (spec, dead_letters) in [(&dead, None), (spec, Some(dead.name.clone()))] {
            if !self.queues.contains_key(&spec.name) {
                let number = self.number();
                self.queues.insert(spec.name.clone(), Queue::new(number, spec.clone(), dead_letters));
            }
        }
        Ok(())
    }

    fn publish(&mut self, message: &Message, copies: usize) -> PublishOutcome {
        let Some(queue) = self.queues.get_mut(&message.routing_key) else { return PublishOutcome::Returned };
        for _ in 0..copies {
            if !queue.push(message.clone()) {
                return PublishOutcome::Refused;
            }
        }
        PublishOutcome::Confirmed
    }

    /// Settles what a queue had handed out; its dead letters move as far as there is room.
    fn settle(&mut self, name: &str, settled: impl IntoIterator<Item = (u64, Settled)>) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        settled.into_iter().for_each(|(place, settled)| queue.settle(place, settled));
        self.move_dead_letters(name);
        // An acknowledged dead letter made room for those of its queue.
        if let Some(source) = name.strip_suffix(broker::DEAD_LETTER_SUFFIX) {
            self.move_dead_letters(source);
        }
    }

    fn move_dead_letters(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let Some(to) = queue.dead_letters.clone() else { return };
        let mut dying = queue.take_dying();
        if let Some(dead) = self.queues.get_mut(&to) {
            while let Some((place, message)) = dying.pop_first() {
                if !dead.push(Message { routing_key: to.clone(), ..message.clone() }) {
                    dying.insert(place, message);
                    break;
                }
            }
        }
        self.queues.get_mut(name).expect("it was just there").keep_dying(dying);
    }

    /// Gives back what some consumers have in hand.
    fn give_back(&mut self, name: &str, whose: impl Fn(u64) -> bool) {
        let Some(queue) = self.queues.get(name) else { return };
        let places = queue.in_hand(whose);
        self.settle(name, places.into_iter().map(|place| (place, Settled::Back)));
    }
}

/// A process, and the life of its connection.
type Connection = (u64, u64);

/// One process' connection to the broker, made anew whenever it was lost.
pub struct SimBroker {
    server: Arc<Server>,
    pause: Pause,
    hook: Hook,
    process: u64,
}

impl SimBroker {
    /// Of a process that connects.
    pub fn new(server: Arc<Server>, pause: Pause, hook: Hook) -> Arc<Self> {
        let process = server.step(|state| {
            let process = state.number();
            state.connections.insert(process, 0);
            process
        });
        Arc::new(Self { server, pause, hook, process })
    }

    /// Breaks the connection: its consumers end, and what they had in hand goes back.
    pub fn cut(&self) {
        let process = self.process;
        self.server.step(|state| {
            *state.connections.entry(process).or_default() += 1;
            for name in state.queues.keys().cloned().collect::<Vec<_>>() {
                state.give_back(&name, |consumer| consumer == process);
            }
        });
    }

    fn connection(&self) -> Result<Connection, BrokerError> {
        let state = self.server.state();
        let connection = (self.process, state.connections.get(&self.process).copied().unwrap_or(0));
        state.connected(connection).map(|()| connection)
    }
}

#[async_trait]
impl Broker for SimBroker {
    async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        check_queue(queue)?;
        (self.pause)("broker: declare").await;
        self.server.step(|state| state.declare(queue))
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        check_batch(messages)?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let connection = self.connection()?;
        let mut outcomes = Vec::with_capacity(messages.len());
        (self.pause)("broker: publish").await;
        for message in messages {
            let fate = (self.hook)(message);
            let copies = match fate {
                Publishing::LoseBefore => {
                    self.cut();
                    return Err(error("the connection was lost"));
                }
                Publishing::Refuse => {
                    outcomes.push(PublishOutcome::Refused);
                    continue;
                }
                Publishing::Twice => 2,
                Publishing::Pass | Publishing::LoseConfirm => 1,
            };
            let outcome = self.server.step(|state| {
                state.connected(connection)?;
                Ok(state.publish(message, copies))
            })?;
            if fate == Publishing::LoseConfirm {
                self.cut();
                return Err(error("the connection was lost"));
            }
            outcomes.push(outcome);
        }
        (self.pause)("broker: confirm").await;
        // Without the connection nobody hears what was confirmed.
        self.server.state().connected(connection)?;
        Ok(outcomes)
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        if prefetch == 0 {
            return Err(error("a consumer with prefetch 0 would never get a message"));
        }
        (self.pause)("broker: consume").await;
        let connection = self.connection()?;
        let number = self.server.state().queue(queue)?.number;
        let (server, pause) = (Arc::clone(&self.server), Arc::clone(&self.pause));
        Ok(Box::new(SimConsumer::new(server, pause, connection, (queue.to_owned(), number), prefetch)))
    }

    async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        (self.pause)("broker: depth").await;
        Ok(self.server.state().queue(queue)?.messages().len() as u64)
    }
}

fn error(text: impl Into<String>) -> BrokerError {
    BrokerError(text.into().into())
}
