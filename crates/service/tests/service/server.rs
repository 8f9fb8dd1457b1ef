//! How a server ends.

use std::time::Duration;

use axum::body::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpStream;
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
