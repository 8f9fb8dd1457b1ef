//! Logs on standard error, and traces over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    panic,
    str::FromStr,
    time::Duration,
};

use http::Uri;
use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{rpc_client, settings::Settings};

/// Longest export of a batch of spans, in milliseconds.
pub const EXPORT_TIMEOUT_MS: u64 = 10_000;
/// Time to hand the last spans to the collector when the process ends.
pub const FLUSH_TIMEOUT_MS: u64 = 3_000;
/// Level of logs when `RUST_LOG` is not set. lapin would log the bodies of messages that are returned.
pub const LOG_FILTER_DEFAULT: &str = "info,lapin=off";
/// Spans that are exported. Those of the exporter's own machinery would breed more of themselves.
const TRACE_FILTER: &str = "info,lapin=off,h2=off,hyper=off,hyper_util=off,tonic=off,tower=off,opentelemetry=off,\
                            opentelemetry_sdk=off,opentelemetry_otlp=off";
/// The header of the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

#[derive(Debug, Clone, Copy)]
enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json"),
        }
    }
}

/// How to log, and where to send traces.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    format: LogFormat,
    /// Was parsed once without error.
    filter: String,
    otlp_endpoint: Option<Uri>,
}

impl TelemetrySettings {
    /// `LOG_FORMAT`, `RUST_LOG` and `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn read(settings: &mut Settings) -> Self {
        let format = settings.parsed("LOG_FORMAT", LogFormat::Text);
        let mut filter = settings.text("RUST_LOG").unwrap_or_else(|| LOG_FILTER_DEFAULT.to_owned());
        // The parser panics at some text that is not ASCII.
        let bad = match filter.is_ascii().then(|| EnvFilter::builder().parse(&filter)) {
            Some(parsed) => parsed.err().map(|e| e.to_string()),
            None => Some("must be ASCII".to_owned()),
        };
        if let Some(why) = bad {
            settings.bad("RUST_LOG", why);
            LOG_FILTER_DEFAULT.clone_into(&mut filter);
        }
        let otlp_endpoint = settings.text("OTEL_EXPORTER_OTLP_ENDPOINT").and_then(|text| {
            let endpoint: Option<Uri> = text.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("http"));
            if endpoint.is_none() {
                settings.bad("OTEL_EXPORTER_OTLP_ENDPOINT", "must be a URL as in http://127.0.0.1:4317");
            }
            endpoint
        });
        Self { format, filter, otlp_endpoint }
    }
}

/// The process's logs and traces.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts both. The first one started in a process stays. Needs a tokio runtime when traces are exported.
    pub fn start(service: &'static str, settings: TelemetrySettings) -> Self {
        let TelemetrySettings { format, filter, otlp_endpoint } = settings;
        let traces = otlp_endpoint.map(|endpoint| exporter(service, &endpoint)).transpose();
        let exported = traces.as_ref().ok().and_then(Option::as_ref);
        let exported = exported.map(|provider| trace_layer(provider, EnvFilter::new(TRACE_FILTER)));
        let logs = log_layer(format, EnvFilter::new(filter), io::stderr().is_terminal(), io::stderr);
        let layers: Vec<BoxedLayer> = [Some(logs), exported].into_iter().flatten().collect();
        if tracing_subscriber::registry().with(layers).try_init().is_ok() {
            log_panics();
        }
        if let Err(e) = &traces {
            // A process without traces is better than none.
            tracing::error!(error = %e, "traces are not exported");
        }
        Self { traces: traces.ok().flatten() }
    }

    /// Hands the last spans to the collector, for at most [`FLUSH_TIMEOUT_MS`].
    #[expect(clippy::disallowed_methods, reason = "it blocks, is bounded, and comes after everything else has ended")]
    pub async fn flush(self) {
        let Some(traces) = self.traces else { return };
        let limit = Duration::from_millis(FLUSH_TIMEOUT_MS);
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(limit)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last spans were not exported");
        }
    }
}

fn log_layer<W>(format: LogFormat, filter: EnvFilter, colours: bool, writer: W) -> BoxedLayer
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let logs = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => logs.with_ansi(colours).with_filter(filter).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    }
}

fn trace_layer(provider: &SdkTracerProvider, filter: EnvFilter) -> BoxedLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("service"))
        .with_tracked_inactivity(false)
        .with_threads(false)
        .with_location(false)
        .with_filter(filter)
        .boxed()
}

fn exporter(service: &'static str, endpoint: &Uri) -> Result<SdkTracerProvider, ExporterBuildError> {
    // Ours is kept alive, so that a collector that vanished is noticed before the last spans are to be handed over.
    let channel = rpc_client::endpoint(endpoint.clone()).timeout(Duration::from_millis(EXPORT_TIMEOUT_MS));
    let exporter = SpanExporter::builder().with_tonic().with_channel(channel.connect_lazy()).build()?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name(service).with_attribute(version).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Panics become log lines like every other failure.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, message, "panic");
    }));
}

/// The current span as a W3C `traceparent`; empty when traces are not exported.
pub fn traceparent() -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// Makes `span` a child of the remote span that `traceparent` names. Has to happen before the span is entered. Ignores
/// what is no `traceparent`.
pub fn continue_trace(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier);
    if context.span().span_context().is_valid() {
        // It fails when nothing is exported, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(pairs: &[(&str, &str)]) -> String {
        let mut settings = Settings::from_pairs(pairs.iter().copied());
        let TelemetrySettings { format, filter, .. } = TelemetrySettings::read(&mut settings);
        settings.finish().expect("good");
        let shared = Shared::default();
        let writer = {
            let shared = shared.clone();
            move || shared.clone()
        };
        let layer = log_layer(format, EnvFilter::new(filter), false, writer);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _entered = tracing::info_span!("rpc", request_id = "r-1").entered();
            tracing::debug!("quiet");
            tracing::warn!(reason = "OVERLOADED", "loud");
        });
        String::from_utf8(shared.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }

    #[test]
    fn a_json_line_has_its_fields_and_its_request() {
        let text = logged(&[("LOG_FORMAT", "json")]);
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"loud".into()));
        assert_eq!((&line["reason"], &line["spans"][0]["request_id"]), (&"OVERLOADED".into(), &"r-1".into()));
    }

    #[test]
    fn a_text_line_has_its_request_and_levels_can_be_asked_for() {
        let text = logged(&[]);
        assert!(text.contains("rpc{request_id=\"r-1\"}") && text.contains("loud") && !text.contains("quiet"), "{text}");
        let text = logged(&[("RUST_LOG", "service=debug")]);
        assert!(text.contains("quiet"), "{text}");
        assert_eq!(logged(&[("RUST_LOG", "error")]), "");
    }
}
