//! One address of a peer: its connection, and a circuit around it.
//!
//! Callers use a connection while it is good. One that was lost, could not be made or keeps a caller waiting is left to a
//! try: a task that asks the peer for a sign of life, over a new connection if need be. Callers start tries, one at a
//! time and ever less often; none of them waits for one unless there is no other address.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::{FutureExt, select_ok};
use http::Uri;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{metrics::PeerMetrics, network::Network};
use crate::environment::Env;

/// Time of a try, in milliseconds: a lost SYN is sent again after one second.
pub const TRY_TIMEOUT_MS: u64 = 1_300;
/// So long a connection in doubt has to answer before another one is made, in milliseconds.
pub const HEAD_START_MS: u64 = 100;
/// So long a sign of life counts, in milliseconds. Else calls that are slow by nature would ask for one after the other.
pub const VOUCHED_MS: u64 = 500;
/// How long an address that failed is left alone at first, in milliseconds; it doubles.
pub const LEFT_ALONE_MIN_MS: u64 = 50;
/// How long it is left alone at most, in milliseconds: what it costs to notice that it is back.
pub const LEFT_ALONE_MAX_MS: u64 = 1_000;

/// What the addresses of one peer share.
pub(super) struct Shared {
    pub name: &'static str,
    pub env: Env,
    pub metrics: PeerMetrics,
    pub network: Network,
    /// Told at the end of each try.
    pub tried: watch::Sender<()>,
}

/// Told apart by which it is.
pub(super) struct Connection {
    channel: Channel,
    /// It was given up: it gave no sign of life.
    silent: AtomicBool,
}

impl Connection {
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

pub(super) struct Address {
    pub addr: SocketAddr,
    pub url: Uri,
    shared: Arc<Shared>,
    circuit: Mutex<Circuit>,
}

#[derive(Default)]
struct Circuit {
    /// The last one, until it has ended or is given up.
    connection: Option<Arc<Connection>>,
    /// A caller waits long for an answer over it.
    doubted: bool,
    /// It gave a sign of life a moment before, as uptime: who waits for longer waits for the work.
    vouched_until: Duration,
    /// Tries that failed and connections that were lost since a call was answered.
    failures: u32,
    /// Why it was left alone.
    why: String,
    /// No try until then, as uptime.
    alone_until: Duration,
    trying: bool,
    /// It is left alone; told once.
    down: bool,
}

impl Address {
    pub fn new(addr: SocketAddr, url: &Uri, shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { addr, url: url.clone(), shared: Arc::clone(shared), circuit: Mutex::default() })
    }

    /// A connection that nothing is known against.
    pub fn good(&self) -> Option<Arc<Connection>> {
        let circuit = lock(&self.circuit);
        circuit.connection.clone().filter(|_| !circuit.doubted)
    }

    /// The same, or one that is doubted.
    pub fn any(&self) -> Option<Arc<Connection>> {
        lock(&self.circuit).connection.clone()
    }

    pub fn is_trying(&self) -> bool {
        lock(&self.circuit).trying
    }

    /// There is no connection yet.
    pub fn is_connecting(&self) -> bool {
        let circuit = lock(&self.circuit);
        circuit.trying && circuit.connection.is_none()
    }

    /// Why it cannot be reached.
    pub fn why(&self) -> String {
        let circuit = lock(&self.circuit);
        let why = if circuit.why.is_empty() { "no connection yet" } else { &circuit.why };
        format!("{}: {why}", self.addr)
    }

    /// A call over the connection was answered.
    pub fn answered(&self, connection: &Arc<Connection>) {
        self.change(connection, |circuit| {
            circuit.failures = 0;
            self.close(circuit);
        });
    }

    /// A call over the connection waits for long.
    pub fn doubt(self: &Arc<Self>, connection: &Arc<Connection>) {
        let now = self.shared.env.uptime();
        self.change(connection, |circuit| circuit.doubted |= now >= circuit.vouched_until);
        self.try_if_due();
    }

    /// The connection has ended. Once says little: a peer ends what it does not need.
    pub fn lost(&self, connection: &Arc<Connection>) {
        self.change(connection, |circuit| {
            circuit.connection = None;
            if circuit.failures > 0 {
                self.open(circuit, "its connections end".to_owned());
            }
            circuit.failures = circuit.failures.saturating_add(1);
        });
    }

    /// Tells whether it can be used, in a task of its own, unless that is known or not to be asked now.
    pub fn try_if_due(self: &Arc<Self>) {
        let mut circuit = lock(&self.circuit);
        let good = circuit.connection.is_some() && !circuit.doubted;
        if good || circuit.trying || self.shared.env.uptime() < circuit.alone_until {
            return;
        }
        circuit.trying = true;
        let doubted = circuit.connection.clone();
        // A first connection is tried by whoever wants it: it costs no time then.
        let ask = circuit.failures > 0 || doubted.is_some();
        drop(circuit);
        let this = Arc::clone(self);
        self.shared.env.start(Box::pin(async move {
            let limit = Duration::from_millis(TRY_TIMEOUT_MS);
            let end = this.shared.env.uptime() + limit;
            let result = this.shared.env.timeout(limit, this.try_out(doubted.clone(), ask)).await;
            let result = result.unwrap_or_else(|_| Err(format!("no sign of life within {TRY_TIMEOUT_MS} ms")));
            let replaced = doubted.clone().filter(|old| result.as_ref().is_ok_and(|new| !Arc::ptr_eq(old, new)));
            this.tried(doubted, result);
            if let Some(old) = replaced {
                // Calls wait over it still. One that is merely slower than a new one is not silent.
                let rest = end.saturating_sub(this.shared.env.uptime());
                let lives = this.shared.env.timeout(rest, this.ask(&old)).await;
                old.silent.store(!matches!(lives, Ok(Ok(()))), Ordering::Relaxed);
            }
        }));
    }

    /// A connection that lives: what was doubted or, if it does not answer soon, whichever answers first of it and a new one.
    async fn try_out(&self, doubted: Option<Arc<Connection>>, ask: bool) -> Result<Arc<Connection>, String> {
        let new = self.connect(ask);
        let Some(doubted) = doubted else { return new.await };
        let mut old = async { self.ask(&doubted).await.map(|()| Arc::clone(&doubted)) }.boxed();
        match self.shared.env.timeout(Duration::from_millis(HEAD_START_MS), &mut old).await {
            Ok(Err(_)) => new.await,
            Ok(lives) => lives,
            Err(_) => select_ok([old, new.boxed()]).await.map(|(connection, _)| connection),
        }
    }

    async fn connect(&self, ask: bool) -> Result<Arc<Connection>, String> {
        let channel = (self.shared.network.connect)(self.addr, self.url.clone()).await?;
        let connection = Arc::new(Connection { channel, silent: AtomicBool::new(false) });
        if ask {
            self.ask(&connection).await?;
        }
        Ok(connection)
    }

    async fn ask(&self, connection: &Connection) -> Result<(), String> {
        (self.shared.network.ask)(connection.channel()).await
    }

    fn tried(&self, doubted: Option<Arc<Connection>>, result: Result<Arc<Connection>, String>) {
        let mut circuit = lock(&self.circuit);
        circuit.trying = false;
        match result {
            Ok(connection) => {
                circuit.connection = Some(connection);
                circuit.vouched_until = self.shared.env.uptime() + Duration::from_millis(VOUCHED_MS);
                self.close(&mut circuit);
            }
            // A call was answered meanwhile.
            Err(_) if circuit.connection.is_some() && !circuit.doubted => {}
            Err(why) => {
                circuit.connection = None;
                if let Some(connection) = doubted {
                    connection.silent.store(true, Ordering::Relaxed);
                }
                circuit.failures = circuit.failures.saturating_add(1);
                self.open(&mut circuit, why);
            }
        }
        // Before anybody can see that the try is over.
        self.shared.tried.send_replace(());
    }

    /// Callers use the connection.
    fn close(&self, circuit: &mut Circuit) {
        circuit.doubted = false;
        if std::mem::take(&mut circuit.down) {
            self.shared.metrics.up();
            tracing::info!(peer = self.shared.name, addr = %self.addr, "an address is used again");
        }
    }

    /// It is left alone for a while.
    fn open(&self, circuit: &mut Circuit, why: String) {
        let pause = LEFT_ALONE_MAX_MS.min(LEFT_ALONE_MIN_MS << circuit.failures.saturating_sub(1).min(10));
        let pause = self.shared.env.jittered(Duration::from_millis(pause));
        circuit.alone_until = self.shared.env.uptime() + pause;
        if !std::mem::replace(&mut circuit.down, true) {
            self.shared.metrics.down();
            tracing::warn!(peer = self.shared.name, addr = %self.addr, why, "an address is left alone");
        }
        circuit.why = why;
    }

    /// Nothing when it has another connection by now.
    fn change(&self, connection: &Arc<Connection>, change: impl FnOnce(&mut Circuit)) {
        let mut circuit = lock(&self.circuit);
        if circuit.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection)) {
            change(&mut circuit);
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        if lock(&self.circuit).down {
            self.shared.metrics.up();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after each statement: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
