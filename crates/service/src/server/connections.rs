//! What a server knows of its connections: which are idle, whose requests are under way, and what their clients have been
//! sent and not read. By that it chooses whom to close: those that cost much and do nothing, the longest such first.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use tokio_util::sync::CancellationToken;

use super::Limits;
use crate::environment::Env;

/// Time for the client of an idle connection to take its leave once it is asked to. Short, because servers of a process
/// drain one after the other, and one client that is silent must not use up the time of all.
pub const LEAVE_TIMEOUT_MS: u64 = 2_000;

/// When it began, and the number of what began.
type Since = (Duration, u64);

/// All connections of a server.
pub struct Connections {
    env: Env,
    limits: Limits,
    drain: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Connections that are not cut.
    open: usize,
    idle: BTreeMap<Since, Arc<Tie>>,
    unread: BTreeMap<Since, (usize, Arc<Tie>)>,
    /// When the drain was seen.
    drained: Option<Duration>,
    /// Of connections that are not cut: what one of those still holds is gone as soon as its task has its turn.
    unread_bytes: usize,
}

/// By what a connection is held.
struct Tie {
    /// Cancelled when it is to be closed at once.
    cut: CancellationToken,
    /// Cancelled when its client is to be told to go.
    leave: CancellationToken,
    /// Of its answers. Changed with the state locked.
    unread_bytes: AtomicUsize,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Closes a connection without another word, unless it is closed already.
    fn cut(&mut self, tie: &Tie) -> bool {
        let is_open = !tie.cut.is_cancelled();
        if is_open {
            tie.cut.cancel();
            self.open -= 1;
            self.unread_bytes -= tie.unread_bytes.load(Ordering::Relaxed);
        }
        is_open
    }

    /// Closes the connection that has been idle for the longest.
    fn cut_idle(&mut self) -> bool {
        while let Some((_, tie)) = self.idle.pop_first() {
            if self.cut(&tie) {
                return true;
            }
        }
        false
    }

    /// Closes the connection that has an answer unread for the longest.
    fn cut_unread(&mut self) -> bool {
        while let Some((_, (_, tie))) = self.unread.pop_first() {
            if self.cut(&tie) {
                return true;
            }
        }
        false
    }
}

impl Connections {
    pub fn new(env: Env, limits: Limits, drain: CancellationToken) -> Arc<Self> {
        Arc::new(Self { env, limits, drain, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection. When there are as many as there may be, it takes the place of one that does nothing; `None` when
    /// all are at work.
    pub fn open(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut state = self.state();
        if state.open >= self.limits.connections_max && !state.cut_idle() && !state.cut_unread() {
            return None;
        }
        let (cut, leave) = (CancellationToken::new(), self.drain.child_token());
        let tie = Arc::new(Tie { cut, leave, unread_bytes: AtomicUsize::new(0) });
        let since = (self.env.uptime(), state.number());
        state.open += 1;
        state.idle.insert(since, Arc::clone(&tie));
        let requests = Mutex::new(Requests { idle_since: Some(since), ..Requests::default() });
        Some(Arc::new(Connection { all: Arc::clone(self), tie, requests }))
    }

    /// Closes a connection that does nothing: the process can open no more files.
    pub fn make_room(&self) {
        let mut state = self.state();
        let _ = state.cut_idle() || state.cut_unread();
    }

    /// Closes what has been idle or unread for too long. To be called again and again.
    pub fn sweep(&self) {
        let now = self.env.uptime();
        let leave_timeout = Duration::from_millis(LEAVE_TIMEOUT_MS);
        let mut state = self.state();
        let drained = self.drain.is_cancelled().then(|| *state.drained.get_or_insert(now));
        let mut overdue = Vec::new();
        for ((since, _), tie) in &state.idle {
            // A drain asks all of them.
            let asked = drained.map_or(Duration::MAX, |drained| drained.max(*since));
            let asked = asked.min(since.saturating_add(self.limits.idle_timeout));
            if now < asked {
                break;
            }
            tie.leave.cancel();
            if now.saturating_sub(asked) >= leave_timeout {
                overdue.push(Arc::clone(tie));
            }
        }
        let limit = self.limits.answer_read_timeout;
        let unread = state.unread.iter().take_while(|((since, _), _)| now.saturating_sub(*since) >= limit);
        overdue.extend(unread.map(|(_, (_, tie))| Arc::clone(tie)));
        for tie in overdue {
            state.cut(&tie);
        }
    }
}

/// One connection, as its task sees it.
pub struct Connection {
    all: Arc<Connections>,
    tie: Arc<Tie>,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    under_way: usize,
    answered: usize,
    abandoned: usize,
    /// Under which it stands among the idle ones.
    idle_since: Option<Since>,
}

impl Connection {
    /// Cancelled when it is to be closed at once.
    pub fn cut(&self) -> &CancellationToken {
        &self.tie.cut
    }

    /// Cancelled when its client is to be told to go.
    pub fn leave(&self) -> &CancellationToken {
        &self.tie.leave
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        let mut requests = self.requests();
        requests.under_way += 1;
        let mut state = self.all.state();
        if let Some(since) = requests.idle_since.take() {
            state.idle.remove(&since);
        }
        // Its client has not read that it is to go: it would go on for ever.
        let limit = self.all.limits.answer_read_timeout;
        if state.drained.is_some_and(|drained| self.all.env.uptime().saturating_sub(drained) >= limit) {
            state.cut(&self.tie);
        }
        drop(state);
        let one_too_many = requests.under_way > self.all.limits.streams_per_connection_max as usize;
        UnderWay(Arc::new(Request { connection: Arc::clone(self), one_too_many }))
    }

    fn end(&self) {
        let mut requests = self.requests();
        requests.under_way -= 1;
        if requests.under_way == 0 {
            let now = self.all.env.uptime();
            let mut state = self.all.state();
            let since = (now, state.number());
            state.idle.insert(since, Arc::clone(&self.tie));
            requests.idle_since = Some(since);
        }
    }

    fn count_abandoned(&self) {
        let mut requests = self.requests();
        requests.abandoned += 1;
        if requests.abandoned > self.all.limits.abandoned_max && requests.abandoned > requests.answered {
            self.all.state().cut(&self.tie);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let since = self.requests().idle_since.take();
        let mut state = self.all.state();
        if let Some(since) = since {
            state.idle.remove(&since);
        }
        state.cut(&self.tie);
    }
}

/// Travels with every request. A connection is idle once all clones of all of its requests are gone.
#[derive(Clone)]
pub struct UnderWay(Arc<Request>);

struct Request {
    connection: Arc<Connection>,
    one_too_many: bool,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.connection.end();
    }
}

impl UnderWay {
    /// Whether the connection has more requests under way than it may. An HTTP/2 client that resets its streams can: they
    /// are gone for HTTP, and the work goes on.
    pub fn is_one_too_many(&self) -> bool {
        self.0.one_too_many
    }

    /// Counts the request as abandoned by its client unless it is told otherwise.
    pub(super) fn unanswered(&self) -> Unanswered {
        Unanswered(Some(self.clone()))
    }

    /// A part of the answer, which counts as unread until the kernel has the last of it.
    pub(super) fn unread(&self, bytes: Bytes) -> Bytes {
        let connection = &self.0.connection;
        let all = &connection.all;
        let length = bytes.len();
        let mut state = all.state();
        let since = (all.env.uptime(), state.number());
        if !connection.tie.cut.is_cancelled() {
            state.unread.insert(since, (length, Arc::clone(&connection.tie)));
            state.unread_bytes += length;
            connection.tie.unread_bytes.fetch_add(length, Ordering::Relaxed);
        }
        while state.unread_bytes > all.limits.unread_bytes_max && state.cut_unread() {}
        drop(state);
        Bytes::from_owner(Unread { bytes, since, under_way: self.clone() })
    }
}

/// See [`UnderWay::unanswered`].
pub(super) struct Unanswered(Option<UnderWay>);

impl Unanswered {
    pub fn answered(mut self) {
        if let Some(under_way) = self.0.take() {
            under_way.0.connection.requests().answered += 1;
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(under_way) = &self.0 {
            under_way.0.connection.count_abandoned();
        }
    }
}

/// A part of an answer. Whoever sends it drops it once it is sent, or once the stream or the connection is gone.
struct Unread {
    bytes: Bytes,
    since: Since,
    under_way: UnderWay,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let mut state = self.under_way.0.connection.all.state();
        match state.unread.remove(&self.since) {
            Some((length, tie)) if !tie.cut.is_cancelled() => {
                state.unread_bytes -= length;
                tie.unread_bytes.fetch_sub(length, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::environment::RealEnvironment;

    #[test]
    fn who_leaves_too_much_unread_is_cut_alone() {
        let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
        let limits = Limits { unread_bytes_max: 10, ..Limits::default() };
        let all = Connections::new(env, limits, CancellationToken::new());
        let connections: Vec<_> = (0..3).map(|_| all.open().expect("there is room")).collect();
        let is_cut = || connections.iter().map(|connection| connection.cut().is_cancelled()).collect::<Vec<_>>();
        let unread = |n: usize, part| connections[n].begin().unread(Bytes::from_static(part));

        let mut parts: Vec<_> = (0..10).map(|_| unread(0, b"x")).collect();
        parts.push(unread(1, b"1234"));
        assert_eq!(is_cut(), [true, false, false]);
        // What the first has is still in memory.
        parts.push(unread(2, b"123456"));
        assert_eq!(is_cut(), [true, false, false]);
        parts.push(unread(2, b"7"));
        assert_eq!(is_cut(), [true, true, false], "the next oldest");
        parts.clear();
        assert_eq!(all.state().unread_bytes, 0);
    }
}
