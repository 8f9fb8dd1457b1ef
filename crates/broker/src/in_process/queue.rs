//! A queue in memory: which of its messages are in a consumer's hands, and the bell that wakes consumers. What the file
//! holds and nobody has in hand is ready.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::store::QueueRow;

/// A declared queue.
pub(super) struct Queue {
    /// As it stands in the file.
    pub(super) row: QueueRow,
    /// Rung when messages may have become ready.
    pub(super) bell: Notify,
    in_hand: Mutex<BTreeSet<i64>>,
}

impl Queue {
    pub(super) fn new(row: QueueRow) -> Self {
        Self { row, bell: Notify::new(), in_hand: Mutex::default() }
    }

    /// Wakes every consumer that waits. Each looks for itself; those that find nothing wait again.
    pub(super) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// Every message in hand, as the JSON list that SQL takes.
    pub(super) fn in_hand(&self) -> String {
        seq_list(self.locked().iter().copied())
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message in hand. Dropped, it is ready again: whoever fails, panics or stops waiting loses nothing.
pub(super) struct Hold {
    /// The message.
    pub(super) seq: i64,
    queue: Arc<Queue>,
    gone: bool,
}

impl Hold {
    /// Takes a message that is in nobody's hands; only whoever has the writer may ask for it.
    pub(super) fn take(queue: &Arc<Queue>, seq: i64) -> Self {
        let fresh = queue.locked().insert(seq);
        assert!(fresh, "message {seq} is in hand already");
        Self { seq, queue: Arc::clone(queue), gone: false }
    }

    /// The message is not in the queue any more, so nobody needs to be woken for it.
    pub(super) fn settled(mut self) {
        self.gone = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.queue.locked().remove(&self.seq);
        if !self.gone {
            self.queue.ring();
        }
    }
}

/// A JSON list of numbers, which SQLite's `json_each` reads: a statement with any number of them is one text.
pub(super) fn seq_list(seqs: impl Iterator<Item = i64>) -> String {
    let seqs: Vec<String> = seqs.map(|seq| seq.to_string()).collect();
    format!("[{}]", seqs.join(","))
}
