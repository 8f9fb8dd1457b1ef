//! Logs and traces.

use std::{
    io,
    sync::{Arc, Mutex},
};

use contracts::{Failure, Reason};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use crate::support::{System, peers::Behaviour};

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn with(&self, part: &str) -> Vec<String> {
        let bytes = self.0.lock().expect("no panic").clone();
        let text = String::from_utf8(bytes).expect("text");
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

// The test's runtime has one thread: the subscriber set there sees everything.
#[tokio::test]
async fn a_request_is_logged_once_and_its_cause_only_there() {
    let lines = Lines::default();
    let logs = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(logs);
    let system = System::start().await;

    assert_eq!(system.send("GET /inventory/a HTTP/1.1\r\nX-Request-Id: r-1\r\n\r\n").await.status, 200);
    let [line] = &lines.with("answered")[..] else { panic!("{:?}", lines.with("")) };
    for part in ["INFO", "GET", "/inventory/{item}", "/inventory/a", "200", "ms=", "r-1"] {
        assert!(line.contains(part), "{part}: {line}");
    }

    system.peers.behave(Behaviour::Status(tonic::Code::Unavailable));
    let answer = system.send("GET /inventory/a HTTP/1.1\r\nX-Request-Id: r-2\r\n\r\n").await;
    let body = answer.problem(Reason::Unavailable).to_string();
    assert!(!body.contains("10.0.0.7"), "{body}");
    let causes = lines.with("of 10.0.0.7");
    assert!(matches!(&causes[..], [cause] if cause.contains("WARN") && cause.contains("r-2")), "{causes:?}");
    assert_eq!(lines.with("answered").len(), 2);

    system.peers.behave(Behaviour::Fail(Failure::insufficient(1)));
    system.post("/orders", r#"{"item":"a","quantity":2}"#).await.problem(Reason::InsufficientStock);
    assert_eq!(lines.with("WARN").len(), 1, "a refusal is no failure");
    assert_eq!(lines.with("answered").len(), 3);
}

#[tokio::test]
async fn a_trace_goes_on_from_the_caller_to_the_peer() {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let system = System::start().await;

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let request = format!("GET /inventory/a HTTP/1.1\r\ntraceparent: {parent}\r\n\r\n");
    assert_eq!(system.send(request).await.status, 200);
    assert_eq!(system.send("GET /inventory/a HTTP/1.1\r\ntraceparent: nonsense\r\n\r\n").await.status, 200);
    let passed = system.peers.seen(|seen| seen.traceparents.clone());
    let [first, second] = &passed[..] else { panic!("{passed:?}") };
    assert!(first.contains(trace) && *first != parent, "{first}");
    assert!(!second.contains(trace), "{second}");
}
