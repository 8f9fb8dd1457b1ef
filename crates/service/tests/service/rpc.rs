//! What every method gets.

use std::time::Duration;

use contracts::{Reason, orders::v1::ItemStock};
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::{
    fixture::{Answer, eventually, framed, question, start, url},
    ledger::{GET_STOCK, SERVICE},
};

const PATH: &str = "/orders.v1.LedgerService/GetStock";

#[tokio::test]
async fn the_server_answers_an_expired_deadline_with_deadline_exceeded() {
    let running = start().await;
    let answer = running.raw(PATH, &[("grpc-timeout", "50m")], &question("slow")).await;
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.failure().reason, Reason::DeadlineExceeded);
    assert!(answer.failure().cause.is_none(), "it carries an ErrorInfo");
    assert_eq!(running.count(GET_STOCK, "DEADLINE_EXCEEDED"), 1);
}

#[tokio::test]
async fn a_deadline_is_taken_from_the_caller_within_bounds() {
    let running = start().await;
    for (timeout, range) in [(None, 4_000..=5_000), (Some("99999999H"), 29_000..=30_000), (Some("2S"), 1_000..=2_000)] {
        let headers: Vec<_> = timeout.map(|timeout| ("grpc-timeout", timeout)).into_iter().collect();
        let answer = running.raw(PATH, &headers, &question("widget")).await;
        assert_eq!(answer.code(), Code::Ok);
        let remaining = remaining(&answer);
        assert!(range.contains(&remaining), "{timeout:?}: {remaining}");
    }
}

/// The stub answers it as an item's epoch.
fn remaining(answer: &Answer) -> i64 {
    use prost::Message;
    let response = contracts::orders::v1::GetStockResponse::decode(&answer.body[5..]).expect("a response");
    let [ItemStock { epoch, .. }] = response.stocks[..] else { panic!("one item") };
    epoch
}

#[tokio::test]
async fn a_malformed_deadline_is_an_invalid_argument() {
    let running = start().await;
    for bad in ["", "5", "S", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "1\u{b5}"] {
        let answer = running.raw(PATH, &[("grpc-timeout", bad)], &question("widget")).await;
        assert_eq!(answer.code(), Code::InvalidArgument, "{bad:?}");
        assert_eq!(answer.failure().fields[0].field, "grpc-timeout");
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_leaves_no_label() {
    let running = start().await;
    for path in
        ["/orders.v1.LedgerService/Steal", "/no.such.Service/Method", "/", "/inventory.v1.InventoryService/Reserve"]
    {
        let answer = running.raw(path, &[], b"").await;
        assert_eq!((answer.http.as_u16(), answer.code()), (200, Code::Unimplemented), "{path}");
    }
    assert_eq!(running.count("_OTHER", "UNIMPLEMENTED"), 4);
    let metrics = running.metrics();
    assert!(!metrics.contains("Steal") && !metrics.contains("no.such") && !metrics.contains("inventory"), "{metrics}");
}

#[tokio::test]
async fn what_is_no_grpc_is_refused() {
    let running = start().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(url(running.addr, PATH)).header("content-type", "application/json");
    let response = client.request(request.body(Full::new(framed(b""))).expect("valid")).await.expect("answered");
    assert_eq!(response.status(), 415);
}

#[tokio::test]
async fn grpc_web_works_over_http_1() {
    let running = start().await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    for (item, last_line) in [("widget", "grpc-status:0"), ("short", "grpc-status:9")] {
        let request = Request::post(url(running.addr, PATH)).header("content-type", "application/grpc-web+proto");
        let request = request.body(Full::new(framed(&question(item)))).expect("valid");
        let response = client.request(request).await.expect("answered");
        assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_11));
        assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
        // A call that fails at once has its status in the head, others in the last frame of the body.
        let in_head = response.headers().get("grpc-status").cloned();
        let answer = Answer::read(response).await;
        let found = if let Some(code) = in_head {
            format!("grpc-status:{}", code.to_str().expect("text"))
        } else {
            let text = String::from_utf8_lossy(&answer.body);
            text[text.find("grpc-status").expect("trailers")..].lines().next().expect("a line").to_owned()
        };
        assert_eq!(found, last_line, "{item}");
    }
    assert_eq!(running.count(GET_STOCK, "OK"), 1);
    assert_eq!(running.count(GET_STOCK, "FAILED_PRECONDITION"), 1);
}

#[tokio::test]
async fn reflection_knows_services_and_error_details_in_both_versions() {
    let running = start().await;
    let expected = ["grpc.health.v1.Health", SERVICE];
    macro_rules! ask {
        ($version:ident) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let mut client = ServerReflectionClient::new(running.channel());
            let requests = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()),
            ];
            let requests =
                requests.map(|request| ServerReflectionRequest { host: String::new(), message_request: Some(request) });
            let mut answers =
                client.server_reflection_info(futures::stream::iter(requests)).await.unwrap().into_inner();
            let list = answers.message().await.unwrap().expect("an answer").message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = list else { panic!("no list") };
            let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
            for name in expected {
                assert!(names.contains(&name), "{name} in {names:?}");
            }
            let file = answers.message().await.unwrap().expect("an answer").message_response;
            assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
        }};
    }
    ask!(v1);
    ask!(v1alpha);
}

#[tokio::test]
async fn health_is_told_per_service_and_watched() {
    let running = start().await;
    let call = running.call(Duration::from_secs(5));
    let serving = async |service: &str| service::health::serving(&running.peer(), &call, service).await;
    assert!(!serving(SERVICE).await && !serving("").await);

    let mut client = HealthClient::new(running.channel());
    let question = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut watch = client.watch(question(SERVICE)).await.expect("watches").into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    running.health.set(SERVICE, true).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert!(serving(SERVICE).await && !serving("").await);
    running.health.set("", true).await;
    assert!(serving("").await);
    running.health.set(SERVICE, false).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(!serving(SERVICE).await);

    assert_eq!(client.check(question("no.Such")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = client.watch(question("no.Such")).await.expect("watches").into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn a_request_id_is_taken_if_sane_and_else_made() {
    let running = start().await;
    for given in ["abc-123", "bad id", "", &"x".repeat(65)] {
        running.raw(PATH, &[("x-request-id", given)], &question("widget")).await;
    }
    running.raw(PATH, &[], &question("widget")).await;
    running.stock("widget").await.expect("answered");
    let ids = running.ledger.ids.lock().unwrap().clone();
    assert_eq!(ids[0], "abc-123");
    assert_eq!(ids[5], "test", "the client passes it on");
    for made in &ids[1..5] {
        assert_eq!(made.len(), 36, "{made}");
    }
}

#[tokio::test]
async fn a_panic_is_internal_and_the_server_lives() {
    let running = start().await;
    for _ in 0..3 {
        let answer = running.raw(PATH, &[], &question("panic")).await;
        assert_eq!(answer.code(), Code::Internal);
        assert_eq!(answer.failure().reason, Reason::Internal);
        assert!(!answer.status.unwrap().message().contains("asked"), "the cause stays inside");
    }
    running.stock("widget").await.expect("it lives");
    assert_eq!((running.count(GET_STOCK, "INTERNAL"), running.count(GET_STOCK, "OK")), (3, 1));
}

#[tokio::test]
async fn calls_are_counted_by_method_and_status() {
    let running = start().await;
    assert!(running.metrics().contains(&format!("rpc_method=\"{GET_STOCK}\",rpc_response_status_code=\"OK\"")), "zero");
    running.stock("widget").await.expect("answered");
    assert_eq!(running.stock("short").await.unwrap_err().remaining, Some(3));
    assert_eq!((running.count(GET_STOCK, "OK"), running.count(GET_STOCK, "FAILED_PRECONDITION")), (1, 1));
    let metrics = running.metrics();
    assert!(metrics.contains("# UNIT rpc_server_call_duration_seconds seconds"), "{metrics}");
    assert!(metrics.contains("le=\"0.075\""), "{metrics}");
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_is_counted_as_cancelled() {
    let running = start().await;
    let (peer, call) = (running.peer(), running.call(Duration::from_secs(5)));
    tokio::select! {
        biased;
        _ = crate::fixture::stock(&peer, &call, "held") => panic!("it is held"),
        permit = running.ledger.held.acquire() => permit.expect("open").forget(),
    }
    eventually("it is counted", async || running.count(GET_STOCK, "CANCELLED") == 1).await;
}
