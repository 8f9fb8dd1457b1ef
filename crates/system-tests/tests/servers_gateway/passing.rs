//! What reaches the edge, and what of its answers reaches the client.

use http::Method;
use serde_json::{Map, Value, json};
use system_tests::{Answer, gateway::Gateway, raw};

use crate::{
    JSON, ORDER, Target, request,
    stand_in::{Act, StandIn},
};

/// The values of a header in a request's bytes.
fn values<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    let lines = request.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn the_path_arrives_as_the_client_wrote_it() {
    let edge = StandIn::start(Act::Answers).await;
    let gateway = Gateway::start(&[edge.addr]).await;
    for (sent, arrived) in [
        ("/inventory/a%2Fb", "/inventory/a%2Fb"),
        ("/inventory/a%2f%2Fb//c/", "/inventory/a%2f%2Fb//c/"),
        ("//orders", "//orders"),
        ("/./orders/../x/.", "/./orders/../x/."),
        ("/inventory/%2e%2E", "/inventory/%2e%2E"),
        ("/inventory/%41+%20;x=1", "/inventory/%41+%20;x=1"),
        ("/inventory/\"\\'<>{}|^`", "/inventory/\"\\'<>{}|^`"),
        ("/inventory/caf\u{e9}", "/inventory/caf\u{e9}"),
        ("/orders?item=a%2Fb&limit=1&&x=%zz", "/orders?item=a%2Fb&limit=1&&x=%zz"),
        ("/orders?", "/orders?"),
        ("http://elsewhere:99/orders//x?y", "/orders//x?y"),
        ("http://elsewhere", "/"),
    ] {
        let answer = raw::send(gateway.addr(), &request("GET", sent.as_bytes(), "")).await;
        assert_eq!(answer.status, 200, "{sent}");
        let seen = edge.requests().pop().expect("one");
        assert_eq!(seen.lines().next(), Some(&*format!("GET {arrived} HTTP/1.1")), "{sent}");
    }
}

#[tokio::test]
async fn an_edge_is_told_who_asks_and_nothing_that_a_client_made_up() {
    let edge = StandIn::start(Act::Answers).await;
    let gateway = Gateway::start(&[edge.addr]).await;
    let lines = "X-Attempt-Id: mine\r\nX-Attempt-Id: mine\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
                 X-Forwarded-Proto: https\r\nX-Request-Id: req-7\r\nIdempotency-Key: k\r\nIdempotency-Key: k\r\n\
                 Traceparent: 00-1-2-3\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\nKeep-Alive: timeout=9\r\n\
                 TE: trailers\r\nExpect: 100-continue\r\nContent-Length: 3\r\n";
    let mut stream = raw::connect(gateway.addr()).await;
    raw::write(&mut stream, &raw::post("/orders", lines, b"{ }")).await;
    for status in [100, 200] {
        assert_eq!(raw::read(&mut stream).await.expect("an answer").status, status);
    }
    let seen = edge.requests().pop().expect("one");
    assert!(seen.ends_with("\r\n\r\n{ }"), "{seen}");
    for (name, expected) in [
        ("Host", &["orders"][..]),
        ("X-Forwarded-For", &["127.0.0.1"]),
        ("X-Forwarded-Proto", &["http"]),
        ("X-Request-Id", &["req-7"]),
        ("Idempotency-Key", &["k", "k"]),
        ("Traceparent", &["00-1-2-3"]),
        ("Content-Length", &["3"]),
        ("Forwarded", &[]),
        ("Connection", &[]),
        ("Upgrade", &[]),
        ("Keep-Alive", &[]),
        ("TE", &[]),
        ("Expect", &[]),
    ] {
        assert_eq!(values(&seen, name), expected, "{name}: {seen}");
    }
    let attempts = values(&seen, "X-Attempt-Id");
    assert!(attempts.len() == 1 && attempts[0].len() == 32 && attempts[0] != "mine", "{attempts:?}");

    raw::send(gateway.addr(), &request("GET", b"/orders", "X-Request-Id: a b\r\n")).await;
    let other = edge.requests().pop().expect("one");
    assert!(uuid::Uuid::try_parse(values(&other, "X-Request-Id")[0]).is_ok(), "{other}");
    assert_ne!(values(&other, "X-Attempt-Id"), attempts);
}

/// A body in chunks is read whole, and goes on with its length.
#[tokio::test]
async fn chunks_are_put_together() {
    let edge = StandIn::start(Act::Answers).await;
    let gateway = Gateway::start(&[edge.addr]).await;
    raw::send(gateway.addr(), &raw::post_chunked("/orders", ORDER.as_bytes(), 7)).await;
    let seen = edge.requests().pop().expect("one");
    assert!(seen.ends_with(&format!("\r\n\r\n{ORDER}")), "{seen}");
    assert_eq!(values(&seen, "Content-Length"), [ORDER.len().to_string()]);
    assert!(values(&seen, "Transfer-Encoding").is_empty(), "{seen}");
}

#[tokio::test]
async fn attempts_of_a_client_s_own_naming_are_two_orders() {
    let target = Target::start(&[]).await;
    for _ in 0..2 {
        let headers = [JSON, ("x-attempt-id", "mine")];
        let answer = target.gateway.http.send(Method::POST, "/orders", &headers, ORDER).await;
        assert_eq!(answer.status, 201);
    }
    assert_eq!(target.orders().await.len(), 2);
}

/// What may differ between two answers to the same request.
fn comparable(answer: &Answer) -> Value {
    let mut headers = Map::new();
    for name in [
        "content-type",
        "content-length",
        "retry-after",
        "cache-control",
        "x-content-type-options",
        "x-request-id",
        "idempotent-replayed",
        "content-security-policy",
        "vary",
    ] {
        headers.insert(name.into(), answer.header(name).into());
    }
    let mut allow: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
    allow.sort_unstable();
    let location = answer.header("location");
    assert!(location.is_empty() || location.starts_with("/orders/"), "{location}");
    let members = if answer.body.is_empty() { Value::Null } else { json!(answer.members()) };
    json!({
        "status": answer.status.as_u16(),
        "headers": headers,
        "allow": allow,
        "location": !location.is_empty(),
        "members": members,
    })
}

#[tokio::test]
async fn answers_are_the_same_with_and_without_the_gateway() {
    let target = Target::start(&[]).await;
    let id = crate::place_order(&target.system.http).await.id();
    let order_path = format!("/orders/{id}");
    let hold = r#"{"item":"held","quantity":5,"reservation_id":"7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e"}"#;
    let held_path = "/reservations/7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e";
    let other_hold = hold.replace('5', "6");
    for (method, path, headers, body) in [
        ("POST", "/orders", &[JSON][..], ORDER),
        ("POST", "/orders", &[JSON, ("idempotency-key", "k")], ORDER),
        ("POST", "/orders", &[JSON, ("idempotency-key", "k")], ORDER),
        ("POST", "/orders", &[JSON, ("idempotency-key", "k")], r#"{"item":"widget","quantity":2}"#),
        ("POST", "/orders", &[JSON, ("idempotency-key", "")], ORDER),
        ("POST", "/orders", &[JSON], r#"{"item":"widget","quantity":1000}"#),
        ("POST", "/orders", &[JSON], r#"{"item":"..","quantity":1.0,"x":1}"#),
        ("POST", "/orders", &[JSON], "[]"),
        ("POST", "/orders", &[JSON], ""),
        ("POST", "/orders", &[("content-type", "text/plain")], ORDER),
        ("POST", "/orders", &[], ORDER),
        ("GET", "/orders", &[], ""),
        ("HEAD", "/orders", &[], ""),
        ("GET", "/orders?limit=1", &[], ""),
        ("GET", "/orders?limit=0", &[], ""),
        ("GET", "/orders?item=a%2Fb", &[], ""),
        ("GET", &order_path, &[], ""),
        ("HEAD", &order_path, &[], ""),
        ("GET", "/orders/7", &[], ""),
        ("PUT", "/orders", &[JSON], ORDER),
        ("OPTIONS", "/orders", &[], ""),
        ("BREW", "/orders", &[], ""),
        ("POST", "/reserve", &[JSON], hold),
        ("POST", "/reserve", &[JSON], hold),
        ("POST", "/reserve", &[JSON], &other_hold),
        ("POST", "/reserve", &[JSON], r#"{"item":"held","quantity":1000}"#),
        ("DELETE", held_path, &[], ""),
        ("DELETE", held_path, &[], ""),
        ("DELETE", "/reservations/6b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e", &[], ""),
        ("GET", "/inventory/widget", &[], ""),
        ("HEAD", "/inventory/widget", &[], ""),
        ("GET", "/inventory/..", &[], ""),
        ("GET", "/inventory/%2e", &[], ""),
        ("GET", "/inventory/a%2Fb", &[], ""),
        ("GET", "/inventory/a/b", &[], ""),
        ("GET", "/inventory/%ff", &[], ""),
        ("GET", "/healthz", &[], ""),
        ("GET", "/readyz", &[], ""),
        ("GET", "/openapi.json", &[], ""),
        ("HEAD", "/docs", &[], ""),
        ("GET", "/problems", &[], ""),
        ("GET", "/problems/INTERNAL", &[], ""),
        ("HEAD", "/problems/INTERNAL", &[("accept", "text/html")], ""),
        ("GET", "/metrics", &[], ""),
        ("GET", "/nothing", &[], ""),
        ("POST", "/orders.v1.OrderService/CreateOrder", &[("content-type", "application/grpc")], "\0\0\0\0\0"),
    ] {
        let headers = [headers, &[("x-request-id", "same")]].concat();
        let method: Method = method.parse().expect("a method");
        let direct = target.system.http.send(method.clone(), path, &headers, body.to_owned()).await;
        let through = target.gateway.http.send(method.clone(), path, &headers, body.to_owned()).await;
        if (&method, path, direct.status.as_u16()) == (&Method::POST, "/orders", 201) {
            // The first of two with a key is no replay; each order has its own time.
            assert_eq!(direct.members(), through.members());
            assert_eq!((through.status.as_u16(), through.header("x-request-id")), (201, "same"));
            assert_eq!(through.header("location"), format!("/orders/{}", through.id()));
            continue;
        }
        assert_eq!(comparable(&direct), comparable(&through), "{method} {path} {body}");
    }
}

/// It is larger than all of the gateway's buffers.
#[tokio::test]
async fn the_largest_file_of_the_documentation_comes_whole() {
    let target = Target::start(&[]).await;
    let path = "/docs/swagger-ui-bundle.js";
    let direct = target.system.http.get(path).await;
    assert!(direct.body.len() > 1_000_000, "{}", direct.body.len());
    let through = target.gateway.http.get(path).await;
    assert!(direct.body == through.body);
}

/// The largest page that there is comes whole.
#[tokio::test]
async fn a_page_of_500_orders_comes_whole() {
    let target = Target::start(&[("DEFAULT_STOCK", "1000")]).await;
    let long = "\u{1f980}".repeat(63);
    let order = json!({ "item": long, "quantity": 1 });
    let place = async |_| assert_eq!(target.gateway.http.post("/orders", &order).await.status, 201);
    for _ in 0..10 {
        futures::future::join_all((0..50).map(place)).await;
    }
    let direct = target.system.http.get("/orders?limit=500").await;
    assert!(direct.body.len() > 150_000, "{}", direct.body.len());
    let through = target.gateway.http.get("/orders?limit=500").await;
    assert_eq!(direct.body, through.body);
}
