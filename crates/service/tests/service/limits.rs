//! What a server does not take on.

use std::{sync::Arc, time::Duration};

use contracts::Reason;
use futures::{StreamExt, stream::FuturesUnordered};
use service::{
    rpc::{MESSAGE_BYTES_MAX, RPC_IN_FLIGHT_MAX},
    server::Limits,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::fixture::{question, soon, start, start_with, stock};

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let running = start().await;
    let path = "/orders.v1.LedgerService/GetStock";
    let answer = running.raw(path, &[], &vec![0; MESSAGE_BYTES_MAX]).await;
    assert_eq!(answer.code(), Code::OutOfRange);
    assert_eq!(answer.failure().reason, Reason::BodyTooLarge);
    assert_eq!(running.raw(path, &[], &question("widget")).await.code(), Code::Ok);
}

#[tokio::test]
async fn more_calls_than_there_is_room_for_are_refused_at_once() {
    let running = start().await;
    let call = running.call(Duration::from_secs(30));
    let peers: Vec<_> = (0..5).map(|_| running.peer()).collect();
    let calls: FuturesUnordered<_> =
        (0..RPC_IN_FLIGHT_MAX).map(|n| stock(&peers[n % peers.len()], &call, "held")).collect();
    let held = Arc::clone(&running.ledger.held);
    let mut calls = std::pin::pin!(calls);
    let all = u32::try_from(RPC_IN_FLIGHT_MAX).expect("a few thousand");
    tokio::select! {
        biased;
        early = calls.next() => panic!("they are held: {early:?}"),
        permit = soon("all are under way", held.acquire_many(all)) => permit.expect("open").forget(),
    }
    assert_eq!(running.stock("widget").await.expect_err("full").reason, Reason::Overloaded);
    // Whoever opens stock waits for no read, and no order for a lease's place.
    let other = running.raw("/orders.v1.LedgerService/OpenStock", &[], &[]).await;
    assert_eq!(other.code(), Code::Unimplemented, "another method has room of its own");
    running.ledger.release.notify_waiters();
    assert!(soon("one is done", calls.next()).await.expect("one").is_ok());
    assert_eq!(calls.by_ref().filter(|done| std::future::ready(done.is_err())).count().await, 0);
    running.stock("widget").await.expect("there is room again");
}

#[tokio::test]
async fn a_client_that_does_not_show_what_it_speaks_is_cut_off() {
    let limits = Limits { header_read_timeout: Duration::from_millis(50), ..Limits::default() };
    let running = start_with(limits).await;
    for start in ["", "PRI * HT", "POST /", "POST / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(running.addr).await.expect("connects");
        stream.write_all(start.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let end = soon("it is cut off", stream.read_to_end(&mut answer)).await;
        assert!(end.is_err() || !answer.starts_with(b"HTTP/1.1 200"), "{start}");
    }
}
