//! Where a peer is: the addresses behind its URLs, looked up again and again, asked in turn.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{
    address::{Address, Connection, LEFT_ALONE_MAX_MS, Shared, TRY_TIMEOUT_MS, lock},
    metrics::PeerMetrics,
    network::Network,
};
use crate::environment::Env;

/// Names are looked up again when the last answer is older than this, in milliseconds.
pub const RESOLVE_INTERVAL_MS: u64 = 5_000;
/// Longest lookup, in milliseconds.
pub const RESOLVE_TIMEOUT_MS: u64 = 1_000;
/// Most addresses of one peer; what a name has beyond is not used.
pub const ADDRESSES_MAX: usize = 64;

const HTTP_PORT: u16 = 80;

/// An attempt of a call, or where to send one.
pub(super) struct Attempt {
    address: Arc<Address>,
    connection: Arc<Connection>,
    /// Its answer is not there yet.
    pub under_way: bool,
}

impl Attempt {
    fn new(address: &Arc<Address>, connection: Arc<Connection>) -> Self {
        Self { address: Arc::clone(address), connection, under_way: true }
    }

    pub fn channel(&self) -> Channel {
        self.connection.channel()
    }

    pub fn answered(&self) {
        self.address.answered(&self.connection);
    }

    pub fn doubt(&self) {
        self.address.doubt(&self.connection);
    }

    /// No answer will come.
    pub fn is_silent(&self) -> bool {
        self.connection.is_silent()
    }

    pub fn lost(&self) {
        self.address.lost(&self.connection);
    }
}

/// The addresses behind some URLs.
pub(super) struct Addresses {
    urls: Vec<Uri>,
    shared: Arc<Shared>,
    known: Mutex<Known>,
    /// Held by the one that looks names up.
    lookup: Arc<tokio::sync::Mutex<()>>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    list: Arc<[Arc<Address>]>,
    /// When names are looked up again, as uptime; `None` when there are none.
    stale_at: Option<Duration>,
}

impl Addresses {
    /// Names are looked up at the first call.
    pub fn new(name: &'static str, urls: &[Uri], env: Env, metrics: PeerMetrics, network: Network) -> Arc<Self> {
        let shared = Arc::new(Shared { name, env, metrics, network, tried: watch::Sender::default() });
        let literals = urls.iter().map(|url| Some(Address::new(literal(url)?, url, &shared))).collect();
        let known = match literals {
            Some(list) => Known { list, stale_at: None },
            None => Known { stale_at: Some(Duration::ZERO), ..Known::default() },
        };
        let (known, turn) = (Mutex::new(known), AtomicUsize::new(0));
        Arc::new(Self { urls: urls.to_vec(), shared, known, lookup: Arc::default(), turn })
    }

    /// Where to send the next attempt: in turn, elsewhere than those before if possible. Waits only when no connection is
    /// good, and then for whichever is made first, as long as one try may take; failing that, one in doubt will do. The error
    /// says why there is none.
    pub async fn next(self: &Arc<Self>, before: &[Attempt]) -> Result<Attempt, String> {
        let end = self.shared.env.uptime() + Duration::from_millis(TRY_TIMEOUT_MS);
        self.refresh().await;
        loop {
            let mut tried = self.shared.tried.subscribe();
            if let Some(next) = self.next_now(before) {
                return Ok(next);
            }
            let list = self.list();
            let last_resort = |address: &Arc<Address>| {
                let connection = address.any()?;
                let known = before.iter().any(|attempt| Arc::ptr_eq(&attempt.connection, &connection));
                (!known).then(|| Attempt::new(address, connection))
            };
            if !list.iter().any(|address| address.is_connecting())
                && let Some(next) = list.iter().find_map(last_resort)
            {
                return Ok(next);
            }
            let wait = if list.iter().any(|address| address.is_trying()) {
                end.saturating_sub(self.shared.env.uptime())
            } else {
                // A try may have ended since the connections were looked at.
                Duration::ZERO
            };
            // Several tries may follow each other without end.
            if self.shared.env.timeout(wait, tried.changed()).await.is_err() {
                let whys: Vec<String> = list.iter().map(|address| address.why()).collect();
                return Err(if whys.is_empty() { "it has no address".to_owned() } else { whys.join(", ") });
            }
        }
    }

    /// The same without waiting, and over good connections only. Never over one that is asked already.
    pub fn next_now(&self, before: &[Attempt]) -> Option<Attempt> {
        let list = self.list();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut again = None;
        for step in 0..list.len() {
            let address = &list[first.wrapping_add(step) % list.len()];
            let Some(connection) = address.good() else {
                address.try_if_due();
                continue;
            };
            let here = || before.iter().filter(|attempt| Arc::ptr_eq(&attempt.address, address));
            if here().next().is_none() {
                return Some(Attempt::new(address, connection));
            }
            let asked = |attempt: &Attempt| attempt.under_way && Arc::ptr_eq(&attempt.connection, &connection);
            if again.is_none() && !here().any(asked) {
                again = Some(Attempt::new(address, connection));
            }
        }
        again
    }

    /// Whether a good connection leads elsewhere than all attempts.
    pub fn has_other(&self, made: &[Attempt]) -> bool {
        let elsewhere = |address: &&Arc<Address>| !made.iter().any(|one| Arc::ptr_eq(&one.address, address));
        self.list().iter().filter(elsewhere).any(|address| address.good().is_some())
    }

    fn list(&self) -> Arc<[Arc<Address>]> {
        Arc::clone(&lock(&self.known).list)
    }

    /// Looks names up when that is due: at first every call waits for it, later none does.
    async fn refresh(self: &Arc<Self>) {
        let due = || lock(&self.known).stale_at.is_some_and(|at| at <= self.shared.env.uptime());
        if !due() {
            return;
        }
        if self.list().is_empty() {
            let _one = self.lookup.lock().await;
            if due() {
                self.look_up().await;
            }
        } else if let Ok(one) = Arc::clone(&self.lookup).try_lock_owned()
            && due()
        {
            let this = self.clone();
            self.shared.env.start(Box::pin(async move {
                this.look_up().await;
                drop(one);
            }));
        }
    }

    async fn look_up(&self) {
        let before = self.list();
        let mut list: Vec<Arc<Address>> = Vec::new();
        for url in &self.urls {
            match self.look_up_one(url).await {
                Ok(addrs) => list.extend(addrs.into_iter().map(|addr| {
                    let same = before.iter().find(|known| known.addr == addr && known.url == *url);
                    same.map_or_else(|| Address::new(addr, url, &self.shared), Arc::clone)
                })),
                Err(why) => {
                    tracing::warn!(peer = self.shared.name, %url, why, "a name is not found");
                    // What it stood for may still be good.
                    list.extend(before.iter().filter(|known| known.url == *url).cloned());
                }
            }
        }
        list.truncate(ADDRESSES_MAX);
        let again = if list.is_empty() { LEFT_ALONE_MAX_MS } else { RESOLVE_INTERVAL_MS };
        let stale_at = Some(self.shared.env.uptime() + Duration::from_millis(again));
        *lock(&self.known) = Known { list: list.into(), stale_at };
    }

    async fn look_up_one(&self, url: &Uri) -> Result<Vec<SocketAddr>, String> {
        let lookup = (self.shared.network.resolve)(host(url).to_owned(), port(url));
        let found = self.shared.env.timeout(Duration::from_millis(RESOLVE_TIMEOUT_MS), lookup).await;
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

#[cfg(test)]
mod tests {
    use std::{io, sync::atomic::AtomicBool};

    use futures::FutureExt;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::{
        environment::Environment,
        manual::ManualEnvironment,
        rpc_client::{
            RpcClientMetrics,
            address::{HEAD_START_MS, LEFT_ALONE_MIN_MS, VOUCHED_MS},
        },
    };

    /// Ports that a name stands for, and whether what is there answers.
    #[derive(Default)]
    struct World {
        ports: Mutex<Option<Vec<u16>>>,
        reached: AtomicBool,
        alive: AtomicBool,
        tries: AtomicUsize,
        lookups: AtomicUsize,
        /// Connections are never made.
        vanish: AtomicBool,
        /// Which of the next questions are never answered: the lowest bit is the first.
        deaf: AtomicUsize,
    }

    fn network(world: &Arc<World>) -> Network {
        let [name, door, pulse] = [0; 3].map(|_| Arc::clone(world));
        Network {
            resolve: Box::new(move |_, _| {
                name.lookups.fetch_add(1, Ordering::SeqCst);
                let ports = lock(&name.ports).clone().ok_or_else(|| io::Error::other("no such name"));
                let addrs = ports.map(|ports| ports.into_iter().map(|port| ([127, 0, 0, 1], port).into()).collect());
                async move { addrs }.boxed()
            }),
            connect: Box::new(move |_, url| {
                door.tries.fetch_add(1, Ordering::SeqCst);
                if door.vanish.load(Ordering::SeqCst) {
                    return std::future::pending().boxed();
                }
                let reached = door.reached.load(Ordering::SeqCst);
                async move { if reached { Ok(Endpoint::from(url).connect_lazy()) } else { Err("refused".into()) } }
                    .boxed()
            }),
            ask: Box::new(move |_| {
                let deaf = pulse.deaf.load(Ordering::SeqCst);
                pulse.deaf.store(deaf >> 1, Ordering::SeqCst);
                if deaf & 1 == 1 {
                    return std::future::pending().boxed();
                }
                let alive = pulse.alive.load(Ordering::SeqCst);
                async move { if alive { Ok(()) } else { Err("silent".into()) } }.boxed()
            }),
        }
    }

    /// A peer behind this URL, where all is well.
    fn peer(url: &str) -> (Arc<ManualEnvironment>, Arc<World>, Arc<Addresses>) {
        let (clock, world) = (ManualEnvironment::new(1), Arc::new(World::default()));
        world.reached.store(true, Ordering::SeqCst);
        world.alive.store(true, Ordering::SeqCst);
        let (urls, metrics) = ([url.parse().expect("a URL")], RpcClientMetrics::default().of("peer"));
        let addresses = Addresses::new("peer", &urls, clock.clone(), metrics, network(&world));
        (clock, world, addresses)
    }

    /// The ports of the addresses that calls go to.
    async fn asked(addresses: &Arc<Addresses>) -> Vec<u16> {
        let mut made = Vec::new();
        let mut ports = Vec::new();
        while let Ok(next) = addresses.next(&made).await {
            ports.push(next.address.addr.port());
            made.push(next);
            settled(addresses).await;
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Waits for the end of all tries.
    async fn settled(addresses: &Addresses) {
        while addresses.list().iter().any(|address| address.is_trying()) {
            tokio::task::yield_now().await;
        }
    }

    const STEP_MS: u64 = 10;

    /// Lets time pass while tasks run.
    async fn tick(clock: &ManualEnvironment, ms: u64) {
        for _ in 0..ms / STEP_MS {
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            clock.advance(Duration::from_millis(STEP_MS));
        }
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_again_and_what_they_stood_for_is_kept_over_a_failure() {
        let (clock, world, addresses) = peer("http://peer:9");
        *lock(&world.ports) = Some(vec![1, 2]);
        assert_eq!(asked(&addresses).await, [1, 2]);
        let kept = addresses.list()[0].clone();

        *lock(&world.ports) = Some(vec![1, 3]);
        assert_eq!(asked(&addresses).await, [1, 2], "not yet");
        let gone = addresses.list()[1].any().expect("connected");
        clock.advance(Duration::from_millis(RESOLVE_INTERVAL_MS));
        let next = || addresses.next(&[]);
        drop(tokio::join!(next(), next(), next()));
        while asked(&addresses).await != [1, 3] {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.lookups.load(Ordering::SeqCst), 2, "one for all callers");
        assert!(Arc::ptr_eq(&kept, &addresses.list()[0]), "its connection is kept");
        assert_eq!(Arc::strong_count(&gone), 1, "that of an address that is gone is not");

        *lock(&world.ports) = None;
        clock.advance(Duration::from_millis(RESOLVE_INTERVAL_MS));
        asked(&addresses).await;
        while lock(&addresses.known).stale_at <= Some(clock.uptime()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked(&addresses).await, [1, 3]);
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_reached_is_tried_once_for_all_callers_and_ever_less_often() {
        let (clock, world, addresses) = peer("http://127.0.0.1:9");
        world.reached.store(false, Ordering::SeqCst);
        for tries in 1..20 {
            let (one, other) = tokio::join!(addresses.next(&[]), addresses.next(&[]));
            let whys = [one.err(), other.err()].map(|why| why.expect("not reached"));
            assert_eq!(whys, ["127.0.0.1:9: refused"; 2]);
            assert!(addresses.next(&[]).await.is_err(), "at once");
            assert_eq!(world.tries.load(Ordering::SeqCst), tries, "callers wait for one try");
            let pause = LEFT_ALONE_MAX_MS.min(LEFT_ALONE_MIN_MS << (tries - 1).min(10));
            clock.advance(Duration::from_millis(pause / 2 - 1));
            assert!(addresses.next(&[]).await.is_err());
            assert_eq!(world.tries.load(Ordering::SeqCst), tries, "left alone");
            clock.advance(Duration::from_millis(pause / 2 + 1));
        }
        // Reached, it has to show that it lives.
        world.reached.store(true, Ordering::SeqCst);
        world.alive.store(false, Ordering::SeqCst);
        assert_eq!(addresses.next(&[]).await.err().as_deref(), Some("127.0.0.1:9: silent"));
        world.alive.store(true, Ordering::SeqCst);
        clock.advance(Duration::from_millis(LEFT_ALONE_MAX_MS));
        assert!(addresses.next(&[]).await.is_ok());
    }

    #[tokio::test]
    async fn a_connection_in_doubt_is_used_by_nobody_who_has_another_until_it_shows_a_sign_of_life() {
        let (clock, world, addresses) = peer("http://peer:9");
        *lock(&world.ports) = Some(vec![1, 2]);
        assert_eq!(asked(&addresses).await, [1, 2]);
        let slow = addresses.next(&[]).await.expect("connected");
        let later = || clock.advance(Duration::from_millis(VOUCHED_MS));
        later();
        slow.doubt();
        assert!(slow.address.good().is_none());
        settled(&addresses).await;
        let same = slow.address.good().expect("it lives");
        assert!(Arc::ptr_eq(&same, &slow.connection));

        slow.doubt();
        assert!(slow.address.good().is_some(), "it gave a sign of life a moment ago");

        world.alive.store(false, Ordering::SeqCst);
        later();
        slow.doubt();
        settled(&addresses).await;
        for _ in 0..8 {
            let next = addresses.next(&[]).await.expect("the other is there");
            assert!(!Arc::ptr_eq(&next.address, &slow.address));
        }
        assert!(slow.is_silent());
        // A new connection takes its place.
        world.alive.store(true, Ordering::SeqCst);
        clock.advance(Duration::from_millis(LEFT_ALONE_MAX_MS));
        slow.address.try_if_due();
        settled(&addresses).await;
        let new = slow.address.good().expect("connected");
        assert!(!Arc::ptr_eq(&new, &slow.connection));
        slow.lost();
        assert!(slow.address.good().is_some(), "the end of the old one says nothing of it");

        // Better than none, and an answer is a sign of life.
        let (one, other) = (addresses.next(&[]).await.expect("good"), addresses.next(&[]).await.expect("good"));
        later();
        one.doubt();
        other.doubt();
        let last = addresses.next(&[]).await.expect("a last resort");
        assert!(last.address.good().is_none());
        last.answered();
        assert!(last.address.good().is_some());
    }

    #[tokio::test]
    async fn nobody_waits_for_one_try_after_the_other() {
        let (clock, world, addresses) = peer("http://peer:9");
        *lock(&world.ports) = Some(vec![1, 2]);
        addresses.refresh().await;
        world.vanish.store(true, Ordering::SeqCst);
        addresses.list()[0].try_if_due();
        tick(&clock, TRY_TIMEOUT_MS / 2).await;
        // The two tries overlap, and so would those after them.
        let mut caller = Box::pin(addresses.next(&[]));
        assert!((&mut caller).now_or_never().is_none(), "it waits");
        tick(&clock, TRY_TIMEOUT_MS - STEP_MS).await;
        assert!((&mut caller).now_or_never().is_none(), "a try has its time");
        tick(&clock, 2 * STEP_MS).await;
        let why = caller.now_or_never().expect("it waits no longer").err().expect("not reached");
        assert!(why.starts_with("127.0.0.1:1: no sign of life"), "{why}");
    }

    #[tokio::test]
    async fn a_connection_in_whose_place_there_is_a_new_one_is_silent_unless_it_answers_within_the_try() {
        // The first question goes over the old one, the second over the new one, the third over the old one.
        for (deaf, silent) in [(0b101, true), (0b001, false)] {
            let (clock, world, addresses) = peer("http://127.0.0.1:9");
            let old = addresses.next(&[]).await.expect("connected");
            world.deaf.store(deaf, Ordering::SeqCst);
            clock.advance(Duration::from_millis(VOUCHED_MS));
            old.doubt();
            tick(&clock, HEAD_START_MS).await;
            let new = old.address.good().expect("connected");
            assert!(!Arc::ptr_eq(&new, &old.connection));
            assert!(!old.is_silent(), "it has time");
            tick(&clock, TRY_TIMEOUT_MS).await;
            assert_eq!(old.is_silent(), silent);
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_is_made_again_at_once_but_not_again_and_again() {
        let (clock, world, addresses) = peer("http://127.0.0.1:9");
        let next = async || addresses.next(&[]).await;
        next().await.expect("connected").lost();
        next().await.expect("at once").lost();
        assert!(next().await.is_err(), "twice without an answer");
        clock.advance(Duration::from_millis(LEFT_ALONE_MAX_MS));
        let third = next().await.expect("in time");
        third.answered();
        third.lost();
        next().await.expect("at once again");
        assert_eq!(world.tries.load(Ordering::SeqCst), 4);
    }
}
