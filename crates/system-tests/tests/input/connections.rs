//! Requests that break off, and requests that come together.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use system_tests::{books::at_rest, raw};

use crate::{ORDER, Target};

/// More than it takes to handle every event on a busy machine.
const REST_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_order_that_breaks_off_is_not_placed() {
    let target = Target::start().await;
    let before = target.state().await;
    let addr = target.system.addr("HTTP");
    for whole in [raw::post_json("/orders", ORDER.as_bytes()), raw::post_chunked("/orders", ORDER.as_bytes(), 7)] {
        for length in [4, 30, whole.len() / 2, whole.len() - 20, whole.len() - 1] {
            let mut stream = raw::connect(addr).await;
            raw::write(&mut stream, &whole[..length]).await;
            raw::finish(&mut stream).await;
            // Whatever it answers, it closes, and then the request is over.
            let answer = raw::read_to_end(&mut stream).await;
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{length}: {answer:?}");
        }
    }
    assert_eq!(target.state().await, before);
    target.still_sells().await;
}

#[tokio::test]
async fn malformed_chunks_are_refused() {
    let target = Target::start().await;
    let lines = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let right = format!("{:x}\r\n{ORDER}", ORDER.len());
    for body in [
        format!("zz\r\n{ORDER}\r\n0\r\n\r\n"),
        format!("-1\r\n{ORDER}\r\n0\r\n\r\n"),
        format!("fffffffffffffffff\r\n{ORDER}\r\n0\r\n\r\n"),
        // One byte more than was said.
        format!("{right}}}\r\n0\r\n\r\n"),
    ] {
        target.refuses(&raw::post("/orders", lines, body.as_bytes()), 400, "INVALID_REQUEST").await;
    }
    target.still_sells().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_after_sending_has_one_order_or_none() {
    const ORDERS: usize = 60;
    let target = Target::start().await;
    let addr = target.system.addr("HTTP");
    // A key is the client's, an attempt id its proxy's: either way the repeat is the same order.
    let name = |n: usize| {
        if n.is_multiple_of(2) { ("Idempotency-Key", format!("k{n}")) } else { ("X-Attempt-Id", format!("a{n}")) }
    };
    let hang_up = async |n: usize| {
        let (header, value) = name(n);
        let lines =
            format!("{header}: {value}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", ORDER.len());
        let mut stream = raw::connect(addr).await;
        raw::write(&mut stream, &raw::post("/orders", &lines, ORDER.as_bytes())).await;
        if n.is_multiple_of(3) {
            stream.set_zero_linger().expect("set");
        }
    };
    join_all((0..ORDERS).map(hang_up)).await;
    let repeat = async |n: usize| {
        let (header, value) = name(n);
        let headers = [("content-type", "application/json"), (header, value.as_str())];
        target.system.http.send(http::Method::POST, "/orders", &headers, ORDER).await
    };
    for answer in join_all((0..ORDERS).map(repeat)).await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(target.state().await.orders.len(), 1 + ORDERS);
    at_rest(&target.system, &[("widget", 100)], REST_LIMIT).await;
    assert_eq!(target.system.http.stock("widget").await, 99 - 60);
}

/// Sends everything at once on one connection, with a last request that closes it, and answers the statuses that come
/// back.
async fn statuses(target: &Target, parts: &[&[u8]]) -> Vec<u16> {
    let mut stream = raw::connect(target.system.addr("HTTP")).await;
    raw::write(&mut stream, &parts.concat()).await;
    raw::write(&mut stream, &raw::get("/healthz", "Connection: close\r\n", b"")).await;
    let mut statuses = Vec::new();
    while let Some(answer) = raw::read(&mut stream).await {
        statuses.push(answer.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn requests_that_come_together_are_each_what_they_are() {
    let target = Target::start().await;
    let order = raw::post_json("/orders", ORDER.as_bytes());
    let bad = raw::post_json("/orders", b"[]");
    let unknown = raw::post_json("/nothing", &order);
    let read = raw::get("/orders", &format!("Content-Length: {}\r\n", order.len()), &order);
    let mut large = order.clone();
    large.resize(20_000, b' ');
    let large = raw::post_json("/orders", &large);
    let garbage = b"garbage\r\n\r\n".as_slice();
    let mut expected = target.state().await.created;
    for (what, parts, answered, placed) in [
        ("two orders", &[&order[..], &order][..], &[201, 201, 200][..], 2),
        ("a bad one first", &[&bad, &order], &[400, 201, 200], 1),
        ("garbage after", &[&order, garbage], &[201, 400], 1),
        ("garbage first", &[garbage, &order], &[400], 0),
        ("an order in the body for nobody", &[&unknown], &[404, 200], 0),
        ("an order in the body of a read", &[&read], &[200, 200], 0),
        ("an order in a body that is too large", &[&large], &[413, 200], 0),
    ] {
        let statuses = statuses(&target, parts).await;
        assert_eq!(statuses, answered, "{what}");
        expected += placed;
        assert_eq!(target.state().await.created, expected, "{what}");
    }
    target.still_sells().await;
}

/// A length and chunks disagree about where the request ends: an intermediary may see another request than we do.
#[tokio::test]
async fn a_request_with_two_lengths_smuggles_nothing() {
    let target = Target::start().await;
    let before = target.state().await;
    let smuggled = raw::post_json("/orders", ORDER.as_bytes());
    let body = [b"0\r\n\r\n".as_slice(), &smuggled].concat();
    for lines in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", body.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", body.len()),
    ] {
        let outer = raw::post("/orders", &format!("Content-Type: application/json\r\n{lines}"), &body);
        let statuses = statuses(&target, &[&outer]).await;
        assert!(!statuses.contains(&201), "{lines}: {statuses:?}");
        assert_eq!(target.state().await, before, "{lines}");
    }
    for coding in ["chunked, identity", "identity", "gzip, chunked", "xchunked", "chunked, chunked"] {
        let lines = format!("Content-Type: application/json\r\nTransfer-Encoding: {coding}\r\n");
        let statuses = statuses(&target, &[&raw::post("/orders", &lines, &smuggled)]).await;
        assert!(!statuses.contains(&201), "{coding}: {statuses:?}");
        assert_eq!(target.state().await, before, "{coding}");
    }
    target.still_sells().await;
}

#[tokio::test]
async fn many_slow_clients_keep_nobody_from_ordering() {
    let target = Target::start().await;
    let addr = target.system.addr("HTTP");
    let half = raw::post("/orders", "Content-Type: application/json\r\nContent-Length: 30\r\n", b"{");
    let open = async |n: usize| {
        let mut stream = raw::connect(addr).await;
        raw::write(&mut stream, if n.is_multiple_of(2) { &half } else { b"POST /ord" }).await;
        stream
    };
    let slow = join_all((0..300).map(open)).await;
    let answer = target.system.http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    drop(slow);
    target.still_sells().await;
}

/// Cancelled calls count against the connection between edge and services, which all clients share.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "real clients break off at real moments")]
async fn clients_that_break_off_fail_nobody_else() {
    const RUDE_CLIENTS: usize = 100;
    const BREAKS: usize = 30;
    let target = Target::start().await;
    let addr = target.system.addr("HTTP");
    let order = raw::post_json("/orders", ORDER.as_bytes());
    let order = &order;
    let rude = (0..RUDE_CLIENTS).map(|client| async move {
        for n in 0..BREAKS {
            let mut stream = raw::connect(addr).await;
            raw::write(&mut stream, order).await;
            // Broken off at another moment of the order each time.
            tokio::time::sleep(Duration::from_micros((client * 997 + n * 331) as u64 % 10_000)).await;
        }
    });
    let polite = async {
        for n in 0..200 {
            let answer =
                target.system.http.post("/orders", &json!({ "item": format!("own-{}", n % 4), "quantity": 1 })).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    };
    futures::join!(join_all(rude), polite);
}
