//! gRPC for people and browsers: the real grpcurl without a proto file, health, and gRPC-Web over HTTP/1.1.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use contracts::orders::v1::{CreateOrderRequest, order_service_client::OrderServiceClient};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use system_tests::{System, eventually};
use tonic_web::{GrpcWebCall, GrpcWebClientLayer, GrpcWebClientService};
use tower::ServiceBuilder;

/// Runs the real grpcurl and answers whether it succeeded, and what it printed.
fn grpcurl(arguments: &[&str]) -> (bool, String) {
    let grpcurl = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/grpcurl");
    assert!(grpcurl.exists(), "grpcurl is missing: run `./justw tools`");
    let output = Command::new(grpcurl).arg("-plaintext").args(arguments).output().expect("grpcurl runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

fn json(arguments: &[&str]) -> Value {
    let (success, text) = grpcurl(arguments);
    assert!(success, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

async fn serving(addr: SocketAddr) {
    let addr = addr.to_string();
    eventually(Duration::from_secs(5), "it serves", async || {
        let (success, text) = grpcurl(&[&addr, "grpc.health.v1.Health/Check"]);
        (success && text.contains("\"SERVING\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn grpcurl_needs_no_proto_file_on_either_port() {
    let system = System::start(&[]).await;
    let (order, inventory) = (system.addr("order gRPC").to_string(), system.addr("inventory gRPC").to_string());

    let (_, services) = grpcurl(&[&order, "list"]);
    for service in ["orders.v1.OrderService", "orders.v1.LedgerService", "grpc.health.v1.Health"] {
        assert!(services.contains(service), "{services}");
    }
    let (_, services) = grpcurl(&[&inventory, "list"]);
    assert!(services.contains("inventory.v1.InventoryService"), "{services}");
    let (success, description) = grpcurl(&[&order, "describe", "orders.v1.CreateOrderRequest"]);
    assert!(success && description.contains("idempotency_key"), "{description}");

    let request = r#"{"item":"widget","quantity":2,"idempotency_key":"k"}"#;
    let created = json(&["-d", request, &order, "orders.v1.OrderService/CreateOrder"]);
    assert_eq!(created["order"]["status"], "ORDER_STATUS_CONFIRMED");
    let replayed = json(&["-d", request, &order, "orders.v1.OrderService/CreateOrder"]);
    assert_eq!((&replayed["order"], &replayed["replayed"]), (&created["order"], &Value::Bool(true)));

    let id = created["order"]["id"].as_str().expect("an id");
    let got = json(&["-d", &format!(r#"{{"id":"{id}"}}"#), &order, "orders.v1.OrderService/GetOrder"]);
    assert_eq!(got["order"], created["order"]);
    let listed = json(&["-d", r#"{"item":"widget"}"#, &order, "orders.v1.OrderService/ListOrders"]);
    assert_eq!(listed["orders"], serde_json::json!([created["order"]]));
    let stock = json(&["-d", r#"{"item":"widget"}"#, &inventory, "inventory.v1.InventoryService/GetStock"]);
    assert_eq!(stock["stock"], "98");
}

#[tokio::test]
async fn grpcurl_shows_why_a_call_was_refused() {
    let system = System::start(&[]).await;
    let order = system.addr("order gRPC").to_string();
    let (success, text) =
        grpcurl(&["-d", r#"{"item":"widget","quantity":-1}"#, &order, "orders.v1.OrderService/CreateOrder"]);
    assert!(!success && text.contains("InvalidArgument") && text.contains("INVALID_REQUEST"), "{text}");
    assert!(text.contains("google.rpc.BadRequest") && text.contains("quantity"), "{text}");
    let (success, text) =
        grpcurl(&["-d", r#"{"item":"widget","quantity":101}"#, &order, "orders.v1.OrderService/CreateOrder"]);
    assert!(!success && text.contains("INSUFFICIENT_STOCK") && text.contains(r#""remaining":"100""#), "{text}");
}

#[tokio::test]
async fn health_is_told_per_service() {
    let system = System::start(&[]).await;
    for port in ["order gRPC", "inventory gRPC"] {
        serving(system.addr(port)).await;
    }
    let check = |port, service: &str| {
        let addr = system.addr(port).to_string();
        grpcurl(&["-d", &format!(r#"{{"service":"{service}"}}"#), &addr, "grpc.health.v1.Health/Check"])
    };
    for (port, service) in [
        ("order gRPC", "orders.v1.OrderService"),
        ("order gRPC", "orders.v1.LedgerService"),
        ("inventory gRPC", "inventory.v1.InventoryService"),
    ] {
        let (success, text) = check(port, service);
        assert!(success && text.contains("\"SERVING\""), "{service}: {text}");
    }
    let (success, text) = check("order gRPC", "inventory.v1.InventoryService");
    assert!(!success && text.contains("NotFound"), "{text}");
}

#[tokio::test]
async fn a_browser_places_an_order_over_grpc_web_and_http_1() {
    let system = System::start(&[]).await;
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    // This client speaks HTTP/1.1 only.
    let http: Client<_, GrpcWebCall<tonic::body::Body>> = Client::builder(TokioExecutor::new()).build(http);
    let web: GrpcWebClientService<_> = ServiceBuilder::new().layer(GrpcWebClientLayer::new()).service(http);
    let origin = format!("http://{}", system.addr("order gRPC")).parse().expect("a URI");
    let mut client = OrderServiceClient::with_origin(web, origin);
    let request = CreateOrderRequest { item: "widget".into(), quantity: 2, ..CreateOrderRequest::default() };
    let created = client.create_order(request).await.expect("created").into_inner();
    assert_eq!(created.order.expect("an order").quantity, 2);
    let request = CreateOrderRequest { item: "widget".into(), quantity: 0, ..CreateOrderRequest::default() };
    let refused = client.create_order(request).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let system = System::start(&[]).await;
    let client: Client<HttpConnector, http_body_util::Full<hyper::body::Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = http::Request::post(format!("http://{}/orders.v1.OrderService/Nothing", system.addr("order gRPC")))
        .header("content-type", "application/grpc")
        .body(http_body_util::Full::default())
        .expect("a request");
    let answer = client.request(request).await.expect("an answer");
    let status = answer.headers().get("grpc-status").cloned();
    let trailers = answer.into_body().collect().await.expect("a body").trailers().cloned();
    let status = status.or_else(|| trailers?.get("grpc-status").cloned());
    assert_eq!(status.expect("a status"), "12");
}
