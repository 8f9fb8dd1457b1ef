//! One queue.

use std::collections::BTreeMap;

use broker::{Message, QueueSpec};

/// What becomes of a message that was in a consumer's hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is gone.
    Gone,
    /// It is ready again, or a dead letter if that was its last delivery.
    Back,
    /// It is a dead letter, if the queue has any.
    Dead,
}

/// Messages by their places, in order.
pub(super) struct Queue {
    /// Which queue of its name it is.
    pub(super) number: u64,
    pub(super) spec: QueueSpec,
    /// Where its dead letters go.
    pub(super) dead_letters: Option<String>,
    next_place: u64,
    ready: BTreeMap<u64, Waiting>,
    /// With the process whose consumer has it.
    in_hand: BTreeMap<u64, (u64, Waiting)>,
    /// Dead letters without room where they belong: delivered to nobody.
    dying: BTreeMap<u64, Message>,
}

struct Waiting {
    message: Message,
    earlier_deliveries: u32,
}

impl Queue {
    pub(super) fn new(number: u64, spec: QueueSpec, dead_letters: Option<String>) -> Self {
        let (ready, in_hand, dying) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { number, spec, dead_letters, next_place: 0, ready, in_hand, dying }
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        let ready = self.ready.values().map(|waiting| &waiting.message);
        let in_hand = self.in_hand.values().map(|(_, waiting)| &waiting.message);
        ready.chain(in_hand).chain(self.dying.values()).cloned().collect()
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, message: Message) -> bool {
        let length = self.ready.len() + self.in_hand.len() + self.dying.len();
        if length >= usize::try_from(self.spec.length_max).unwrap_or(usize::MAX) {
            return false;
        }
        self.ready.insert(self.next_place, Waiting { message, earlier_deliveries: 0 });
        self.next_place += 1;
        true
    }

    /// Hands the oldest out, to a consumer of a process: places, messages and earlier deliveries.
    pub(super) fn take(&mut self, process: u64, max: usize) -> Vec<(u64, Message, u32)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((place, waiting)) = self.ready.pop_first()
        {
            taken.push((place, waiting.message.clone(), waiting.earlier_deliveries));
            self.in_hand.insert(place, (process, waiting));
        }
        taken
    }

    /// Places that consumers of these processes have in hand.
    pub(super) fn in_hand(&self, whose: impl Fn(u64) -> bool) -> Vec<u64> {
        self.in_hand.iter().filter(|(_, (process, _))| whose(*process)).map(|(place, _)| *place).collect()
    }

    pub(super) fn settle(&mut self, place: u64, settled: Settled) {
        let Some((_, waiting)) = self.in_hand.remove(&place) else { return };
        let last = waiting.earlier_deliveries >= self.spec.redeliveries_max;
        match settled {
            Settled::Gone => {}
            Settled::Dead | Settled::Back if self.dead_letters.is_some() && (last || settled == Settled::Dead) => {
                self.dying.insert(place, waiting.message);
            }
            Settled::Dead | Settled::Back => {
                let earlier_deliveries = waiting.earlier_deliveries.saturating_add(1);
                self.ready.insert(place, Waiting { earlier_deliveries, ..waiting });
            }
        }
    }

    pub(super) fn take_dying(&mut self) -> BTreeMap<u64, Message> {
        std::mem::take(&mut self.dying)
    }

    pub(super) fn keep_dying(&mut self, dying: BTreeMap<u64, Message>) {
        self.dying = dying;
    }
}
