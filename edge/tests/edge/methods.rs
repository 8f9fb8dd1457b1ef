//! What HTTP asks of every route: methods, HEAD, ids, metrics, HTTP/2.

use axum::body::Bytes;
use contracts::Reason;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::support::{
    System,
    peers::{ORDER_ID, RESERVATION_ID},
};

fn routes() -> Vec<(String, &'static str)> {
    vec![
        ("/orders".into(), "GET,HEAD,POST"),
        (format!("/orders/{ORDER_ID}"), "GET,HEAD"),
        ("/reserve".into(), "POST"),
        (format!("/reservations/{RESERVATION_ID}"), "DELETE"),
        ("/inventory/widget".into(), "GET,HEAD"),
        ("/inventory/widget/restocks".into(), "POST"),
        ("/healthz".into(), "GET,HEAD"),
        ("/readyz".into(), "GET,HEAD"),
        ("/openapi.json".into(), "GET,HEAD"),
        ("/docs".into(), "GET,HEAD"),
        ("/docs/start.js".into(), "GET,HEAD"),
        ("/problems".into(), "GET,HEAD"),
        ("/problems/INTERNAL".into(), "GET,HEAD"),
    ]
}

#[tokio::test]
async fn every_path_says_which_methods_it_takes() {
    let system = System::start().await;
    for (path, methods) in routes() {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if methods.split(',').any(|taken| taken == method) {
                continue;
            }
            let answer = system.send(format!("{method} {path} HTTP/1.1\r\nHost: edge\r\n\r\n")).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            let mut allow: Vec<_> = answer.header("allow").expect("Allow").split(',').map(str::trim).collect();
            allow.sort_unstable();
            assert_eq!(allow.join(","), methods, "{method} {path}");
            if method != "HEAD" {
                answer.problem(Reason::MethodNotAllowed);
            }
        }
    }
    assert_eq!(system.peers.calls(), 0);
}

#[tokio::test]
async fn head_answers_as_get_does_without_the_body() {
    let system = System::start().await;
    let gets = routes().into_iter().filter(|(_, methods)| methods.contains("GET")).map(|(path, _)| path);
    for path in gets.chain(["/orders/7".into(), "/nothing".into(), "/inventory/..".into()]) {
        let get = system.get(&path).await;
        let head = system.send(format!("HEAD {path} HTTP/1.1\r\nHost: edge\r\n\r\n")).await;
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}");
        for name in ["content-type", "content-length", "cache-control", "x-content-type-options"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_are_404_and_grpc_paths_are_unknown() {
    let system = System::start().await;
    for path in [
        "/",
        "//",
        "/order",
        "/orders/",
        "/orders/7/x",
        "/%6Frders",
        "/reservations",
        "/problems/",
        "/metrics",
        "/orders.v1.OrderService/CreateOrder",
        "/orders.v1.LedgerService/OpenStock",
        "/inventory.v1.InventoryService/Reserve",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        system.get(path).await.problem(Reason::RouteNotFound);
        let grpc = "Content-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
        let post = system.send(format!("POST {path} HTTP/1.1\r\nHost: edge\r\n{grpc}")).await;
        post.problem(Reason::RouteNotFound);
    }
}

#[tokio::test]
async fn http_2_is_served_too() {
    let system = System::start().await;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let send = async |method: Method, path: &str, body: &'static str| {
        let uri = format!("http://{}{path}", system.addr);
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let answer = client.request(request.body(body.into()).expect("valid")).await.expect("an answer");
        assert!(answer.headers().contains_key("x-request-id"));
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.expect("whole").to_bytes())
    };
    assert_eq!(send(Method::POST, "/orders", r#"{"item":"widget","quantity":1}"#).await.0, 201);
    assert_eq!(send(Method::POST, "/orders", "[]").await.0, 400);
    assert_eq!(send(Method::HEAD, "/healthz", "").await, (200, Bytes::new()));
    assert_eq!(send(Method::HEAD, "/nothing", "").await, (404, Bytes::new()));
    assert_eq!(send(Method::POST, "/orders.v1.OrderService/CreateOrder", "").await.0, 404);
    assert_eq!(system.peers.calls(), 1);
}

#[tokio::test]
async fn a_request_id_is_taken_if_sane_and_always_returned() {
    let system = System::start().await;
    let get =
        async |path: &str, lines: &str| system.send(format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{lines}\r\n")).await;
    let uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    for path in ["/healthz", "/inventory/widget", "/nothing", "/%zz", "/orders?x=1"] {
        for id in ["a", "req-7", uuid, &"x".repeat(64)] {
            let answer = get(path, &format!("X-Request-Id: {id}\r\n")).await;
            assert_eq!(answer.header("x-request-id"), Some(id), "{path}");
            if answer.status >= 400 {
                let kind = if id == uuid { "uuid" } else { "request" };
                assert_eq!(answer.json()["instance"], format!("urn:{kind}:{id}"));
            }
        }
        let mut made = Vec::new();
        for lines in ["", "X-Request-Id: a b\r\n", "X-Request-Id: \u{e9}\r\n", "X-Request-Id: a\r\nX-Request-Id: a\r\n"]
        {
            let answer = get(path, lines).await;
            made.push(answer.header("x-request-id").expect("an id").to_owned());
        }
        made.push(
            get(path, &format!("X-Request-Id: {}\r\n", "x".repeat(65)))
                .await
                .header("x-request-id")
                .expect("an id")
                .to_owned(),
        );
        assert!(made.iter().all(|id| id.len() == 36), "{made:?}");
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 5, "each is made anew");
    }
}

#[tokio::test]
async fn requests_are_counted_by_template_and_code() {
    let system = System::start().await;
    system.get("/inventory/a").await;
    system.get("/inventory/b").await;
    system.get("/inventory/..").await;
    system.get("/nothing/7").await;
    system.delete("/inventory/a").await;
    system.send("BREW /coffee HTTP/1.1\r\nHost: edge\r\n\r\n").await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &system.registry).expect("text");
    for (method, route, code, count) in [
        ("GET", "/inventory/{item}", 200, 2),
        ("GET", "/inventory/{item}", 400, 1),
        ("GET", "_OTHER", 404, 1),
        ("DELETE", "/inventory/{item}", 405, 1),
        ("_OTHER", "_OTHER", 404, 1),
    ] {
        let line = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",\
             http_response_status_code=\"{code}\"}} {count}\n"
        );
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(!text.contains("nothing") && !text.contains("coffee"), "{text}");
}

#[tokio::test]
async fn only_documentation_may_be_kept() {
    let system = System::start().await;
    for (path, _) in routes() {
        let kept = system.get(&path).await.header("cache-control") != Some("no-store");
        let documentation = ["/docs", "/openapi.json", "/problems"];
        assert_eq!(kept, documentation.iter().any(|start| path.starts_with(start)), "{path}");
    }
}
