//! A peer whose packets vanish: what it costs those who call it, and that it is used again once they arrive. The test runs
//! in a network of its own, which ends with it; that takes root, or sudo without a password.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use contracts::values::Token;
use prometheus_client::registry::Registry;
use service::{
    call::Call,
    environment::{Env, RealEnvironment},
    health::serving,
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{LEFT_ALONE_MAX_MS, PATIENCE_MS, Peer, RpcClientMetrics, TRY_TIMEOUT_MS},
    server::{Limits, Listener, serve},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Set for the run inside.
const INSIDE: &str = "BLACK_HOLE_INSIDE";
/// Nobody waits longer, whatever vanishes.
const COST_MAX: Duration = Duration::from_secs(2);
/// For two cores that others use too.
const SLACK: Duration = Duration::from_millis(500);
/// The hole is found out within this.
const DISCOVERY: Duration = Duration::from_millis(PATIENCE_MS + TRY_TIMEOUT_MS);
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_mins(1);

const NEAR: &str = "127.0.0.2";
const FAR: &str = "127.0.0.3";

#[test]
fn a_peer_whose_packets_vanish_costs_two_seconds_at_most_and_is_used_again_when_they_arrive() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let work = async { tokio::time::timeout(LIMIT, inside()).await.expect("in time") };
        return runtime.expect("a runtime").block_on(work);
    }
    let mut command = Command::new("sudo");
    if rustix::process::geteuid().is_root() {
        command = Command::new("env");
    } else {
        command.args(["--non-interactive", "env"]);
    }
    // All that is set up inside ends with the last process there.
    command.arg(format!("{INSIDE}=1")).args(["unshare", "--net"]).arg(std::env::current_exe().expect("this program"));
    let name = std::thread::current().name().expect("the test's name").to_owned();
    let status = command.args(["--exact", &name, "--nocapture"]).stdin(Stdio::null()).status();
    let status = status.expect("sudo and unshare, of util-linux, run");
    assert!(status.success(), "{status}: see above; it takes root, or sudo without a password");
}

/// Runs `ip` or `iptables` in this network.
fn run(line: &str) {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    let output = output.unwrap_or_else(|e| panic!("{line}: {e}: run `just servers`"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// From now on whatever goes there or comes from there vanishes.
fn vanish(host: &str) {
    run(&format!("iptables -A INPUT -s {host} -j DROP"));
    run(&format!("iptables -A INPUT -d {host} -j DROP"));
}

fn arrive(host: &str) {
    run(&format!("iptables -D INPUT -s {host} -j DROP"));
    run(&format!("iptables -D INPUT -d {host} -j DROP"));
}

async fn inside() {
    // Else it would be the machine's own network.
    run("iptables -P FORWARD DROP");
    run("ip link set lo up");
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let near = server(&env, NEAR).await;
    let far = server(&env, FAR).await;

    // Connections that are there.
    let load = Load::start(&env, &[near, far]);
    load.since(Instant::now(), Duration::from_secs(1)).await.all_answered().hardly_any_slow();
    for _ in 0..2 {
        vanish(NEAR);
        let gone = Instant::now();
        load.since(gone, Duration::from_secs(4)).await.all_answered().after(gone + DISCOVERY).hardly_any_slow();
        assert_eq!(load.down(), 1);
        arrive(NEAR);
        let back = Instant::now();
        while load.down() != 0 {
            let limit = Duration::from_millis(LEFT_ALONE_MAX_MS + TRY_TIMEOUT_MS) + SLACK;
            assert!(back.elapsed() < limit, "it is not used again after {:?}", back.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        load.since(back, Duration::from_secs(1)).await.all_answered().hardly_any_slow();
    }
    load.stop().await;

    // Connections that are still to be made.
    vanish(NEAR);
    let load = Load::start(&env, &[near, far]);
    load.since(Instant::now(), Duration::from_secs(3)).await.all_answered().hardly_any_slow();
    assert_eq!(load.down(), 1);
    arrive(NEAR);
    load.stop().await;

    // There is no other address: a call fails, but not late.
    let load = Load::start(&env, &[near]);
    load.since(Instant::now(), Duration::from_secs(1)).await.all_answered();
    vanish(NEAR);
    load.since(Instant::now(), Duration::from_secs(5)).await.none_late();
    arrive(NEAR);
    let back = Instant::now();
    load.answer_after(back).await;
    assert!(back.elapsed() < COST_MAX + SLACK, "the first answer came after {:?}", back.elapsed());
    load.stop().await;

    // There are two, and both are gone.
    let load = Load::start(&env, &[near, far]);
    load.since(Instant::now(), Duration::from_secs(1)).await.all_answered();
    vanish(NEAR);
    vanish(FAR);
    load.since(Instant::now(), Duration::from_secs(6)).await.none_late();
    arrive(NEAR);
    arrive(FAR);
    let back = Instant::now();
    load.answer_after(back).await;
    assert!(back.elapsed() < COST_MAX + SLACK, "the first answer came after {:?}", back.elapsed());
    load.stop().await;
}

async fn server(env: &Env, host: &str) -> SocketAddr {
    let addr = SocketAddr::new(host.parse().expect("an address"), 0);
    let listener = Listener::bind(addr).await.expect("a free port");
    let (addr, metrics) = (listener.addr(), RpcMetrics::register(&mut Registry::default()));
    let rpc = RpcServer::new(Arc::clone(env), metrics, contracts::DESCRIPTORS);
    rpc.health().say("", true);
    let never = CancellationToken::new();
    tokio::spawn(serve(listener, rpc.router(), Limits::internal(), Arc::clone(env), never));
    addr
}

/// When a call was made, how long it took, and whether it was answered.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    took: Duration,
    answered: bool,
}

/// Callers without end.
struct Load {
    stopped: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Since when each caller waits.
    waiting: Arc<Mutex<[Option<Instant>; CALLERS]>>,
    callers: Vec<tokio::task::JoinHandle<()>>,
    registry: Registry,
}

impl Load {
    fn start(env: &Env, addrs: &[SocketAddr]) -> Self {
        let mut registry = Registry::default();
        let metrics = RpcClientMetrics::register(&mut registry);
        let urls: Vec<http::Uri> = addrs.iter().map(|addr| format!("http://{addr}").parse().expect("a URL")).collect();
        let peer = Peer::new("peer", &urls, Arc::clone(env), &metrics).expect("URLs");
        let (stopped, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let waiting = Arc::new(Mutex::new([None; CALLERS]));
        let caller = |number: usize| {
            let (env, peer, stopped, asked) = (Arc::clone(env), peer.clone(), Arc::clone(&stopped), Arc::clone(&asked));
            let waiting = Arc::clone(&waiting);
            tokio::spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    let at = Instant::now();
                    waiting.lock().expect("whole")[number] = Some(at);
                    let call = Call::new(&*env, Duration::from_secs(5), Token::parse("test").expect("sane"));
                    let answered = serving(&peer, &call, "").await;
                    asked.lock().expect("whole").push(Asked { at, took: at.elapsed(), answered });
                    waiting.lock().expect("whole")[number] = None;
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        let callers = (0..CALLERS).map(caller).collect();
        Self { stopped, asked, waiting, callers, registry }
    }

    /// The calls made since then for a while, once the last of them has ended.
    async fn since(&self, from: Instant, during: Duration) -> Calls {
        let end = from + during;
        tokio::time::sleep_until(end.into()).await;
        while self.waiting.lock().expect("whole").iter().flatten().any(|at| *at < end) {
            tokio::time::sleep(PAUSE).await;
        }
        let asked = self.asked.lock().expect("whole");
        Calls(asked.iter().filter(|one| one.at >= from && one.at < end).copied().collect())
    }

    async fn answer_after(&self, from: Instant) {
        while !self.asked.lock().expect("whole").iter().any(|one| one.at >= from && one.answered) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How many addresses are left alone.
    fn down(&self) -> u32 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encodes");
        let value = text.lines().find_map(|line| line.strip_prefix("rpc_client_addresses_down{peer=\"peer\"} "));
        value.expect("counted").parse().expect("a number")
    }

    async fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("no panic");
        }
    }
}

#[derive(Debug)]
struct Calls(Vec<Asked>);

impl Calls {
    #[track_caller]
    fn all_answered(self) -> Self {
        let failed: Vec<_> = self.0.iter().filter(|one| !one.answered).collect();
        assert!(failed.is_empty(), "{failed:?}");
        self.none_late()
    }

    #[track_caller]
    #[expect(clippy::print_stdout, reason = "the test runner shows it")]
    fn none_late(self) -> Self {
        assert!(self.0.len() > CALLERS, "there is no load");
        let late = self.0.iter().map(|one| one.took).max().expect("some");
        println!("{} calls, slowest {late:.0?}", self.0.len());
        assert!(late <= COST_MAX + SLACK, "a call took {late:?}");
        self
    }

    fn after(self, from: Instant) -> Self {
        Self(self.0.into_iter().filter(|one| one.at >= from).collect())
    }

    #[track_caller]
    fn hardly_any_slow(&self) {
        // Else it would be every other one. A machine that stands still for a moment makes some slow, too.
        let slow = self.0.iter().filter(|one| one.took >= Duration::from_millis(PATIENCE_MS)).count();
        assert!(slow * 20 <= self.0.len(), "{slow} of {} were slow", self.0.len());
    }
}
