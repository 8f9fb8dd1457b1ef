//! What NGINX refuses by itself, or answers because no edge does.

use contracts::Reason;
use http::Method;
use servers::Port;
use system_tests::{
    gateway::{Gateway, local},
    raw,
};

use crate::{Target, own_problem, request};

/// A gateway to ports that nobody listens on, as long as they are held.
async fn without_edges() -> (Gateway, [Port; 2]) {
    let ports = [Port::claim(), Port::claim()];
    (Gateway::start(&ports.each_ref().map(local)).await, ports)
}

#[tokio::test]
async fn what_is_no_http_is_a_problem() {
    let (gateway, _ports) = without_edges().await;
    let long = "x".repeat(9_000);
    let headers = format!("X: {}\r\n", &long[..4_000]).repeat(9);
    let get = |lines: &str| request("GET", b"/orders", lines);
    let post = |lines: &str| raw::post("/orders", lines, b"");
    for (bytes, status) in [
        (b"\r\n\r\n\r\n\0".to_vec(), 400),
        (b"GET\r\n\r\n".to_vec(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 400),
        (b"P\xffST /orders HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(), 400),
        (b"GET /orders HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET /orders HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), 400),
        (b"GET /orders HTTP/1.1\r\nHost: a/\"\\<\r\n\r\n".to_vec(), 400),
        (request("GET", b"/../orders", ""), 400),
        (request("GET", b"/orders/%00", ""), 400),
        (request("GET", b"/orders/%zz\"\\", ""), 400),
        (request("GET", b"/orders/\x01", ""), 400),
        (request("GET", b"/orders/\x7f", ""), 400),
        (get("X\0: x\r\n"), 400),
        (get("X y: x\r\n"), 400),
        (get("X: \0\r\n"), 400),
        (post("Content-Length: -1\r\n"), 400),
        (post("Content-Length: 99999999999999999999\r\n"), 400),
        (post("Content-Length: 1\r\nContent-Length: 1\r\n"), 400),
        (post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (raw::post("/orders", "Transfer-Encoding: chunked\r\n", b"zz\r\n"), 400),
        (post("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (request("GET", format!("/{long}").as_bytes(), ""), 414),
        (get(&format!("X: {long}\r\n")), 431),
        (get(&headers), 431),
        (b"GET /orders HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), 505),
        (b"GET /orders HTTP/9.9\r\nHost: a\r\n\r\n".to_vec(), 505),
    ] {
        let answer = raw::send(gateway.addr(), &bytes).await;
        own_problem(&answer, status, Reason::InvalidRequest);
    }
}

#[tokio::test]
async fn trace_and_connect_are_refused_with_the_methods_that_are_not() {
    let (gateway, _ports) = without_edges().await;
    for method in ["TRACE", "CONNECT"] {
        for (path, allowed) in [("/orders", "GET, HEAD, POST, DELETE"), ("/inventory/widget", "GET, HEAD")] {
            let answer = raw::send(gateway.addr(), &request(method, path.as_bytes(), "")).await;
            own_problem(&answer, 405, Reason::MethodNotAllowed);
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        }
    }
}

/// Those that no request can cause here, too.
#[tokio::test]
async fn every_status_that_nginx_makes_up_is_a_problem() {
    let statuses = [
        (400, 400, Reason::InvalidRequest),
        (403, 403, Reason::InvalidRequest),
        (404, 404, Reason::RouteNotFound),
        (405, 405, Reason::MethodNotAllowed),
        (413, 413, Reason::BodyTooLarge),
        (414, 414, Reason::InvalidRequest),
        (431, 431, Reason::InvalidRequest),
        (494, 431, Reason::InvalidRequest),
        (495, 400, Reason::InvalidRequest),
        (496, 400, Reason::InvalidRequest),
        (497, 400, Reason::InvalidRequest),
        (500, 500, Reason::Internal),
        (501, 501, Reason::InvalidRequest),
        (502, 503, Reason::Unavailable),
        (503, 503, Reason::Unavailable),
        (504, 504, Reason::DeadlineExceeded),
        (505, 505, Reason::InvalidRequest),
    ];
    let locations = statuses.map(|(made, _, _)| format!("location = /{made} {{ return {made}; }}\n")).concat();
    let change = |text: String| text.replace("location / {", &format!("{locations} location / {{"));
    let port = Port::claim();
    let gateway = Gateway::start_changed(&[local(&port)], change).await;
    for (made, status, reason) in statuses {
        let path = format!("/{made}");
        let answer = gateway.http.get(&path).await;
        let problem = own_problem(&answer, status, reason);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.') && detail.len() > 20));
        let head = gateway.http.send(Method::HEAD, &path, &[], "").await;
        assert_eq!(head.status, status);
        assert!(head.body.is_empty(), "{head:?}");
        assert_eq!(head.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn its_errors_are_named_by_the_client_s_id_if_that_is_sane() {
    let (gateway, _ports) = without_edges().await;
    let uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let long = "x".repeat(64);
    for (id, instance) in [(uuid, "urn:uuid:"), ("a-1", "urn:request:"), (&long, "urn:request:")] {
        let answer = gateway.http.send(Method::GET, "/orders", &[("x-request-id", id)], "").await;
        assert_eq!(own_problem(&answer, 503, Reason::Unavailable)["instance"], format!("{instance}{id}"));
        assert_eq!(answer.header("x-request-id"), id);
    }
    let mut made = Vec::new();
    for id in ["", "a b", "a\"b", "a\\b", "a_b", &format!("{long}x")] {
        let answer = gateway.http.send(Method::GET, "/orders", &[("x-request-id", id)], "").await;
        let problem = own_problem(&answer, 503, Reason::Unavailable);
        let id = answer.header("x-request-id").to_owned();
        assert_eq!(problem["instance"], format!("urn:uuid:{id}"));
        assert_eq!(uuid::Uuid::try_parse(&id).expect("a UUID").get_version_num(), 4, "{id}");
        assert!(!made.contains(&id), "{id} twice");
        made.push(id);
    }
}

#[tokio::test]
async fn a_gateway_without_edges_says_so_at_once() {
    // Refused at once, and, when a queue that nobody empties is full, not answered at all, as by a host that is gone.
    let gone = GoneHost::new().await;
    let ports = [Port::claim(), Port::claim()];
    for (what, edges, seconds) in [
        ("down", ports.each_ref().map(local), 0.0..0.25),
        // Twice 75 ms, and what a busy machine adds.
        ("gone", [gone.addr(), gone.addr()], 0.14..0.4),
    ] {
        let gateway = Gateway::start(&edges).await;
        let answer = crate::place_order(&gateway.http).await;
        own_problem(&answer, 503, Reason::Unavailable);
        let line = gateway.access_log(1).await.remove(0);
        assert!(seconds.contains(&line["seconds"].as_f64().expect("a number")), "{what}: {line}");
    }
}

/// Listens, and answers no attempt to connect any more.
struct GoneHost {
    socket: std::net::SocketAddr,
    _listener: tokio::net::TcpListener,
    _queue: Vec<tokio::net::TcpStream>,
}

impl GoneHost {
    async fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let listener = socket.listen(1).expect("it listens");
        let addr = listener.local_addr().expect("bound");
        let mut queue = Vec::new();
        let patience = std::time::Duration::from_millis(300);
        while let Ok(connected) = tokio::time::timeout(patience, tokio::net::TcpStream::connect(addr)).await {
            queue.push(connected.expect("queued"));
        }
        Self { socket: addr, _listener: listener, _queue: queue }
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.socket
    }
}

#[tokio::test]
async fn what_edges_refuse_is_passed_on_as_it_is() {
    let target = Target::start(&[]).await;
    for (path, status, reason) in [
        ("/nothing", 404, "ROUTE_NOT_FOUND"),
        ("/orders/7", 404, "ORDER_NOT_FOUND"),
        ("/orders?limit=0", 400, "INVALID_REQUEST"),
        ("/metrics", 404, "ROUTE_NOT_FOUND"),
        ("/.problem", 404, "ROUTE_NOT_FOUND"),
        ("/x/..%2f.timeout", 404, "ROUTE_NOT_FOUND"),
    ] {
        target.gateway.http.get(path).await.problem(status, reason);
    }
}
