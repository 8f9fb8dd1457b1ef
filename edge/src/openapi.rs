//! The OpenAPI document, made from the table of operations: `components` says what they take and answer, and `problems`
//! makes their refusals from the table of reasons.
//!
//! `openapi.json` is this document as it was committed; the edge serves that file, and a test holds the two together.

mod components;
mod problems;

use serde_json::{Map, Value, json};

use crate::operations::{OPERATIONS, Operation};
use problems::Problems;

/// The command that prints the document.
pub const COMMAND: &str = "openapi";
/// The document as it is served.
pub(crate) const COMMITTED: &str = include_str!("../openapi.json");

/// The document as the routes make it, as text without its last newline.
pub fn document() -> String {
    serde_json::to_string_pretty(&build()).expect("a tree of JSON")
}

fn build() -> Value {
    let mut problems = Problems::default();
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        // Every operation takes the request's id.
        let path = || json!({ "parameters": [reference("parameters", "RequestId")] });
        let path = paths.entry(operation.path).or_insert_with(path);
        path[operation.method.as_str().to_ascii_lowercase()] = describe(operation, &mut problems);
    }
    let mut components = components::all();
    problems.add_to(&mut components);
    json!({
        "openapi": "3.1.0",
        "info": info(),
        "servers": [{ "url": "/", "description": "Where this document is served" }],
        "security": [],
        "tags": tags(),
        "paths": paths,
        "components": components,
    })
}

fn describe(operation: &Operation, problems: &mut Problems) -> Value {
    let (status, component) = operation.success;
    let mut responses = Map::from_iter([(status.to_string(), reference("responses", component))]);
    responses.extend(problems.responses(operation.reasons()));
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
    });
    if !operation.parameters.is_empty() {
        described["parameters"] = operation.parameters.iter().map(|name| reference("parameters", name)).collect();
    }
    if let Some(body) = operation.body {
        described["requestBody"] = reference("requestBodies", body);
    }
    described["responses"] = responses.into();
    described
}

fn info() -> Value {
    json!({
        "title": "Order System",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "Orders, holds and stock over HTTP/JSON.",
        "description": concat!(
            "Nothing is oversold and nothing is lost, whatever dies in between.\n\n",
            "Requests are read strictly: unknown and repeated members and parameters are refused, and a quantity is a ",
            "JSON integer (`1`, not `1.0` or `\"1\"`). Answers may gain members. `HEAD` works wherever `GET` does.\n\n",
            "Every refusal is `application/problem+json` (RFC 9457) with a `reason` for programs; its `type` is a page ",
            "that says what to do. Only what the HTTP parser itself refuses (a broken head, or one that is too large) ",
            "is a 400, 414 or 431 without a body.",
        ),
        "contact": { "name": "The maintainers of the order system" },
        "license": { "name": "MIT or Apache-2.0", "identifier": env!("CARGO_PKG_LICENSE") },
    })
}

fn tags() -> Value {
    json!([
        { "name": "orders", "description": "What was sold." },
        { "name": "stock", "description": "What can be sold, and what is set aside." },
        { "name": "health", "description": "Whether it lives, and whether an order can be placed." },
        { "name": "documentation", "description": "What all this means." },
    ])
}

/// A reference to a component.
fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// An object of references to components of one kind: of each pair, the first is the member and the second the component.
fn references<'a>(kind: &str, names: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    names.into_iter().map(|(member, name)| (member.to_owned(), reference(kind, name))).collect()
}
