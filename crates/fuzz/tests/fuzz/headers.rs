//! Headers: `Idempotency-Key`, `X-Request-Id`, `X-Attempt-Id` and `traceparent`.

use axum::body::Body;
use http::{HeaderValue, Request, StatusCode};
use proptest::{prelude::*, sample::select};

use crate::{
    driver::{self, Inputs, Verdict},
    edge::{Answer, Edge, Seen},
    rules,
};

const BODY: &str = r#"{"item":"widget","quantity":1}"#;

fn order(edge: &Edge, headers: &[(&'static str, &HeaderValue)]) -> Result<Answer, TestCaseError> {
    let mut request = Request::post("/orders").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    edge.ask(request.body(BODY.into()).expect("valid"))
}

/// The key that reaches the order service.
fn passed(answer: &Answer) -> Option<&str> {
    match &answer.seen[..] {
        [Seen::Create(order)] => order.idempotency_key.as_deref(),
        _ => None,
    }
}

#[test]
fn a_key_is_taken_exactly_when_the_rules_say_so_and_is_the_same_bare_and_quoted() {
    let edge = Edge::start();
    driver::run("keys", keys(), |input| check_key(&edge, input));
}

fn check_key(edge: &Edge, input: &[u8]) -> Verdict {
    // What no header can hold gets no further than the parser of HTTP.
    let Ok(value) = HeaderValue::from_bytes(input) else { return Ok(()) };
    let answer = order(edge, &[("idempotency-key", &value)])?;
    let Some(key) = rules::key(input) else { return answer.refused_at("header", vec!["Idempotency-Key".to_owned()]) };
    prop_assert_eq!(answer.status, StatusCode::CREATED);
    prop_assert_eq!(passed(&answer), Some(&*key));

    let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
    let bare = (!key.starts_with('"')).then(|| key.clone());
    for other in bare.into_iter().chain([quoted]) {
        let other = HeaderValue::from_str(&other).expect("printable");
        let answer = order(edge, &[("idempotency-key", &other)])?;
        prop_assert_eq!(passed(&answer), Some(&*key));
        let twice = order(edge, &[("idempotency-key", &value), ("idempotency-key", &other)])?;
        twice.refused_at("header", vec!["Idempotency-Key".to_owned()])?;
    }
    Ok(())
}

fn keys() -> Inputs {
    let printable = "[ -~]{0,12}";
    prop_oneof![
        printable.prop_map(String::into_bytes),
        printable.prop_map(|key| format!("\"{key}\"").into_bytes()),
        "[a-z\\\\\"]{0,8}"
            .prop_map(|key| format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\"")).into_bytes()),
        (250..262_usize, any::<bool>()).prop_map(|(n, quote)| {
            if quote { format!("\"{}\"", "k".repeat(n)).into_bytes() } else { vec![b'k'; n] }
        }),
        (120..132_usize).prop_map(|n| format!("\"{}\"", "\\\\".repeat(n)).into_bytes()),
        select(&["?1", "1", "tok", "a;b=1", "\"a\";b", ":YQ==:", "(\"a\")", "\"a\", \"b\"", "%\"a%20\"", "@1"][..])
            .prop_map(|text| text.as_bytes().to_vec()),
        any::<Vec<u8>>(),
    ]
    .boxed()
}

#[test]
fn an_id_is_taken_over_exactly_when_it_is_sane() {
    let edge = Edge::start();
    driver::run("ids", ids(), |input| check_ids(&edge, input));
}

fn check_ids(edge: &Edge, input: &[u8]) -> Verdict {
    let Ok(value) = HeaderValue::from_bytes(input) else { return Ok(()) };
    let answer = order(edge, &[("x-request-id", &value), ("x-attempt-id", &value), ("traceparent", &value)])?;
    prop_assert_eq!(answer.status, StatusCode::CREATED);
    let [Seen::Create(asked)] = &answer.seen[..] else { return Err(TestCaseError::fail("no order")) };
    let attempt = asked.attempt_id.as_deref().unwrap_or_default();
    for used in [answer.headers["x-request-id"].as_bytes(), attempt.as_bytes()] {
        prop_assert_eq!(used == input, rules::is_token(input));
        prop_assert!(rules::is_token(used));
    }
    let problem =
        edge.ask(Request::get("/nothing").header("x-request-id", &value).body(Body::empty()).expect("valid"))?;
    let id = problem.headers["x-request-id"].to_str().expect("sane");
    let is_uuid = rules::uuid(id).is_some();
    let instance = if is_uuid { format!("urn:uuid:{}", id.to_ascii_lowercase()) } else { format!("urn:request:{id}") };
    prop_assert_eq!(problem.body["instance"].as_str(), Some(&*instance));
    Ok(())
}

fn ids() -> Inputs {
    prop_oneof![
        "[A-Za-z0-9-]{0,66}",
        "[A-Za-z0-9-]{0,4}[_.:/+=~ ][A-Za-z0-9-]{0,4}",
        "[ -~]{0,10}",
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "\\{?[0-9a-f]{32}\\}?",
        "0[01]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?",
    ]
    .prop_map(String::into_bytes)
    .boxed()
}
