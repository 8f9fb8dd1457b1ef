//! A server with limits that are soon reached, in this process.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Extension, Router, body::Body, routing::get};
use futures::StreamExt;
use http::StatusCode;
use service::{
    environment::{Env, RealEnvironment},
    server::{HEADER_READ_TIMEOUT_MS, LEAVE_TIMEOUT_MS, Limits, Listener, UnderWay, serve},
};
use system_tests::{
    frames::{GOAWAY, HEADERS, Http2, INITIAL_WINDOW, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, request},
    raw,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const BIG_BYTES: usize = 300 * 1024;
/// More than kernels keep for a connection.
const HUGE_BYTES: usize = 32 * 1024 * 1024;
/// What may be left of a process's time to drain, by one server with clients that do not go.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// What has to happen happens within this.
const SOON: Duration = Duration::from_secs(20);

struct Server {
    addr: SocketAddr,
    /// Lets what hangs go.
    release: Arc<Notify>,
    /// Has one permit for each request that hangs, or whose work does.
    hanging: Arc<Semaphore>,
    drain: CancellationToken,
    served: Option<JoinHandle<()>>,
}

impl Server {
    /// A request more hangs.
    async fn hangs(&self) {
        soon("it hangs", self.hanging.acquire()).await.expect("open").forget();
    }
}

async fn start(limits: Limits) -> Server {
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let (release, drain) = (Arc::new(Notify::new()), CancellationToken::new());
    let hanging = Arc::new(Semaphore::new(0));
    let hang = {
        let (release, hanging) = (Arc::clone(&release), Arc::clone(&hanging));
        async move || {
            let released = release.notified();
            hanging.add_permits(1);
            released.await;
        }
    };
    let work = hang.clone();
    let keeps = Arc::clone(&env);
    let router = Router::new()
        .route("/", get(async || "ok"))
        .route("/big", get(async || vec![b'x'; BIG_BYTES]))
        .route("/huge", get(async || vec![b'x'; HUGE_BYTES]))
        .route("/hang", get(hang))
        .route(
            "/detached",
            get(async move |Extension(under_way): Extension<UnderWay>| {
                let work = async move {
                    work().await;
                    drop(under_way);
                };
                keeps.detached(work).await;
            }),
        )
        .route(
            "/many",
            get(
                async |Extension(under_way): Extension<UnderWay>| {
                    if under_way.is_one_too_many() { StatusCode::IM_A_TEAPOT } else { StatusCode::NO_CONTENT }
                },
            ),
        )
        .route(
            "/watch",
            get(async || {
                let first = futures::stream::iter([Ok::<_, std::io::Error>("first")]);
                Body::from_stream(first.chain(futures::stream::pending()))
            }),
        );
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let addr = listener.addr();
    let served = Some(tokio::spawn(serve(listener, router, limits, env, drain.clone())));
    Server { addr, release, hanging, drain, served }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

async fn ask(stream: &mut TcpStream, path: &str) -> u16 {
    raw::write(stream, &raw::get(path, "", b"")).await;
    raw::read(stream).await.expect("an answer").status.as_u16()
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// Sooner than an idle connection of HTTP/1 is closed anyway.
async fn closes(stream: &mut TcpStream) {
    let since = Instant::now();
    assert_eq!(raw::read_to_end(stream).await, b"");
    assert!(since.elapsed() < Duration::from_millis(HEADER_READ_TIMEOUT_MS / 2), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_the_connection_that_is_idle_for_the_longest() {
    let server = start(Limits { connections_max: 3, ..Limits::default() }).await;
    let mut busy = raw::connect(server.addr).await;
    raw::write(&mut busy, &raw::get("/hang", "", b"")).await;
    let (mut first, mut second) = (raw::connect(server.addr).await, raw::connect(server.addr).await);
    assert_eq!(ask(&mut first, "/").await, 200);
    assert_eq!(ask(&mut second, "/").await, 200);
    let mut newcomer = raw::connect(server.addr).await;
    assert_eq!(ask(&mut newcomer, "/").await, 200);
    closes(&mut first).await;
    assert_eq!(ask(&mut second, "/").await, 200);
    server.release.notify_one();
    assert_eq!(raw::read(&mut busy).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn when_no_connection_is_idle_who_does_not_read_makes_room() {
    let server = start(Limits { connections_max: 2, ..Limits::default() }).await;
    let mut busy = raw::connect(server.addr).await;
    raw::write(&mut busy, &raw::get("/hang", "", b"")).await;
    let mut stalled = Http2::connect(server.addr, &[(INITIAL_WINDOW, 0)]).await;
    stalled.send(&request(1, "GET", "/")).await;
    while stalled.read().await.expect("open").kind != HEADERS {}
    assert_eq!(ask(&mut raw::connect(server.addr).await, "/").await, 200);
    soon("it is cut off", stalled.read_to_end()).await;
    server.release.notify_one();
    assert_eq!(raw::read(&mut busy).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn when_all_connections_are_at_work_a_newcomer_is_turned_away_at_once() {
    let server = start(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut busy = raw::connect(server.addr).await;
    // Idle until its request has come.
    assert_eq!(ask(&mut busy, "/").await, 200);
    raw::write(&mut busy, &raw::get("/hang", "", b"")).await;
    server.hangs().await;
    closes(&mut raw::connect(server.addr).await).await;
    server.release.notify_one();
    assert_eq!(raw::read(&mut busy).await.expect("an answer").status, 200);
    assert_eq!(ask(&mut raw::connect(server.addr).await, "/").await, 200);
}

#[tokio::test]
async fn who_does_not_read_its_answer_is_cut_off() {
    let timeout = Duration::from_secs(1);
    let server = start(Limits { answer_read_timeout: timeout, ..Limits::default() }).await;
    let http1 = async {
        let mut stream = raw::connect(server.addr).await;
        raw::write(&mut stream, &raw::get("/huge", "", b"")).await;
        tokio::time::sleep(timeout * 3).await;
        let mut bytes = Vec::new();
        let _ = soon("it is cut off", stream.read_to_end(&mut bytes)).await;
        assert!(!bytes.is_empty() && bytes.len() < HUGE_BYTES, "{}", bytes.len());
    };
    let stalled = async |stream_window: u32, path: &str| {
        let mut connection = Http2::connect(server.addr, &[(INITIAL_WINDOW, stream_window)]).await;
        connection.send(&request(1, "GET", path)).await;
        soon("it is cut off", connection.read_to_end()).await;
    };
    let trickling = async {
        let mut connection = Http2::connect(server.addr, &[(INITIAL_WINDOW, 100)]).await;
        connection.send(&request(1, "GET", "/big")).await;
        let trickle = async {
            while connection.send(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("it is cut off", trickle).await;
    };
    // What has not been said yet cannot be read.
    let watching = async {
        let mut connection = Http2::connect(server.addr, &[]).await;
        connection.send(&request(1, "GET", "/watch")).await;
        let early = tokio::time::timeout(timeout * 4, connection.read_to_end()).await;
        assert!(early.is_err(), "the watch goes on");
    };
    let honest = async {
        for _ in 0..40 {
            let mut stream = raw::connect(server.addr).await;
            assert_eq!(ask(&mut stream, "/big").await, 200);
            tokio::time::sleep(timeout / 10).await;
        }
    };
    // No window for the answer; one for the stream, and not enough for the connection.
    futures::join!(http1, stalled(0, "/"), stalled(1 << 20, "/big"), trickling, watching, honest);
}

#[tokio::test]
async fn unread_answers_are_bounded_and_the_oldest_goes_first() {
    let server = start(Limits { unread_bytes_max: 4 * BIG_BYTES, ..Limits::default() }).await;
    let mut hoarder = Http2::connect(server.addr, &[(INITIAL_WINDOW, 0)]).await;
    for stream in [1, 3, 5, 7] {
        hoarder.send(&request(stream, "GET", "/big")).await;
        // Its head.
        while hoarder.read().await.expect("open").stream != stream {}
    }
    let mut second = Http2::connect(server.addr, &[(INITIAL_WINDOW, 0)]).await;
    second.send(&request(1, "GET", "/big")).await;
    soon("the hoarder is cut off", hoarder.read_to_end()).await;
    second.send(&frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 20).to_be_bytes())).await;
    second.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes())).await;
    assert_eq!(second.read_stream(1).await, Some(BIG_BYTES));
}

#[tokio::test]
async fn an_idle_http_2_connection_is_asked_to_leave_and_then_closed() {
    let server = start(Limits { idle_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let mut connection = Http2::connect(server.addr, &[]).await;
    connection.send(&request(1, "GET", "/hang")).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    server.release.notify_one();
    assert_eq!(connection.read_stream(1).await, Some(0), "it was not idle");
    let asked = async {
        while connection.read().await.expect("it is asked first").kind != GOAWAY {}
        // It answers nothing to that.
        connection.read_to_end().await;
    };
    soon("it is closed", asked).await;
}

/// Each client says hello, and does not answer the PING with which it is asked whether it has heard that it is to go.
#[tokio::test]
async fn clients_that_do_not_go_hold_up_no_drain() {
    let answer_read_timeout = Duration::from_secs(3);
    for limits in [Limits::default(), Limits::internal()] {
        let mut server = start(Limits { answer_read_timeout, ..limits }).await;
        let mut silent = Http2::connect(server.addr, &[]).await;
        let mut answered = Http2::connect(server.addr, &[]).await;
        answered.send(&request(1, "GET", "/hang")).await;
        server.hangs().await;
        let mut half = raw::connect(server.addr).await;
        raw::write(&mut half, b"GET / HTTP/1.1\r\nHost: half").await;
        assert_eq!(silent.read().await.expect("it is greeted").kind, SETTINGS);

        server.drain.cancel();
        let since = Instant::now();
        while silent.read().await.expect("open").kind != GOAWAY {}
        soon("the silent one is cut off", silent.read_to_end()).await;
        assert!(since.elapsed() >= Duration::from_millis(LEAVE_TIMEOUT_MS), "it had time");
        server.release.notify_one();
        assert_eq!(answered.read_stream(1).await, Some(0), "what ran was let finish");
        let ends = server.served.take().expect("it serves");
        soon("the server ends", ends).await.expect("no panic");
        assert!(since.elapsed() < DRAIN_MAX, "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_goes_on_asking_holds_up_no_drain() {
    let limits = Limits { answer_read_timeout: Duration::from_secs(1), ..Limits::internal() };
    let mut server = start(limits).await;
    let mut client = Http2::connect(server.addr, &[]).await;
    client.send(&request(1, "GET", "/hang")).await;
    server.hangs().await;
    server.drain.cancel();
    let asking = async {
        let mut streams = (3..).step_by(2);
        while client.send(&request(streams.next().expect("endless"), "GET", "/")).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("it is cut off", asking).await;
    soon("the server ends", server.served.take().expect("it serves")).await.expect("no panic");
}

#[tokio::test]
async fn who_abandons_most_of_its_requests_is_cut_off() {
    let server = start(Limits { abandoned_max: 10, ..Limits::default() }).await;
    let abandon = async |connection: &mut Http2, stream: u32| {
        connection.send(&request(stream, "GET", "/hang")).await;
        server.hangs().await;
        connection.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
    };
    let mut rude = Http2::connect(server.addr, &[]).await;
    for stream in (1..).step_by(2).take(11) {
        abandon(&mut rude, stream).await;
    }
    soon("it is cut off", rude.read_to_end()).await;

    let mut honest = Http2::connect(server.addr, &[]).await;
    for stream in (1..120).step_by(4) {
        honest.send(&request(stream, "GET", "/")).await;
        assert_eq!(honest.read_stream(stream).await, Some(2));
        abandon(&mut honest, stream + 2).await;
    }
    honest.send(&request(121, "GET", "/")).await;
    assert_eq!(honest.read_stream(121).await, Some(2));
}

#[tokio::test]
async fn requests_whose_streams_are_reset_count_as_long_as_their_work_goes_on() {
    const ROOM: u32 = 4;
    let server = start(Limits { streams_per_connection_max: ROOM, ..Limits::default() }).await;
    let mut connection = Http2::connect(server.addr, &[]).await;
    let mut streams = (1..).step_by(2);
    for n in 0..=ROOM {
        assert_eq!(is_one_too_many(&mut connection, streams.next().expect("endless")).await, n == ROOM, "{n}");
        let stream = streams.next().expect("endless");
        connection.send(&request(stream, "GET", "/detached")).await;
        server.hangs().await;
        connection.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
    }
    server.release.notify_waiters();
    let again = async { while is_one_too_many(&mut connection, streams.next().expect("endless")).await {} };
    soon("there is room again", again).await;
}

async fn is_one_too_many(connection: &mut Http2, stream: u32) -> bool {
    connection.send(&request(stream, "GET", "/many")).await;
    loop {
        let frame = connection.read().await.expect("open");
        if frame.kind == HEADERS && frame.stream == stream {
            // As a header block says 204 in its first byte. 418 is written out.
            return frame.payload[0] != 0x89;
        }
    }
}
