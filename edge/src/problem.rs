//! Refusals as `application/problem+json` (RFC 9457). A handler answers a [`Problem`]; `front` writes the body, because
//! only there the request's id is known and only there a failure is logged.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use contracts::{Failure, Reason, failure::FieldViolation, values::Token};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    fields::{BadFields, Place},
    headers::{IDEMPOTENCY_KEY, X_ATTEMPT_ID},
};

/// Media type of every answer that is no success.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Where the pages about problems are.
pub const PROBLEMS: &str = "/problems";
/// What 503 answers advise, in seconds.
pub const RETRY_AFTER_SECONDS: &str = "1";

/// Why a request was refused, with everything that its body will say but the request's id.
#[derive(Debug, Clone)]
pub struct Problem {
    failure: Box<Failure>,
    errors: BadFields,
    members: Map<String, Value>,
}

impl Problem {
    /// With the reason's own text.
    pub fn of(reason: Reason) -> Self {
        Failure::of(reason).into()
    }

    /// With bad fields.
    pub fn with_fields(failure: Failure, errors: BadFields) -> Self {
        Self { failure: Box::new(failure), errors, members: Map::new() }
    }

    /// With one more member, beside those of RFC 9457.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// What a peer refused of a request that has no body: bad fields are parameters.
    pub fn in_url(failure: Failure) -> Self {
        Self::from_failure(failure, |field| match field {
            "page_size" => Place::parameter("limit"),
            other => Place::parameter(other),
        })
    }

    fn from_failure(mut failure: Failure, place: impl Fn(&str) -> Place) -> Self {
        let mut errors = BadFields::default();
        for FieldViolation { field, detail } in std::mem::take(&mut failure.fields) {
            errors.add(place(&field), detail);
        }
        let remaining = failure.remaining;
        let insufficient = failure.reason == Reason::InsufficientStock;
        let mut problem = Self::with_fields(failure, errors);
        if insufficient {
            problem = problem.member("error", "insufficient_stock".into());
        }
        match remaining {
            Some(units) => problem.member("remaining", units.into()),
            None => problem,
        }
    }

    /// What programs go by.
    pub fn reason(&self) -> Reason {
        self.failure.reason
    }

    /// What the operator should read.
    pub fn cause(&self) -> Option<&str> {
        self.failure.cause.as_deref()
    }

    /// The body, for the request of this id.
    pub fn body(&self, request_id: &Token) -> Value {
        let reason = self.reason();
        let mut body = Map::new();
        body.insert("type".into(), page_of(reason).into());
        body.insert("title".into(), reason.title().into());
        body.insert("status".into(), reason.http_status().into());
        body.insert("detail".into(), self.failure.detail.clone().into());
        body.insert("instance".into(), instance(request_id).into());
        body.insert("reason".into(), reason.name().into());
        if !self.errors.is_empty() {
            body.insert("errors".into(), self.errors.to_json());
        }
        // Last, and without shadowing those of RFC 9457.
        for (name, value) in &self.members {
            body.entry(name).or_insert_with(|| value.clone());
        }
        body.into()
    }

    /// Writes body and headers into a response that this problem was put into.
    pub fn write(&self, request_id: &Token, response: &mut Response) {
        let body = self.body(request_id).to_string();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.reason().http_status() == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        *response.body_mut() = body.into();
    }
}

/// A problem's `type`, and where its page is.
pub fn page_of(reason: Reason) -> String {
    format!("{PROBLEMS}/{}", reason.name())
}

fn instance(request_id: &Token) -> String {
    // Only the form that RFC 9562 writes; `urn:uuid:` names nothing else.
    match Uuid::try_parse(request_id.as_str()) {
        Ok(id) if request_id.as_str().len() == 36 => format!("urn:uuid:{id}"),
        _ => format!("urn:request:{request_id}"),
    }
}

/// What a peer refused of a request that has a body.
impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::from_failure(failure, |field| match field {
            "idempotency_key" => Place::Header(IDEMPOTENCY_KEY),
            "attempt_id" => Place::Header(X_ATTEMPT_ID),
            "ttl" => Place::member("ttl_seconds"),
            other => Place::member(other),
        })
    }
}

/// A response whose body `front` still has to write.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.reason().http_status()).expect("the table holds valid statuses");
        let mut response = status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Any path that is not served, gRPC methods among them.
pub async fn not_found() -> Problem {
    Problem::of(Reason::RouteNotFound)
}

/// A path that is served, but not by this method; the router adds `Allow`.
pub async fn method_not_allowed() -> Problem {
    Problem::of(Reason::MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(text: &str) -> Token {
        Token::parse(text).expect("sane")
    }

    #[test]
    fn every_reason_has_a_complete_body() {
        for reason in Reason::ALL {
            let body = Problem::of(*reason).body(&token("6ba7b810-9dad-41d1-80b4-00c04fd430c8"));
            assert_eq!(body["type"], format!("/problems/{}", reason.name()));
            assert_eq!(body["status"], reason.http_status());
            assert_eq!(body["reason"], reason.name());
            assert_eq!(body["instance"], "urn:uuid:6ba7b810-9dad-41d1-80b4-00c04fd430c8");
            assert!(body["title"].is_string() && body["detail"].is_string() && body.get("errors").is_none());
        }
    }

    #[test]
    fn a_request_id_that_is_no_uuid_is_named_otherwise() {
        assert_eq!(instance(&token("abc-1")), "urn:request:abc-1");
        let unhyphenated = "6ba7b8109dad41d180b400c04fd430c8";
        assert_eq!(instance(&token(unhyphenated)), format!("urn:request:{unhyphenated}"));
    }

    #[test]
    fn fields_of_a_peer_become_places_of_the_request() {
        let bad = |field: &str| Failure::field(field, "no");
        let errors = |problem: Problem| problem.body(&token("x"))["errors"][0].clone();
        assert_eq!(errors(bad("item").into()), json!({ "pointer": "/item", "detail": "no" }));
        assert_eq!(errors(bad("ttl").into()), json!({ "pointer": "/ttl_seconds", "detail": "no" }));
        assert_eq!(errors(bad("idempotency_key").into()), json!({ "header": "Idempotency-Key", "detail": "no" }));
        assert_eq!(errors(Problem::in_url(bad("page_size"))), json!({ "parameter": "limit", "detail": "no" }));
        assert_eq!(errors(Problem::in_url(bad("page_token"))), json!({ "parameter": "page_token", "detail": "no" }));
    }

    #[test]
    fn too_little_stock_says_how_much_there_is() {
        let body = Problem::from(Failure::insufficient(3)).body(&token("x"));
        assert_eq!((&body["error"], &body["remaining"]), (&json!("insufficient_stock"), &json!(3)));
    }
}
