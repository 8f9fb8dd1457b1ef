//! A failure on its way from a service, over gRPC, through the edge, to a client. An input is one as JSON:
//! `{"reason":…,"detail":…,"fields":[[…,…],…],"remaining":…}`.

use axum::body::Body;
use contracts::{Failure, Reason, failure::FieldViolation};
use http::Request;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    driver::{self, Inputs, Verdict, word},
    edge::Edge,
};

/// Most bytes of headers that an HTTP/2 client takes (hyper's default), each with 32 bytes of its own (RFC 9113).
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// What tonic, its server and HTTP add to a status.
const OTHER_HEADERS_BYTES: usize = 512;

#[test]
fn a_failure_reaches_the_client_with_all_that_it_says() {
    let edge = Edge::start();
    driver::run("failures", inputs(), |input| check(&edge, input));
}

fn parse(input: &[u8]) -> Option<Failure> {
    let value: Value = serde_json::from_slice(input).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let field = |pair: &Value| Some(FieldViolation { field: text(&pair[0])?, detail: text(&pair[1])? });
    let fields = value["fields"].as_array()?.iter().map(field).collect::<Option<_>>()?;
    let reason = Reason::from_name(value["reason"].as_str()?)?;
    let failure = Failure::new(reason, text(&value["detail"])?);
    Some(Failure { fields, remaining: value["remaining"].as_i64(), ..failure })
}

fn check(edge: &Edge, input: &[u8]) -> Verdict {
    let Some(sent) = parse(input) else { return Ok(()) };
    let headers = Status::from(sent.clone()).into_http::<()>().into_parts().0.headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    prop_assert!(bytes + OTHER_HEADERS_BYTES < HEADERS_BYTES_MAX, "{bytes} bytes of headers end the call");
    let status = Status::from_header_map(&headers);
    let got = status.as_ref().map(Failure::from_status);
    prop_assert!(got.is_some(), "{headers:?}");
    let got = got.expect("checked");
    prop_assert_eq!((got.reason, got.remaining, &got.cause), (sent.reason, sent.remaining, &None));
    same_or_cut(&got.detail, &sent.detail)?;
    prop_assert!(got.fields.len() == sent.fields.len() || (32..sent.fields.len()).contains(&got.fields.len()));
    for (got, sent) in got.fields.iter().zip(&sent.fields) {
        same_or_cut(&got.field, &sent.field)?;
        same_or_cut(&got.detail, &sent.detail)?;
    }
    check_at_client(edge, sent, &got)
}

/// Text that is long may be cut, but not what a person would write.
fn same_or_cut(got: &str, sent: &str) -> Verdict {
    prop_assert!(got == sent || (sent.len() > 60 && got.len() >= 60 && sent.starts_with(got)), "{got} of {sent}");
    Ok(())
}

fn check_at_client(edge: &Edge, sent: Failure, got: &Failure) -> Verdict {
    edge.fail(sent);
    let answer = edge.ask(Request::get("/inventory/widget").body(Body::empty()).expect("valid"))?;
    let body = &answer.body;
    prop_assert_eq!(body["reason"].as_str(), Some(got.reason.name()), "{}", body);
    prop_assert_eq!(body["detail"].as_str(), Some(&*got.detail));
    prop_assert_eq!(body["remaining"].as_i64(), got.remaining);
    let errors: Vec<_> = body["errors"].as_array().into_iter().flatten().collect();
    prop_assert_eq!(errors.len(), got.fields.len().min(32));
    for (error, field) in errors.into_iter().zip(&got.fields) {
        prop_assert_eq!(error["detail"].as_str(), Some(&*field.detail));
        let name = if field.field == "page_size" { "limit" } else { &field.field };
        prop_assert_eq!(error["parameter"].as_str(), Some(name));
    }
    Ok(())
}

fn inputs() -> Inputs {
    let text = || {
        prop_oneof![
            4 => any::<String>(),
            2 => "\\PC{0,40}",
            1 => word(&["", "a\r\nb: c", "%41%", "\0", "\u{e9}", "\"quoted\"", "</script>", "\\u0041"]),
            1 => (any::<char>(), 1..3_000_usize).prop_map(|(c, n)| c.to_string().repeat(n)),
        ]
    };
    let name = || prop_oneof![3 => word(&["item", "page_size", "ttl", "idempotency_key"]), 1 => text()];
    let fields = prop_oneof![
        6 => vec((name(), text()), 0..4),
        1 => vec((name(), text()), 20..60),
        1 => (0..1_000_usize).prop_map(|n| vec![("a".to_owned(), "is bad".to_owned()); n]),
    ];
    let reason = select(Reason::ALL).prop_map(Reason::name);
    let remaining = prop_oneof![Just(None), any::<i64>().prop_map(Some)];
    (reason, text(), fields, remaining)
        .prop_map(|(reason, detail, fields, remaining)| {
            json!({ "reason": reason, "detail": detail, "fields": fields, "remaining": remaining }).to_string().into()
        })
        .boxed()
}
