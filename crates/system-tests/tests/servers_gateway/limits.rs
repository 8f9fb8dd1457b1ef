//! How much is taken, of what, and for how long.

use std::time::{Duration, Instant};

use contracts::Reason;
use futures::future::join_all;
use http::Method;
use serde_json::json;
use system_tests::{gateway::Gateway, raw};

use crate::{
    JSON, ORDER, Target, own_problem, request,
    stand_in::{Act, StandIn},
};

const BODY_BYTES_MAX: usize = 16 * 1024;

#[tokio::test]
async fn a_body_of_16_kib_is_taken_and_one_byte_more_is_not() {
    let target = Target::start(&[]).await;
    let padded = |length: usize| {
        let mut body = ORDER.as_bytes().to_vec();
        body.resize(length, b' ');
        body
    };
    for (length, status) in [(BODY_BYTES_MAX, 201), (BODY_BYTES_MAX + 1, 413), (1_000_000, 413)] {
        let body = padded(length);
        for bytes in [raw::post_json("/orders", &body), raw::post_chunked("/orders", &body, 1_000)] {
            let through = raw::send(target.gateway.addr(), &bytes).await;
            assert_eq!(through.status, status, "{length}");
            if status == 413 {
                own_problem(&through, 413, Reason::BodyTooLarge);
            }
            assert_eq!(raw::send(target.system.addr("HTTP"), &bytes).await.status, status, "{length}");
        }
    }
    assert_eq!(target.orders().await.len(), 4);
    let lines = "Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n";
    let answer = raw::send(target.gateway.addr(), &raw::post("/orders", lines, b"")).await;
    own_problem(&answer, 413, Reason::BodyTooLarge);
    let log = target.gateway.access_log(7).await;
    let refused: Vec<_> = log.iter().filter(|line| line["status"] == 413).collect();
    assert!(refused.len() == 5 && refused.iter().all(|line| line["upstream"] == ""), "{refused:?}");
}

#[tokio::test]
async fn under_inventory_only_get_and_head_are_let_through() {
    let target = Target::start(&[]).await;
    let restock = json!({ "id": "0e2f9a54-6f0c-4f7e-8a31-5f1f1f0f7c11", "quantity": 7 }).to_string();
    for path in [
        "/inventory/widget/restocks",
        "/inventory/widget%2Frestocks",
        "/inventory//restocks",
        "/inventory/a%2F..%2F..%2Forders/restocks",
        "/inventory/../orders",
        "/inventory/x/../../orders",
        "http://orders/inventory/widget/restocks",
        "/inventory/",
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            let lines = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", restock.len());
            let bytes = [request(method, path.as_bytes(), &lines), restock.clone().into_bytes()].concat();
            let answer = raw::send(target.gateway.addr(), &bytes).await;
            own_problem(&answer, 405, Reason::MethodNotAllowed);
            assert_eq!(answer.header("allow"), "GET, HEAD");
        }
    }
    // As NGINX reads a path, these are under /inventory/ too; as an edge does, they are nothing.
    for path in ["/x/../inventory/widget/restocks", "//inventory/widget/restocks", "/%69nventory/widget/restocks"] {
        let answer = target.gateway.http.send(Method::POST, path, &[JSON], restock.clone()).await;
        answer.problem(404, "ROUTE_NOT_FOUND");
    }
    for item in ["widget", "a%2F..%2F..%2Forders"] {
        let path = format!("/inventory/{item}");
        let answer = target.gateway.http.get(&path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["stock"]), (200, &json!(100)), "{path}");
        let head = target.gateway.http.send(Method::HEAD, &path, &[], "").await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
    }
}

#[tokio::test]
async fn grpc_is_not_found_and_no_edge_is_asked() {
    let target = Target::start(&[]).await;
    let paths = [
        "/orders.v1.OrderService/CreateOrder",
        "/orders.v1.LedgerService/OpenStock",
        "/orders.v1.LedgerService/",
        "/orders%2ev1%2EOrderService/CreateOrder",
        "/inventory.v1.InventoryService/Restock",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/x?y=1",
    ];
    for path in paths {
        for kind in ["application/grpc", "application/grpc-web+proto", "application/json"] {
            let answer = target.gateway.http.send(Method::POST, path, &[("content-type", kind)], "\0\0\0\0\0").await;
            own_problem(&answer, 404, Reason::RouteNotFound);
        }
    }
    for line in target.gateway.access_log(paths.len() * 3).await {
        assert_eq!(line["upstream"], "", "{line}");
    }
    // A dot alone is no gRPC.
    for path in ["/openapi.yaml", "/problems/a.b/c", "/docs/no.html"] {
        target.gateway.http.get(path).await.problem(404, "ROUTE_NOT_FOUND");
    }
    let asked = target.gateway.access_log(paths.len() * 3 + 3).await;
    assert!(asked[paths.len() * 3..].iter().all(|line| line["upstream"] != ""), "{asked:?}");
}

/// Shorter here than for real clients.
#[tokio::test]
async fn slow_clients_are_cut_off_and_reach_no_edge() {
    const HEAD_SECONDS: u64 = 2;
    const BODY_SECONDS: u64 = 1;
    let edge = StandIn::start(Act::Answers).await;
    let times = [("client_header_timeout 10s;", HEAD_SECONDS), ("client_body_timeout 5s;", BODY_SECONDS)];
    let change = |text: String| {
        times.iter().fold(text, |text, (directive, seconds)| {
            let name = directive.split(' ').next().expect("a name");
            assert_eq!(text.matches(directive).count(), 1);
            text.replace(directive, &format!("{name} {seconds}s;"))
        })
    };
    let gateway = Gateway::start_changed(&[edge.addr], change).await;
    let whole = raw::post_json("/orders", ORDER.as_bytes());
    let cut = async |length: usize, seconds: u64| {
        let since = Instant::now();
        let mut stream = raw::connect(gateway.addr()).await;
        raw::write(&mut stream, &whole[..length]).await;
        assert_eq!(raw::read_to_end(&mut stream).await, b"");
        let (took, limit) = (since.elapsed(), Duration::from_secs(seconds));
        assert!((limit..limit + Duration::from_millis(900)).contains(&took), "{took:?}");
    };
    let lengths = [(4, HEAD_SECONDS), (30, HEAD_SECONDS), (whole.len() - 5, BODY_SECONDS)];
    join_all(lengths.map(|(length, seconds)| cut(length, seconds))).await;
    assert!(edge.requests().is_empty());
    assert_eq!(raw::send(gateway.addr(), &whole).await.status, 200);
}
