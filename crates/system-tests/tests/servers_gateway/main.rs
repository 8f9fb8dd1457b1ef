//! The real NGINX with the repository's configuration, in front of real edges and of stand-ins that misbehave.
//!
//! `NGINX_BIN` names another NGINX than the installed one.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

mod errors;
mod limits;
mod log;
mod passing;
mod repeats;
mod restarts;
mod stand_in;

use serde_json::{Value, json};
use system_tests::{
    Answer, Client, System,
    books::{Listed, all_orders},
    gateway::{Edge, Gateway},
};

const ORDER: &str = r#"{"item":"widget","quantity":1}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway in front of two edges in front of one system, whose own edge shows what is answered without a gateway.
struct Target {
    system: System,
    edges: [Edge; 2],
    gateway: Gateway,
}

impl Target {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let system = System::start(&[&[("RUST_LOG", "error")], settings].concat()).await;
        let edges = [Edge::start(&system).await, Edge::start(&system).await];
        let gateway = Gateway::start(&[edges[0].addr(), edges[1].addr()]).await;
        Self { system, edges, gateway }
    }

    async fn orders(&self) -> Vec<Listed> {
        all_orders(&self.system.http, "").await
    }
}

async fn place_order(http: &Client) -> Answer {
    http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await
}

/// A GET or another request without a body, as bytes.
fn request(method: &str, target: &[u8], lines: &str) -> Vec<u8> {
    [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nHost: orders\r\n", lines.as_bytes(), b"\r\n"].concat()
}

/// The problem's body, once the answer is one that NGINX itself wrote: complete, in the words of the table of reasons,
/// with the headers that every answer of an edge has, and without a version.
#[track_caller]
fn own_problem(answer: &Answer, status: u16, reason: contracts::Reason) -> Value {
    let body = answer.problem(status, reason.name());
    assert_eq!(answer.members(), ["detail", "instance", "reason", "status", "title", "type"]);
    assert_eq!(body["title"], reason.title());
    if reason.http_status() == status && reason != contracts::Reason::InvalidRequest {
        assert_eq!(body["detail"], reason.meaning());
    }
    let length = answer.body.len().to_string();
    for (name, value) in [
        ("server", "nginx"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("content-length", &length),
        ("retry-after", if status == 503 { "1" } else { "" }),
    ] {
        assert_eq!(answer.header(name), value, "{name}: {answer:?}");
    }
    assert_eq!(answer.headers.contains_key("allow"), status == 405, "{answer:?}");
    body
}
