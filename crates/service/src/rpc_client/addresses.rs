//! Where a peer is: the addresses behind its URLs, looked up again and again, asked in turn. One that cannot be reached is
//! left alone for a while, so that its calls go to the others at once.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::CONNECT_TIMEOUT_MS;
use crate::{
    environment::Env,
    server::{KEEPALIVE_INTERVAL_MS, KEEPALIVE_TIMEOUT_MS},
};

/// Names are looked up again when the last answer is older than this, in milliseconds.
pub const RESOLVE_INTERVAL_MS: u64 = 5_000;
/// Longest lookup, in milliseconds.
pub const RESOLVE_TIMEOUT_MS: u64 = 1_000;
/// Most addresses of one peer; what a name has beyond is not used.
pub const ADDRESSES_MAX: usize = 64;
/// How long an address that could not be reached is left alone at first, in milliseconds; it doubles.
pub const LEFT_ALONE_MIN_MS: u64 = 50;
/// How long it is left alone at most, in milliseconds: what it costs to notice that it is back.
pub const LEFT_ALONE_MAX_MS: u64 = 1_000;

const HTTP_PORT: u16 = 80;

/// One address of a peer.
pub(super) struct Address {
    addr: SocketAddr,
    url: Uri,
    channel: Channel,
    reach: Mutex<Reach>,
}

#[derive(Default)]
struct Reach {
    /// How often it could not be reached since it last could.
    failures: u32,
    /// Until then nobody tries, as uptime.
    alone_until: Duration,
}

impl Address {
    fn new(addr: SocketAddr, url: &Uri) -> Arc<Self> {
        // The peer is told its name, whichever of its addresses is asked.
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .expect("an address makes a URL")
            .origin(url.clone())
            .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
            .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
            .keep_alive_timeout(Duration::from_millis(KEEPALIVE_TIMEOUT_MS))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        Arc::new(Self { addr, url: url.clone(), channel: endpoint.connect_lazy(), reach: Mutex::default() })
    }

    /// Lets a call try it, or not: after a failure one call at a time does, while the others leave it alone.
    fn trial(self: &Arc<Self>, env: &Env) -> Option<Trial> {
        let mut reach = lock(&self.reach);
        let now = env.uptime();
        if now < reach.alone_until {
            return None;
        }
        if reach.failures > 0 {
            reach.alone_until = now + Duration::from_millis(CONNECT_TIMEOUT_MS);
        }
        Some(Trial { address: Arc::clone(self), failures: reach.failures, env: Arc::clone(env) })
    }
}

/// A call that tries an address. Dropped without a result it lets the next one try.
pub(super) struct Trial {
    address: Arc<Address>,
    /// How often others failed before.
    failures: u32,
    env: Env,
}

impl Trial {
    /// To the address.
    pub fn channel(&self) -> Channel {
        self.address.channel.clone()
    }

    /// A connection to it was there.
    pub fn reached(self) {
        *lock(&self.address.reach) = Reach::default();
    }

    /// No connection could be made. Calls that fail together count once: all have seen the same failures.
    pub fn not_reached(self) {
        let pause = LEFT_ALONE_MAX_MS.min(LEFT_ALONE_MIN_MS << self.failures.min(10));
        let alone_until = self.env.uptime() + self.env.jittered(Duration::from_millis(pause));
        self.end(Reach { failures: self.failures.saturating_add(1), alone_until });
    }

    fn end(&self, reach: Reach) {
        let mut known = lock(&self.address.reach);
        if known.failures == self.failures {
            *known = reach;
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.failures > 0 {
            self.end(Reach { failures: self.failures, alone_until: Duration::ZERO });
        }
    }
}

/// The addresses behind some URLs.
pub(super) struct Addresses {
    name: &'static str,
    urls: Vec<Uri>,
    env: Env,
    known: Mutex<Known>,
    /// Held by the one that looks names up.
    lookup: tokio::sync::Mutex<()>,
    turn: AtomicUsize,
    resolve: Resolve,
}

/// Looks a name and port up.
type Resolve = Box<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

#[derive(Default)]
struct Known {
    list: Arc<[Arc<Address>]>,
    /// When names are looked up again, as uptime; `None` when there are none.
    stale_at: Option<Duration>,
}

impl Addresses {
    /// Names are looked up at the first call.
    pub fn new(name: &'static str, urls: &[Uri], env: Env) -> Arc<Self> {
        let system = |host, port| async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed();
        Self::with_resolve(name, urls, env, Box::new(system))
    }

    fn with_resolve(name: &'static str, urls: &[Uri], env: Env, resolve: Resolve) -> Arc<Self> {
        let literals = urls.iter().map(|url| Some(Address::new(literal(url)?, url))).collect();
        let known = match literals {
            Some(list) => Known { list, stale_at: None },
            None => Known { stale_at: Some(Duration::ZERO), ..Known::default() },
        };
        let (known, turn) = (Mutex::new(known), AtomicUsize::new(0));
        Arc::new(Self { name, urls: urls.to_vec(), env, known, lookup: tokio::sync::Mutex::default(), turn, resolve })
    }

    /// The addresses to try, in turn. Trying the next one only when one could not be reached is up to the caller.
    pub async fn in_turn(self: &Arc<Self>) -> impl Iterator<Item = Trial> {
        self.refresh().await;
        let list = lock(&self.known).list.clone();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..list.len()).filter_map(move |step| list[first.wrapping_add(step) % list.len()].trial(&self.env))
    }

    /// Looks names up when that is due: at first every call waits for it, later none does.
    async fn refresh(self: &Arc<Self>) {
        let (unknown, due) = {
            let known = lock(&self.known);
            (known.list.is_empty(), known.stale_at.is_some_and(|at| at <= self.env.uptime()))
        };
        if unknown && due {
            let _one = self.lookup.lock().await;
            if lock(&self.known).stale_at.is_some_and(|at| at <= self.env.uptime()) {
                self.look_up().await;
            }
        } else if due {
            let this = self.clone();
            self.env.start(Box::pin(async move {
                if let Ok(_one) = this.lookup.try_lock() {
                    this.look_up().await;
                }
            }));
        }
    }

    async fn look_up(&self) {
        let before = lock(&self.known).list.clone();
        let mut list: Vec<Arc<Address>> = Vec::new();
        for url in &self.urls {
            match self.look_up_one(url).await {
                Ok(addrs) => list.extend(addrs.into_iter().map(|addr| {
                    let same = before.iter().find(|known| known.addr == addr && known.url == *url);
                    same.map_or_else(|| Address::new(addr, url), Arc::clone)
                })),
                Err(why) => {
                    tracing::warn!(peer = self.name, %url, why, "a name is not found");
                    // What it stood for may still be good.
                    list.extend(before.iter().filter(|known| known.url == *url).cloned());
                }
            }
        }
        list.truncate(ADDRESSES_MAX);
        let again = if list.is_empty() { LEFT_ALONE_MAX_MS } else { RESOLVE_INTERVAL_MS };
        let stale_at = Some(self.env.uptime() + Duration::from_millis(again));
        *lock(&self.known) = Known { list: list.into(), stale_at };
    }

    async fn look_up_one(&self, url: &Uri) -> Result<Vec<SocketAddr>, String> {
        let lookup = (self.resolve)(host(url).to_owned(), port(url));
        let found = self.env.timeout(Duration::from_millis(RESOLVE_TIMEOUT_MS), lookup).await;
        found.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

/// The address of a URL without a name.
fn literal(url: &Uri) -> Option<SocketAddr> {
    Some(SocketAddr::new(host(url).parse::<IpAddr>().ok()?, port(url)))
}

fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(HTTP_PORT)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after each statement: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{environment::Environment, manual::ManualEnvironment};

    async fn asked(addresses: &Arc<Addresses>) -> Vec<u16> {
        let mut ports: Vec<u16> = addresses.in_turn().await.map(|trial| trial.address.addr.port()).collect();
        ports.sort_unstable();
        ports
    }

    fn one(addresses: &Arc<Addresses>) -> Arc<Address> {
        lock(&addresses.known).list[0].clone()
    }

    #[tokio::test]
    async fn names_are_looked_up_again_and_what_they_stood_for_is_kept_over_a_failure() {
        let clock = ManualEnvironment::new(1);
        let found = Arc::new(Mutex::new(Some(vec![1, 2])));
        let answers = found.clone();
        let resolve: Resolve = Box::new(move |_, _| {
            let ports = lock(&answers).clone().ok_or_else(|| io::Error::other("no such name"));
            let addrs = ports.map(|ports| ports.into_iter().map(|port| ([127, 0, 0, 1], port).into()).collect());
            async move { addrs }.boxed()
        });
        let urls = ["http://peer:9".parse().expect("a URL")];
        let addresses = Addresses::with_resolve("peer", &urls, clock.clone(), resolve);
        assert_eq!(asked(&addresses).await, [1, 2]);
        let kept = one(&addresses);

        *lock(&found) = Some(vec![1, 3]);
        assert_eq!(asked(&addresses).await, [1, 2], "not yet");
        clock.advance(Duration::from_millis(RESOLVE_INTERVAL_MS));
        asked(&addresses).await;
        while asked(&addresses).await != [1, 3] {
            tokio::task::yield_now().await;
        }
        assert!(Arc::ptr_eq(&kept, &one(&addresses)), "its connection is kept");

        *lock(&found) = None;
        clock.advance(Duration::from_millis(RESOLVE_INTERVAL_MS));
        asked(&addresses).await;
        while lock(&addresses.known).stale_at <= Some(clock.uptime()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked(&addresses).await, [1, 3]);
    }

    #[tokio::test]
    async fn an_address_not_reached_is_tried_by_one_at_a_time_and_ever_less_often() {
        let clock = ManualEnvironment::new(1);
        let env: Env = clock.clone();
        let urls = ["http://127.0.0.1:9".parse().expect("a URL")];
        let addresses = Addresses::new("peer", &urls, env.clone());
        let address = one(&addresses);
        let trial = || address.trial(&env);
        // Two at once fail, and count once.
        let both = [trial(), trial()].map(|trial| trial.expect("never tried"));
        both.into_iter().for_each(Trial::not_reached);
        assert!(trial().is_none());
        clock.advance(Duration::from_millis(LEFT_ALONE_MIN_MS));
        let mut one = trial().expect("time is up");
        for failures in 1..20 {
            assert_eq!(one.failures, failures);
            assert!(trial().is_none(), "one tries");
            one.not_reached();
            assert!(trial().is_none());
            clock.advance(Duration::from_millis(LEFT_ALONE_MAX_MS));
            one = trial().expect("never left alone for longer");
        }
        drop(one);
        let next = trial().expect("who gave up left no result, and nobody waits for it");
        next.reached();
        assert!([trial(), trial()].iter().all(Option::is_some));
    }
}
