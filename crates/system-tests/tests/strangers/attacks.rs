//! Clients that mean harm, against the running all-in-one. While each goes on, honest clients are served, and the process
//! stays small.

use std::{net::SocketAddr, time::Duration};

use futures::future::{BoxFuture, join_all};
use system_tests::{
    System,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW, PING, PRIORITY, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, block, frame, head, request,
    },
    raw,
    system::memory_mib,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::honest;

/// How long each attack goes on.
const ATTACK: Duration = Duration::from_secs(1);
/// Clients that attack at a time.
const ATTACKERS: usize = 8;
/// What an honest client has to put up with meanwhile, on a machine that is busy with other tests.
const HONEST_MEDIAN_MAX_MS: u128 = 2_000;
/// What all attacks together may make the process grow by. Unread answers alone may be 64 MiB.
const GROWTH_MAX_MIB: u64 = 192;

const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const JSON: (&str, &str) = ("content-type", "application/json");

/// One attacker's life on one connection; it ends when the server closes it.
type Attack = fn(TcpStream) -> BoxFuture<'static, ()>;

/// Sends the start of HTTP/2, then what `next` makes of each number until the other side closes.
fn flood(
    stream: TcpStream,
    settings: &'static [(u16, u32)],
    mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut connection = Http2(stream);
        let mut goes_on = connection.greet(settings).await;
        let mut number = 0;
        while goes_on && number < 1 << 29 {
            goes_on = connection.send(&next(number)).await;
            number += 1;
            tokio::task::yield_now().await;
        }
    })
}

fn stream_id(number: u32) -> u32 {
    number * 2 + 1
}

fn rapid_reset(stream: TcpStream) -> BoxFuture<'static, ()> {
    flood(stream, &[], |n| {
        let id = stream_id(n);
        [request(id, "GET", "/orders?limit=500"), frame(RST_STREAM, 0, id, &CANCEL)].concat()
    })
}

/// Each is begun before it is reset.
fn slow_rapid_reset(stream: TcpStream) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut connection = Http2(stream);
        connection.greet(&[]).await;
        for n in 0.. {
            let order = br#"{"item":"reset","quantity":1}"#;
            let id = stream_id(n);
            let begun = [head(id, 0, "POST", "/orders", &[JSON]), frame(DATA, END_STREAM, id, order)].concat();
            connection.send(&begun).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            if !connection.send(&frame(RST_STREAM, 0, id, &CANCEL)).await {
                return;
            }
        }
    })
}

fn continuations(stream: TcpStream) -> BoxFuture<'static, ()> {
    flood(stream, &[], |n| match n {
        0 => frame(HEADERS, END_STREAM, 1, &block("GET", "/orders", &[])),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(100),
    })
}

fn long_heads(stream: TcpStream) -> BoxFuture<'static, ()> {
    let long = "x".repeat(8 * 1024);
    flood(stream, &[], move |n| {
        let whole = block("GET", "/orders", &[("x-long", long.as_str()); 12]);
        let (first, rest) = whole.split_at(16_000);
        let id = stream_id(n);
        let mut frames = frame(HEADERS, END_STREAM, id, first);
        let parts: Vec<_> = rest.chunks(16_000).collect();
        for (index, part) in parts.iter().enumerate() {
            let flags = if index + 1 == parts.len() { END_HEADERS } else { 0 };
            frames.extend(frame(CONTINUATION, flags, id, part));
        }
        frames
    })
}

/// A header of 4 KB is put into the table once, and then named by its number ten thousand times.
fn header_bomb(stream: TcpStream) -> BoxFuture<'static, ()> {
    flood(stream, &[], |n| {
        let mut fields = block("GET", "/orders", &[]);
        // With incremental indexing: the name `x`, a value of 3,967 + 127 bytes is more than fits, so somewhat less.
        fields.extend([0x40, 1, b'x', 127, 0x81, 0x1e]);
        fields.extend([b'y'; 127 + 3_841]);
        fields.extend([0xbe; 10_000]);
        frame(HEADERS, END_STREAM | END_HEADERS, stream_id(n), &fields)
    })
}

fn settings_and_pings(stream: TcpStream) -> BoxFuture<'static, ()> {
    flood(stream, &[], |_| [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[0; 8])].concat().repeat(100))
}

fn priorities_and_windows(stream: TcpStream) -> BoxFuture<'static, ()> {
    flood(stream, &[], |n| {
        let (id, window) = (stream_id(n), 1_u32.to_be_bytes());
        [frame(PRIORITY, 0, id, &[0, 0, 0, 0, 1]), frame(WINDOW_UPDATE, 0, 0, &window)].concat().repeat(50)
    })
}

fn shut_windows(stream: TcpStream) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut connection = Http2(stream);
        connection.greet(&[(INITIAL_WINDOW, 0)]).await;
        for n in 0..128 {
            connection.send(&request(stream_id(n), "GET", "/orders?limit=500")).await;
        }
        connection.read_to_end().await;
    })
}

fn tiny_data(stream: TcpStream) -> BoxFuture<'static, ()> {
    flood(stream, &[], |n| match n {
        0 => head(1, 0, "POST", "/orders", &[JSON]),
        _ => [frame(DATA, 0, 1, b" "), frame(DATA, 0, 1, b"")].concat().repeat(20),
    })
}

/// 128 bodies. Of 17 clients they are more than an edge reads at a time, which are 2,048: the oldest have to make room.
fn slow_bodies(stream: TcpStream) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut connection = Http2(stream);
        connection.greet(&[]).await;
        let heads: Vec<_> = (0..128).map(|n| head(stream_id(n), 0, "POST", "/orders", &[JSON])).collect();
        connection.send(&heads.concat()).await;
        for n in (0..128).cycle() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if !connection.send(&frame(DATA, 0, stream_id(n), b" ")).await {
                return;
            }
        }
    })
}

fn many_headers(stream: TcpStream) -> BoxFuture<'static, ()> {
    endless(stream, b"GET /orders HTTP/1.1\r\nHost: orders\r\n", b"X-A: b\r\n")
}

fn endless_header(stream: TcpStream) -> BoxFuture<'static, ()> {
    endless(
        stream,
        b"GET /orders HTTP/1.1\r\nHost: orders\r\nX-Long: ",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    )
}

fn endless_chunk_extension(stream: TcpStream) -> BoxFuture<'static, ()> {
    const HEAD: &[u8] = b"POST /orders HTTP/1.1\r\nHost: orders\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n1;";
    endless(stream, HEAD, b"extension=absurd;")
}

/// Nobody reads the answers.
fn pipeline(stream: TcpStream) -> BoxFuture<'static, ()> {
    endless(stream, b"", b"GET /orders?limit=500 HTTP/1.1\r\nHost: orders\r\n\r\n")
}

fn endless(mut stream: TcpStream, start: &'static [u8], part: &'static [u8]) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let parts = part.repeat(100);
        let mut sent = stream.write_all(start).await;
        while sent.is_ok() {
            sent = stream.write_all(&parts).await;
            tokio::task::yield_now().await;
        }
    })
}

fn slow_head(mut stream: TcpStream) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        while stream.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

const ATTACKS: [(&str, Attack, usize); 15] = [
    ("streams that are reset at once", rapid_reset, ATTACKERS),
    ("streams that are reset once they are begun", slow_rapid_reset, ATTACKERS),
    ("heads without an end", continuations, ATTACKERS),
    ("heads that are too long", long_heads, ATTACKERS),
    ("heads that are too long once they are unpacked", header_bomb, ATTACKERS),
    ("settings and pings", settings_and_pings, ATTACKERS),
    ("priorities and windows", priorities_and_windows, ATTACKERS),
    ("windows that are shut", shut_windows, 16),
    ("tiny pieces of a body", tiny_data, ATTACKERS),
    ("slow bodies", slow_bodies, 17),
    ("many headers", many_headers, ATTACKERS),
    ("a header without an end", endless_header, ATTACKERS),
    ("a chunk extension without an end", endless_chunk_extension, ATTACKERS),
    ("requests whose answers nobody reads", pipeline, ATTACKERS),
    ("slow heads", slow_head, 300),
];

/// Comes back whenever it is cut off, but not without a breath: loopback has as many connections as it has ports.
async fn again_and_again(addr: SocketAddr, attack: Attack) {
    loop {
        if let Ok(stream) = TcpStream::connect(addr).await {
            attack(stream).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_attacks_honest_clients_are_served_and_the_process_stays_small() {
    let system = System::start(&[("RUST_LOG", "error"), ("DEFAULT_STOCK", "1000000")]).await;
    let addr = system.addr("HTTP");
    // A full page of orders.
    let mut stream = raw::connect(addr).await;
    for _ in 0..500 {
        raw::write(&mut stream, &raw::post_json("/orders", br#"{"item":"page","quantity":1}"#)).await;
        assert_eq!(raw::read(&mut stream).await.expect("an answer").status, 201);
    }
    let before = memory_mib(system.process(), "VmRSS");
    for (what, attack, attackers) in ATTACKS {
        let attack = join_all((0..attackers).map(|_| again_and_again(addr, attack)));
        let waits = tokio::select! {
            biased;
            waits = honest::clients(addr, ATTACK) => waits,
            _ = attack => unreachable!()
        };
        let (median, worst, peak) =
            (waits.percentile(50), waits.percentile(100), memory_mib(system.process(), "VmHWM"));
        println!(
            "{what}: honest clients wait {median} ms, at most {worst} ms; {before} MiB grew to at most {peak} MiB"
        );
        assert!(median <= HONEST_MEDIAN_MAX_MS, "{what}: {waits:?}");
        assert!(peak.saturating_sub(before) <= GROWTH_MAX_MIB, "{what}: {before} MiB grew to {peak} MiB");
    }
}
