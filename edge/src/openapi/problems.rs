//! Problems: a schema and an example for each reason, and a response for each set of reasons that share a status.

use std::collections::BTreeMap;

use contracts::{Failure, Reason, values::Token};
use serde_json::{Map, Value, json};

use super::{components::answer_headers, reference};
use crate::{
    fields::{BadFields, Place},
    problem::{PROBLEM_JSON, Problem},
};

/// The request id of all examples.
const REQUEST_ID: &str = "58ef27c5-acef-4a61-b94a-c6f9fa2a77f6";

/// The responses that operations have named so far.
#[derive(Default)]
pub struct Problems(BTreeMap<String, Value>);

impl Problems {
    /// By status, what an operation answers that may be refused for these reasons.
    pub fn responses(&mut self, mut reasons: Vec<Reason>) -> Map<String, Value> {
        reasons.sort_by_key(|reason| (reason.http_status(), reason.name()));
        let same_status = reasons.chunk_by(|one, other| one.http_status() == other.http_status());
        same_status.map(|reasons| (reasons[0].http_status().to_string(), self.response(reasons))).collect()
    }

    fn response(&mut self, reasons: &[Reason]) -> Value {
        let name = reasons.iter().map(|reason| component(*reason)).collect::<Vec<_>>().join("Or");
        self.0.entry(name.clone()).or_insert_with(|| response(reasons));
        reference("responses", &name)
    }

    /// Adds the responses, and what they refer to.
    pub fn add_to(self, components: &mut Map<String, Value>) {
        let mut add = |kind: &str, name: String, component: Value| {
            let kind = components[kind].as_object_mut().expect("an object");
            assert!(kind.insert(name, component).is_none(), "two components of one name");
        };
        for (name, response) in self.0 {
            add("responses", name, response);
        }
        add("schemas", "Problem".into(), problem());
        for reason in Reason::ALL {
            add("schemas", component(*reason), schema(*reason));
            add("examples", component(*reason), json!({ "summary": reason.title(), "value": example(*reason) }));
        }
    }
}

/// `INSUFFICIENT_STOCK` is `InsufficientStock`.
fn component(reason: Reason) -> String {
    let word = |word: &str| format!("{}{}", &word[..1], word[1..].to_ascii_lowercase());
    reason.name().split('_').map(word).collect()
}

/// Reasons of one status.
fn response(reasons: &[Reason]) -> Value {
    let meanings = reasons.iter().map(|reason| format!("`{}`: {}", reason.name(), reason.meaning()));
    let mut headers = answer_headers();
    match reasons[0].http_status() {
        405 => headers.insert("Allow".into(), reference("headers", "Allow")),
        503 => headers.insert("Retry-After".into(), reference("headers", "RetryAfter")),
        _ => None,
    };
    let schemas: Vec<_> = reasons.iter().map(|reason| reference("schemas", &component(*reason))).collect();
    let schema = match &schemas[..] {
        [one] => one.clone(),
        _ => json!({ "oneOf": schemas }),
    };
    let examples: Map<_, _> =
        reasons.iter().map(|reason| (reason.name().to_owned(), reference("examples", &component(*reason)))).collect();
    json!({
        "description": meanings.collect::<Vec<_>>().join("\n\n"),
        "headers": headers,
        "content": { PROBLEM_JSON: { "schema": schema, "examples": examples } },
    })
}

/// What all problems share.
fn problem() -> Value {
    json!({
        "description": "Why a request was refused or failed (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "reason"],
        "properties": {
            "type": { "description": "The page about it.", "type": "string", "format": "uri-reference" },
            "title": { "description": "What it is, in few words.", "type": "string" },
            "status": { "description": "That of the answer.", "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "description": "What it is this time.", "type": "string" },
            "instance": {
                "description": "Names the request: its `X-Request-Id` as a URN.",
                "type": "string",
                "format": "uri",
                "pattern": "^urn:(uuid|request):[A-Za-z0-9-]{1,64}$",
            },
            "reason": { "description": "What programs go by.", "type": "string", "enum": names() },
        },
    })
}

fn names() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.name()).collect()
}

fn schema(reason: Reason) -> Value {
    let mut properties = json!({
        "type": { "const": format!("/problems/{}", reason.name()) },
        "title": { "const": reason.title() },
        "status": { "const": reason.http_status() },
        "reason": { "const": reason.name() },
    });
    let mut required = vec!["type", "title", "status", "reason"];
    match reason {
        Reason::InvalidRequest => {
            // A gateway says it of more than one status, and of what it never passed on.
            properties["errors"] = json!({ "type": "array", "items": reference("schemas", "BadField"), "minItems": 1 });
        }
        Reason::InsufficientStock => {
            properties["error"] = json!({ "const": "insufficient_stock" });
            properties["remaining"] = reference("schemas", "Units");
            required.extend(["error", "remaining"]);
        }
        Reason::Unavailable => {
            properties["parts"] = reference("schemas", "Parts");
        }
        _ => {}
    }
    json!({
        "description": reason.meaning(),
        "allOf": [reference("schemas", "Problem"), { "required": required, "properties": properties }],
    })
}

/// As the edge writes it.
fn example(reason: Reason) -> Value {
    let problem = match reason {
        Reason::InvalidRequest => BadFields::one(Place::member("quantity"), "must be 1 to 1000000").into(),
        Reason::InsufficientStock => Failure::insufficient(7).into(),
        _ => Problem::of(reason),
    };
    problem.body(&Token::parse(REQUEST_ID).expect("sane"))
}
