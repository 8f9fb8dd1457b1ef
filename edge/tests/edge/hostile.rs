//! What no client library sends: malformed bodies, targets and headers, slow senders, hang-ups.

use std::time::{Duration, Instant};

use contracts::Reason;
use edge::BODIES_MAX;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    System,
    client::{ANSWER_TIMEOUT, read_answer},
    peers::Behaviour,
};

const ONE: &str = r#"{"item":"widget","quantity":1}"#;

fn post(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: edge\r\n{lines}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn json(body: &[u8]) -> Vec<u8> {
    post("/orders", &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()), body)
}

#[tokio::test]
async fn bodies_that_are_no_object_are_400() {
    let system = System::start().await;
    let bomb = "[".repeat(16_000);
    let objects = r#"{"a":"#.repeat(3_000);
    for body in [
        &b""[..],
        b" ",
        b"[]",
        b"[\"widget\",1]",
        b"null",
        b"true",
        b"7",
        b"\"item\"",
        b"{",
        b"}",
        b"{\"item\"",
        b"{}{}",
        b"{\"item\":\"a\",\"quantity\":1}x",
        b"{\"item\":\"\xff\",\"quantity\":1}",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"{\"item\":\"\\ud800\",\"quantity\":1}",
        b"{\"item\":\"a\0\",\"quantity\":1}",
        b"NaN",
        bomb.as_bytes(),
        objects.as_bytes(),
    ] {
        let bad = system.send(json(body)).await.bad_fields();
        assert_eq!(bad, ["pointer:"], "{}", String::from_utf8_lossy(&body[..body.len().min(40)]));
    }
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn members_that_are_wrong_are_named() {
    let system = System::start().await;
    for (body, places) in [
        ("{}", &["/item", "/quantity"][..]),
        (r#"{"item":null,"quantity":null}"#, &["/item", "/quantity"]),
        (r#"{"item":["a"],"quantity":{"n":1}}"#, &["/item", "/quantity"]),
        (r#"{"item":"a","item_id":"a","quantity":1}"#, &["/item_id"]),
        (r#"{"item":"a","it\u0065m":"a","quantity":1}"#, &["/item"]),
        (r#"{"item":"a","quantity":1,"quantity":1}"#, &["/quantity"]),
        (r#"{"item":"a","quantity":1,"Quantity":1}"#, &["/Quantity"]),
        (r#"{"item":"a","quantity":1,"":1}"#, &["/"]),
        (r#"{"item":"a","quantity":1.0}"#, &["/quantity"]),
        (r#"{"item":"a","quantity":"1"}"#, &["/quantity"]),
        (r#"{"item":"a","quantity":1e0}"#, &["/quantity"]),
        (r#"{"item":"a","quantity":99999999999999999999}"#, &["/quantity"]),
        (r#"{"item":"a","quantity":-1}"#, &["/quantity"]),
        (r#"{"item":"a\u202eb","quantity":1}"#, &["/item"]),
        (r#"{"item":"a\u0000","quantity":1}"#, &["/item"]),
        (r#"{"item":" a","quantity":1}"#, &["/item"]),
    ] {
        let places: Vec<_> = places.iter().map(|place| format!("pointer:{place}")).collect();
        assert_eq!(system.send(json(body.as_bytes())).await.bad_fields(), places, "{body}");
    }
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn the_type_must_be_json_and_said_once() {
    let system = System::start().await;
    let length = format!("Content-Length: {}\r\n", ONE.len());
    for lines in [
        "",
        "Content-Type:\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json\r\nContent-Type: application/json\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    ] {
        for path in ["/orders", "/reserve", "/inventory/widget/restocks"] {
            let answer = system.send(post(path, &format!("{lines}{length}"), ONE.as_bytes())).await;
            answer.problem(Reason::UnsupportedMediaType);
        }
    }
    assert_eq!(system.peers.calls(), 0);
    for kind in ["APPLICATION/json", "application/json; charset=utf-8", "application/json;x=\"y\""] {
        let answer = system.send(post("/orders", &format!("Content-Type: {kind}\r\n{length}"), ONE.as_bytes())).await;
        assert_eq!(answer.status, 201, "{kind}");
    }
}

/// JSON of exactly this length.
fn padded(length: usize) -> Vec<u8> {
    let mut body = ONE.as_bytes().to_vec();
    body.resize(length, b' ');
    body
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = post("/orders", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"");
    for chunk in body.chunks(1000) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn bodies_over_16_kib_are_413_and_their_senders_get_to_know() {
    let system = System::start().await;
    assert_eq!(system.send(json(&padded(16_384))).await.status, 201);
    assert_eq!(system.send(chunked(&padded(16_384))).await.status, 201);
    let calls = system.peers.calls();
    for length in [16_385, 100_000, 900_000] {
        for bytes in [json(&padded(length)), chunked(&padded(length))] {
            let mut stream = TcpStream::connect(system.addr).await.expect("it listens");
            stream.write_all(&bytes).await.expect("all of it is taken");
            read_answer(&mut stream, false).await.problem(Reason::BodyTooLarge);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n").await.expect("it is still open");
            assert_eq!(read_answer(&mut stream, false).await.status, 200);
        }
    }
    // Nothing of it is sent before the answer.
    let lines = "Content-Type: application/json\r\nContent-Length: 99999999999\r\n";
    system.send(post("/orders", &format!("{lines}Expect: 100-continue\r\n"), b"")).await.problem(Reason::BodyTooLarge);
    system.send(post("/orders", lines, b"")).await.problem(Reason::BodyTooLarge);
    assert_eq!(system.peers.calls(), calls);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let system = System::start().await;
    let lines = "Content-Type: application/json\r\nContent-Length: 31\r\n";
    let start = Instant::now();
    let half = post("/orders", lines, ONE.as_bytes());
    let (answer, other) = tokio::join!(system.send(half), system.send(post("/reserve", lines, b"")));
    answer.problem(Reason::RequestTimeout);
    other.problem(Reason::RequestTimeout);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn malformed_chunks_are_400() {
    let system = System::start().await;
    let lines = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    system.send(post("/orders", lines, b"zz\r\n{}\r\n0\r\n\r\n")).await.problem(Reason::InvalidRequest);
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn malformed_targets_are_400_wherever_they_point() {
    let system = System::start().await;
    for target in [
        "/inventory/%",
        "/inventory/%4",
        "/inventory/%zz",
        "/inventory/%ff",
        "/inventory/a%c0%afb",
        "/orders/%zz",
        "/nothing/%zz",
        "/%",
        "/healthz%zz",
    ] {
        assert_eq!(system.get(target).await.bad_fields(), ["parameter:path"], "{target}");
    }
    for target in ["/healthz?x", "/readyz?x=1", "/inventory/widget?x=%zz", "/problems/INTERNAL?x=1"] {
        assert_eq!(system.get(target).await.bad_fields(), ["parameter:x"], "{target}");
    }
    let reservation = format!("/reservations/{}?x=1", crate::support::peers::RESERVATION_ID);
    assert_eq!(system.delete(&reservation).await.bad_fields(), ["parameter:x"]);
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn odd_forms_of_targets_do_no_harm() {
    let system = System::start().await;
    let absolute = system.send("GET http://edge/healthz HTTP/1.1\r\nHost: edge\r\n\r\n").await;
    assert_eq!(absolute.status, 200);
    system.send("OPTIONS * HTTP/1.1\r\nHost: edge\r\n\r\n").await.problem(Reason::RouteNotFound);
    system.send("CONNECT edge:80 HTTP/1.1\r\nHost: edge\r\n\r\n").await.problem(Reason::RouteNotFound);
    assert_eq!(system.send("GET /healthz HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_half_way_changes_nothing() {
    let system = System::start().await;
    let whole = json(ONE.as_bytes());
    for length in [10, 60, whole.len() - 1] {
        let mut stream = TcpStream::connect(system.addr).await.expect("it listens");
        stream.write_all(&whole[..length]).await.expect("sent");
        stream.shutdown().await.expect("closed");
        // Whatever it answers, it closes, and then the request is over.
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(ANSWER_TIMEOUT, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{length}");
    }
    assert_eq!(system.peers.calls(), 0);
    assert_eq!(system.send(whole).await.status, 201);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_harms_nobody_else() {
    let system = System::start().await;
    system.peers.behave(Behaviour::Hang);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(system.addr).await.expect("it listens");
        stream.write_all(&json(ONE.as_bytes())).await.expect("sent");
        tokio::time::timeout(ANSWER_TIMEOUT, system.peers.called()).await.expect("a call");
    }
    system.peers.behave(Behaviour::Answer);
    assert_eq!(system.send(json(ONE.as_bytes())).await.status, 201);
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let system = System::start().await;
    let mut stream = TcpStream::connect(system.addr).await.expect("it listens");
    for (body, status) in [(ONE, 201), ("[]", 400), (ONE, 201)] {
        stream.write_all(&json(body.as_bytes())).await.expect("sent");
        assert_eq!(read_answer(&mut stream, false).await.status, status);
    }
}

#[tokio::test]
async fn bodies_that_are_sent_slowly_stand_in_nobody_s_way() {
    service::open_files::raise_limit();
    let system = System::start().await;
    let lines = "Content-Type: application/json\r\nContent-Length: 31\r\n";
    // Before any body has begun, so that none has used up its 5 s within 5 s from now.
    let since = Instant::now();
    let begin = async |_| {
        let mut stream = TcpStream::connect(system.addr).await.expect("it listens");
        stream.write_all(&post("/orders", lines, b"{")).await.expect("sent");
        stream
    };
    let mut slow = futures::future::join_all((0..BODIES_MAX).map(begin)).await;
    assert_eq!(system.send(json(ONE.as_bytes())).await.status, 201);
    // Somebody had to make room, before its time.
    let first = futures::future::select_all(slow.iter_mut().map(|stream| Box::pin(read_answer(stream, false))));
    first.await.0.problem(Reason::RequestTimeout);
    assert!(since.elapsed() < Duration::from_millis(4_900), "{:?}", since.elapsed());
}
