//! Each mode of a link, between a client and a server of the test's own.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use chaos::proxy::{Direction, Link, Mode};
use servers::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Nothing that is waited for takes longer, or the test fails.
const LIMIT: Duration = Duration::from_secs(10);
/// So long nothing comes where nothing shall come.
const SILENCE: Duration = Duration::from_millis(200);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.expect("in time")
}

/// A server, and a link to it.
async fn link() -> (Link, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let link = Link::start("client", "server", server.local_addr().expect("bound")).await;
    (link, server)
}

/// Both ends of a new connection over the link.
async fn connected(link: &Link, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = in_time(TcpStream::connect(link.addr())).await.expect("it connects");
    let (far, _) = in_time(server.accept()).await.expect("it arrives");
    (client, far)
}

async fn arrives(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).await.expect("written");
    let mut got = vec![0; text.len()];
    in_time(to.read_exact(&mut got)).await.expect("read");
    assert_eq!(String::from_utf8_lossy(&got), text);
}

async fn is_silent(stream: &mut TcpStream) {
    let read = timeout(SILENCE, stream.read_u8()).await;
    assert!(read.is_err(), "nothing comes, not even an end: {read:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let read = in_time(stream.read_u8()).await;
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_link_passes_both_ways_and_each_end_by_itself() {
    let (link, server) = link().await;
    let (mut client, mut far) = connected(&link, &server).await;
    arrives(&mut client, &mut far, "question").await;
    arrives(&mut far, &mut client, "answer").await;
    client.shutdown().await.expect("shut down");
    assert_eq!(in_time(far.read(&mut [0])).await.expect("its end"), 0);
    arrives(&mut far, &mut client, "late answer").await;
    drop(far);
    assert_eq!(in_time(client.read(&mut [0])).await.expect("its end"), 0);
}

#[tokio::test]
async fn a_slow_link_delays_every_byte_keeps_their_order_and_is_no_narrower() {
    let (link, server) = link().await;
    let (mut client, mut far) = connected(&link, &server).await;
    let least = Duration::from_millis(150);
    link.set(Mode::Delay { least, jitter: Duration::from_millis(50) });
    let since = Instant::now();
    let sent: Vec<u8> = (0..=255).cycle().take(400_000).collect();
    let mut got = vec![0; sent.len()];
    let (written, read) = in_time(async { tokio::join!(client.write_all(&sent), far.read_exact(&mut got)) }).await;
    written.expect("written");
    read.expect("read");
    assert!(got == sent, "in another order");
    let took = since.elapsed();
    // Chunk after chunk it would be some seconds.
    assert!(took >= least && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_reset_ends_both_sides_and_new_connections_pass() {
    let (link, server) = link().await;
    let (mut client, mut far) = connected(&link, &server).await;
    arrives(&mut client, &mut far, "before").await;
    link.reset();
    is_reset(&mut client).await;
    is_reset(&mut far).await;
    let (mut client, mut far) = connected(&link, &server).await;
    arrives(&mut client, &mut far, "after").await;
}

#[tokio::test]
async fn a_black_hole_accepts_and_swallows_and_resets_what_it_has_swallowed_from() {
    let (link, server) = link().await;
    let (mut client, mut far) = connected(&link, &server).await;
    let (mut idle, mut far_idle) = connected(&link, &server).await;
    link.set(Mode::BlackHole);
    let mut newcomer = in_time(TcpStream::connect(link.addr())).await.expect("it is accepted");
    for stream in [&mut client, &mut far, &mut newcomer] {
        stream.write_all(b"lost").await.expect("written");
    }
    for stream in [&mut client, &mut far, &mut newcomer] {
        is_silent(stream).await;
    }
    link.set(Mode::Pass);
    for stream in [&mut client, &mut far, &mut newcomer] {
        is_reset(stream).await;
    }
    arrives(&mut idle, &mut far_idle, "nothing of this was lost").await;
}

#[tokio::test]
async fn nobody_hears_of_an_end_through_a_black_hole() {
    let (link, server) = link().await;
    let (client, mut far) = connected(&link, &server).await;
    link.set(Mode::BlackHole);
    drop(client);
    is_silent(&mut far).await;
    link.set(Mode::Pass);
    is_reset(&mut far).await;
}

#[tokio::test]
async fn a_half_open_link_is_silent_one_way_and_passes_the_other() {
    let (link, server) = link().await;
    let (mut client, mut far) = connected(&link, &server).await;
    link.set(Mode::Silent(Direction::ToClient));
    arrives(&mut client, &mut far, "heard").await;
    far.write_all(b"not heard").await.expect("written");
    is_silent(&mut client).await;
    link.set(Mode::Pass);
    is_reset(&mut client).await;

    let (mut client, mut far) = connected(&link, &server).await;
    link.set(Mode::Silent(Direction::ToServer));
    arrives(&mut far, &mut client, "heard").await;
    client.write_all(b"not heard").await.expect("written");
    is_silent(&mut far).await;
}

#[tokio::test]
async fn a_connection_is_cut_after_exactly_so_many_bytes() {
    let (link, server) = link().await;
    let (mut client, mut far) = connected(&link, &server).await;
    arrives(&mut client, &mut far, "these do not count").await;
    link.set(Mode::CutAfter(8));
    arrives(&mut far, &mut client, "five5").await;
    client.write_all(b"abc and more").await.expect("written");
    let mut got = [0; 3];
    in_time(far.read_exact(&mut got)).await.expect("read");
    assert_eq!(&got, b"abc");
    is_reset(&mut far).await;
    is_reset(&mut client).await;
}

#[tokio::test]
async fn a_link_that_refuses_or_whose_server_is_dead_is_nobody_and_comes_back() {
    let (link, server) = link().await;
    for dead in [false, true] {
        let refuse = |refuse: bool| {
            if dead {
                link.set_dead(refuse);
            } else {
                link.set(if refuse { Mode::Refuse } else { Mode::Pass });
            }
        };
        let (mut client, mut far) = connected(&link, &server).await;
        refuse(true);
        is_reset(&mut client).await;
        is_reset(&mut far).await;
        let refused = async || match TcpStream::connect(link.addr()).await {
            // The listener goes a moment later.
            Ok(_) => None,
            Err(error) => Some(error.kind()),
        };
        assert_eq!(eventually(LIMIT, "nobody listens", refused).await, ErrorKind::ConnectionRefused);
        refuse(false);
        let again = async || TcpStream::connect(link.addr()).await.ok();
        let mut client = eventually(LIMIT, "somebody listens", again).await;
        let (mut far, _) = in_time(server.accept()).await.expect("it arrives");
        arrives(&mut client, &mut far, "back").await;
    }
}

#[tokio::test]
async fn a_link_that_is_pointed_elsewhere_leads_there() {
    let (link, old) = link().await;
    let (mut client, mut far) = connected(&link, &old).await;
    let new = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    link.point_at(new.local_addr().expect("bound"));
    is_reset(&mut client).await;
    is_reset(&mut far).await;
    let (mut client, mut far) = connected(&link, &new).await;
    arrives(&mut client, &mut far, "to the new one").await;
    drop(new);
    let mut client = in_time(TcpStream::connect(link.addr())).await.expect("the link listens");
    is_reset(&mut client).await;
}
