//! How a server ends.

use std::time::Duration;

use axum::body::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::fixture::{eventually, soon, start, stock, url};

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let running = start().await;
    let (peer, call) = (running.peer(), running.call(Duration::from_secs(20)));
    let held = tokio::spawn(async move { stock(&peer, &call, "held").await });
    soon("the call has come", running.ledger.held.acquire()).await.expect("open").forget();

    running.drain.cancel();
    eventually("it refuses", async || TcpStream::connect(running.addr).await.is_err()).await;
    assert!(!running.served.is_finished(), "a call runs");
    running.ledger.release.notify_waiters();
    soon("the call ends", held).await.expect("no panic").expect("it was let finish");
    soon("the server ends", running.served).await.expect("no panic");
}

#[tokio::test]
async fn open_streams_and_idle_connections_do_not_hold_up_a_drain() {
    let running = start().await;
    let mut health = HealthClient::new(running.channel());
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("watches").into_inner();
    watch.message().await.expect("open").expect("the first status");

    let list = MessageRequest::ListServices(String::new());
    let first = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let endless = futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
    let mut reflection = ServerReflectionClient::new(running.channel());
    let mut answers = reflection.server_reflection_info(endless).await.expect("open").into_inner();
    answers.message().await.expect("open").expect("the list");

    let http1: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(url(running.addr, "/")).body(Empty::new()).expect("valid");
    http1.request(request).await.expect("kept alive");
    let _silent = TcpStream::connect(running.addr).await.expect("connects");

    running.drain.cancel();
    soon("the server ends", running.served).await.expect("no panic");
    assert_eq!(soon("the watch ends", watch.message()).await.expect_err("cut").code(), Code::Unavailable);
    assert_eq!(soon("the stream ends", answers.message()).await.expect_err("cut").code(), Code::Unavailable);
}

/// The kernel has taken them, and with them what they sent, before the server has asked for them. One sends a little
/// late.
#[tokio::test]
async fn connections_that_wait_to_be_accepted_at_the_end_are_served() {
    const WAITING: usize = 20;
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let running = start().await;
    eventually("it listens", async || TcpStream::connect(running.addr).await.is_ok()).await;
    // Until the next await the server does not run: there is one thread.
    let connect = |_| std::net::TcpStream::connect(running.addr).expect("the kernel takes it");
    let mut clients: Vec<_> = (0..WAITING).map(connect).collect();
    for client in &mut clients[1..] {
        std::io::Write::write_all(client, REQUEST).expect("sent");
    }
    running.drain.cancel();
    for (number, client) in clients.into_iter().enumerate() {
        client.set_nonblocking(true).expect("a socket");
        let mut client = TcpStream::from_std(client).expect("a socket");
        if number == 0 {
            tokio::task::yield_now().await;
            client.write_all(REQUEST).await.expect("sent");
        }
        let mut answer = String::new();
        soon("it is answered", client.read_to_string(&mut answer)).await.expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 "), "{number}: {answer:?}");
    }
    soon("the server ends", running.served).await.expect("no panic");
}

/// RFC 9113, 6.8: at first it says that the connection will end, and only once the client has heard of that, with which
/// request. So none is lost that was on its way.
#[tokio::test]
async fn http2_clients_are_told_in_two_steps_that_a_connection_ends() {
    const ACK: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let running = start().await;
    let mut client = TcpStream::connect(running.addr).await.expect("connects");
    let empty_settings = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    client.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &empty_settings[..]].concat()).await.expect("sent");
    let mut next = async |wanted: u8| {
        loop {
            let mut head = [0; 9];
            soon("a frame", client.read_exact(&mut head)).await.expect("a frame");
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            client.read_exact(&mut payload).await.expect("whole");
            if (head[3], head[4]) == (PING, 0) {
                let answer = [&[0, 0, 8, PING, ACK, 0, 0, 0, 0], &payload[..]].concat();
                client.write_all(&answer).await.expect("sent");
            }
            if head[3] == wanted {
                return payload;
            }
        }
    };
    next(SETTINGS).await;
    running.drain.cancel();
    let no_error = [0; 4];
    assert_eq!(next(GOAWAY).await[..8], [&[0x7f, 0xff, 0xff, 0xff], &no_error[..]].concat());
    assert_eq!(next(GOAWAY).await[..8], [0; 8], "no request was taken");
    soon("the server ends", running.served).await.expect("no panic");
}
