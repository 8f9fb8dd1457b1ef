//! Ten thousand clients that do nothing, and two thousand that never stop: what they cost an edge and the all-in-one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use system_tests::{
    System,
    frames::{Http2, SETTINGS},
    gateway::Edge,
    raw,
    system::memory_mib,
};
use tokio::net::TcpStream;

use crate::{
    honest::{self, Waits},
    say,
};

/// Idle connections: of HTTP/2, which have said hello. HTTP/1 closes an idle one after 10 s, and there would be no crowd.
const IDLE: usize = 10_000;
/// Half of them order, half read pages of orders.
const BUSY: usize = 2_000;
const BUSY_TIME: Duration = Duration::from_secs(4);
/// How long honest clients are watched.
const HONEST_TIME: Duration = Duration::from_millis(1_500);
/// Clients that connect at a time.
const CONNECTING: usize = 64;

/// What an idle connection may cost: its task, and hyper's first buffers.
const IDLE_KIB_MAX: u64 = 32;
/// What the process may have in memory at most, whatever it was for.
const PEAK_MIB_MAX: u64 = 512;
/// What an honest client has to put up with beside a crowd that is idle, on a machine that is busy with other tests.
const BESIDE_IDLE_MEDIAN_MAX_MS: u128 = 500;

/// A running server: where, and which process.
struct Host {
    name: &'static str,
    addr: SocketAddr,
    process: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_and_two_thousand_busy_connections_cost_no_more_than_is_said() {
    let system = System::start(&[("RUST_LOG", "error"), ("DEFAULT_STOCK", "1000000")]).await;
    let edge = Edge::start(&system).await;
    let files = service::open_files::limit();
    assert!(files > IDLE + 1_000, "{files} open files are too few for this test: raise `ulimit -Hn`");
    let edge = Host { name: "edge", addr: edge.addr(), process: edge.process() };
    let standalone = Host { name: "standalone", addr: system.addr("HTTP"), process: system.process() };
    for host in [&edge, &standalone] {
        let alone = honest::clients(host.addr, HONEST_TIME).await;
        idle(host, &alone).await;
    }
    for host in [&edge, &standalone] {
        busy(host).await;
    }
}

async fn idle(host: &Host, alone: &Waits) {
    let before = memory_mib(host.process, "VmRSS");
    let crowd: Vec<_> = stream::iter(0..IDLE).map(|_| greeted(host.addr)).buffer_unordered(CONNECTING).collect().await;
    let waits = honest::clients(host.addr, HONEST_TIME).await;
    let after = memory_mib(host.process, "VmRSS");
    let each = after.saturating_sub(before) * 1024 / IDLE as u64;
    say(&format!("{}: 10,000 idle: {before} MiB grew to {after} MiB, {each} KiB each", host.name));
    for percent in [50, 99] {
        let (beside, alone) = (waits.percentile(percent), alone.percentile(percent));
        say(&format!("  p{percent} of honest clients: {beside} ms, alone {alone} ms"));
    }
    let open = crowd.iter().filter(|connection| is_open(&connection.0)).count();
    assert_eq!(open, IDLE, "all are still there");
    assert!(each <= IDLE_KIB_MAX, "{each} KiB each");
    assert!(waits.percentile(50) <= BESIDE_IDLE_MEDIAN_MAX_MS, "{waits:?}");
}

async fn greeted(addr: SocketAddr) -> Http2 {
    let mut connection = Http2::connect(addr, &[]).await;
    assert_eq!(connection.read().await.expect("it is greeted").kind, SETTINGS);
    connection
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    loop {
        match stream.try_read(&mut byte) {
            Ok(0) => return false,
            // What it had to say besides.
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

async fn busy(host: &Host) {
    let before = memory_mib(host.process, "VmRSS");
    let end = Instant::now() + BUSY_TIME;
    let clients = join_all((0..BUSY).map(|n| never_stops(host.addr, n % 2 == 0, end)));
    let (all, waits) = futures::join!(clients, honest::clients(host.addr, BUSY_TIME));
    let mut statuses = BTreeMap::new();
    for status in all.into_iter().flatten() {
        *statuses.entry(status).or_insert(0) += 1;
    }
    let peak = memory_mib(host.process, "VmHWM");
    say(&format!("{}: 2,000 busy: {before} MiB grew to at most {peak} MiB; answers {statuses:?}", host.name));
    say(&format!("  honest clients: p50 {} ms, p99 {} ms", waits.percentile(50), waits.percentile(99)));
    assert!(statuses.keys().all(|status| [200, 201, 503, 504].contains(status)), "{statuses:?}");
    assert!(statuses.contains_key(&200) && statuses.contains_key(&201), "{statuses:?}");
    assert!(peak <= PEAK_MIB_MAX, "{before} MiB grew to {peak} MiB");
}

/// Asks again as soon as it is answered, and answers the statuses.
async fn never_stops(addr: SocketAddr, orders: bool, end: Instant) -> Vec<u16> {
    let request = if orders {
        raw::post_json("/orders", br#"{"item":"busy","quantity":1}"#)
    } else {
        raw::get("/orders?limit=500", "", b"")
    };
    let (mut stream, mut statuses) = (raw::connect(addr).await, Vec::new());
    while Instant::now() < end {
        raw::write(&mut stream, &request).await;
        statuses.push(raw::read(&mut stream).await.expect("an answer").status.as_u16());
    }
    statuses
}
