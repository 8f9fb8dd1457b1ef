//! Traces, exported to a real collector's service in this process. One test: a process has one telemetry.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use contracts::{DESCRIPTORS, values::Token};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use prometheus_client::registry::Registry;
use service::{
    call::Call,
    environment::{Env, RealEnvironment},
    rpc::{RpcMetrics, RpcServer},
    rpc_client::{Peer, RpcClientMetrics},
    server::{Limits, Listener, serve},
    settings::Settings,
    telemetry::{Telemetry, TelemetrySettings, continue_trace, traceparent},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tracing::Instrument;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().expect("not poisoned").push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().expect("not poisoned").clone();
        let resources = requests.into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        other => Some(format!("{other:?}")),
    }
}

async fn start(env: &Env, server: RpcServer) -> http::Uri {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let url = format!("http://{}", listener.addr()).parse().expect("a URL");
    tokio::spawn(serve(listener, server.router(), Limits::default(), Arc::clone(env), CancellationToken::new()));
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_through_client_and_server() {
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let metrics = RpcMetrics::register(&mut Registry::default());
    let sink = Sink::default();
    let new_server = || RpcServer::new(Arc::clone(&env), metrics.clone(), DESCRIPTORS);
    let collector = start(&env, new_server().add(TraceServiceServer::new(sink.clone()))).await;
    assert_eq!(traceparent(), "", "nothing is exported yet");

    let endpoint = collector.to_string();
    let mut settings = Settings::from_pairs([("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("RUST_LOG", "warn")]);
    let telemetry = Telemetry::start("test-service", TelemetrySettings::read(&mut settings));
    settings.finish().expect("good");

    let server = start(&env, new_server()).await;
    let peer = Peer::new("self", std::slice::from_ref(&server), Arc::clone(&env), &RpcClientMetrics::default())
        .expect("a good URL");
    let call = Call::new(&*env, Duration::from_secs(5), Token::parse("r-1").expect("sane"));
    let outer = tracing::info_span!("outer");
    continue_trace(&outer, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let work = async {
        assert!(traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{}", traceparent());
        assert!(!service::health::serving(&peer, &call, "no.Such").await);
        // Made outside of a client span, as a stranger would call.
        let mut client = HealthClient::new(Endpoint::from(server).connect_lazy());
        let mut request = Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("traceparent", traceparent().parse().expect("ASCII"));
        let _ = client.check(request).await.expect("answered");
    };
    work.instrument(outer).await;
    let garbage = tracing::info_span!("garbage");
    for text in ["", "garbage", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        continue_trace(&garbage, text);
    }
    drop(garbage);
    telemetry.flush().await;

    let spans = sink.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let outer = named("outer")[0];
    assert_eq!(hex(&outer.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&outer.parent_span_id), "b7ad6b7169203331");
    let checks = named("grpc.health.v1.Health/Check");
    assert_eq!(checks.len(), 3, "{spans:?}");
    let client = checks.iter().find(|span| span.kind == 3).expect("a client span");
    let server = checks.iter().find(|span| span.parent_span_id == client.span_id).expect("its server span");
    assert_eq!((client.parent_span_id.as_slice(), server.kind), (outer.span_id.as_slice(), 2));
    assert!(checks.iter().all(|span| span.trace_id == outer.trace_id));
    for span in [client, server] {
        assert_eq!(attribute(span, "rpc.system.name").as_deref(), Some("grpc"));
        assert_eq!(attribute(span, "rpc.method").as_deref(), Some("grpc.health.v1.Health/Check"));
        assert_eq!(attribute(span, "rpc.response.status_code").as_deref(), Some("NOT_FOUND"));
    }
    let code = |span: &Span| span.status.as_ref().map_or(0, |status| status.code);
    assert_eq!((code(client), code(server)), (2, 0), "an error for the client, none for the server");
    assert!(named("garbage")[0].parent_span_id.is_empty());
    let foreign = spans.iter().find(|span| !["outer", "garbage", "grpc.health.v1.Health/Check"].contains(&&*span.name));
    assert!(foreign.is_none(), "the exporter traces itself: {foreign:?}");
    let resource = sink.0.lock().expect("not poisoned")[0].resource_spans[0].resource.clone().expect("one");
    assert!(format!("{resource:?}").contains("test-service"), "{resource:?}");
}

#[test]
fn bad_settings_are_told() {
    let pairs = [("LOG_FORMAT", "xml"), ("RUST_LOG", "a=b=c"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost")];
    let mut settings = Settings::from_pairs(pairs);
    let _ = TelemetrySettings::read(&mut settings);
    let bad = settings.finish().expect_err("all are bad").to_string();
    for (name, _) in pairs {
        assert!(bad.contains(&format!("{name}: ")), "{bad}");
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory");
        text
    })
}
