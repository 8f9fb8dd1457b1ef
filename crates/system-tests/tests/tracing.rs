//! One order is one trace, from the HTTP request to the consumer of its event, as a collector receives it.

use std::{collections::HashMap, time::Duration};

use http::Method;
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use system_tests::{System, collector::Sink, eventually};

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} of {} is {other:?}", span.name),
    }
}

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn one_trace_leads_from_the_request_to_the_consumer() {
    let (sink, url) = Sink::start().await;
    let mut system = System::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let headers = [("content-type", "application/json"), ("traceparent", &traceparent)];
    let order = r#"{"item":"widget","quantity":1}"#;
    let answer = system.http.send(Method::POST, "/orders", &headers, order).await;
    assert_eq!(answer.status, 201);

    let trace_id = u128::from_str_radix(TRACE_ID, 16).expect("hex").to_be_bytes();
    // Its end flushes the last spans, but only the consumer knows when it has read the event.
    eventually(Duration::from_secs(10), "the event is processed", async || {
        (system.metric("orders_processed_total").await > 0.0).then_some(())
    })
    .await;
    system.terminate();
    assert!(system.wait().await.success());

    let spans: Vec<_> = sink.spans().into_iter().filter(|span| span.trace_id == trace_id).collect();
    let by_id: HashMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span)).collect();
    let find = |name: &str, kind: SpanKind| {
        let found = spans.iter().find(|span| span.name == name && span.kind() == kind);
        let names: Vec<_> = spans.iter().map(|span| (&span.name, span.kind())).collect();
        found.unwrap_or_else(|| panic!("no {kind:?} span {name} among {names:?}"))
    };
    // From the end to the beginning: every span's parent is the one before it on the way.
    let path = [
        ("process order_created", SpanKind::Consumer),
        ("publish order_created", SpanKind::Producer),
        ("orders.v1.OrderService/CreateOrder", SpanKind::Server),
        ("orders.v1.OrderService/CreateOrder", SpanKind::Client),
        ("POST /orders", SpanKind::Server),
    ];
    for pair in path.windows(2) {
        let (child, parent) = (find(pair[0].0, pair[0].1), find(pair[1].0, pair[1].1));
        assert_eq!(by_id.get(&child.parent_span_id).map(|span| &span.name), Some(&parent.name), "parent of {child:?}");
        assert_eq!(child.parent_span_id, parent.span_id);
    }
    let root = find("POST /orders", SpanKind::Server);
    assert_eq!(root.parent_span_id, u64::from_str_radix(PARENT_ID, 16).expect("hex").to_be_bytes());
    let reserve = find("inventory.v1.InventoryService/Reserve", SpanKind::Server);
    let reserve_client = find("inventory.v1.InventoryService/Reserve", SpanKind::Client);
    assert_eq!(reserve.parent_span_id, reserve_client.span_id);

    assert_eq!(attribute(root, "http.request.method"), "POST");
    assert_eq!(attribute(root, "http.route"), "/orders");
    assert_eq!(attribute(root, "http.response.status_code"), "201");
    assert_eq!(attribute(reserve, "rpc.system.name"), "grpc");
    assert_eq!(attribute(reserve, "rpc.method"), "inventory.v1.InventoryService/Reserve");
    assert_eq!(attribute(reserve, "rpc.response.status_code"), "OK");
    assert_eq!(attribute(find("process order_created", SpanKind::Consumer), "messaging.message.id"), answer.id());
}

#[tokio::test]
async fn the_process_serves_while_the_collector_is_away() {
    let system = System::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]).await;
    let order = serde_json::json!({"item": "widget", "quantity": 1});
    assert_eq!(system.http.post("/orders", &order).await.status, 201);
}
