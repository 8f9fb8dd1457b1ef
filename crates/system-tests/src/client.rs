//! HTTP as a client sees it.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::Value;

/// No answer takes longer than this, or the test fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A pooled HTTP/1.1 client of one server.
#[derive(Clone)]
pub struct Client {
    addr: SocketAddr,
    pool: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// Of the server at this address.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, pool: legacy::Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Sends a request and reads the answer; an error is a connection that failed or was lost.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, legacy::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a valid request");
        let work = async {
            let (head, body) = self.pool.request(request).await?.into_parts();
            Ok((head, body.collect().await))
        };
        let (head, body) = tokio::time::timeout(ANSWER_TIMEOUT, work).await.expect("an answer in time")?;
        // A body cut short is a lost answer too; an empty one stands for it.
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Sends a request that must be answered.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, json: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], json.to_string()).await
    }

    /// POST of JSON with an Idempotency-Key.
    pub async fn post_with_key(&self, path: &str, key: &str, json: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        self.send(Method::POST, path, &headers, json.to_string()).await
    }

    /// Units of an item that are free.
    pub async fn stock(&self, item: &str) -> i64 {
        let answer = self.get(&format!("/inventory/{}", segment(item))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["stock"].as_i64().expect("a number")
    }
}

/// Text as a path segment.
fn segment(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// A header's value, empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The order's id.
    pub fn id(&self) -> String {
        self.json()["id"].as_str().unwrap_or_else(|| panic!("no id: {self:?}")).to_owned()
    }

    /// The body, once it is a problem of this status and reason in every respect that all problems share.
    #[track_caller]
    pub fn problem(&self, status: u16, reason: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!((&body["reason"], &body["status"]), (&reason.into(), &status.into()), "{body}");
        assert_eq!(body["type"], format!("/problems/{reason}"));
        for text in ["title", "detail", "instance"] {
            assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {body}");
        }
        let id = self.header("x-request-id");
        assert!(!id.is_empty() && body["instance"].as_str().is_some_and(|instance| instance.ends_with(id)), "{body}");
        body
    }

    /// The names of the body's members, sorted.
    pub fn members(&self) -> Vec<String> {
        let mut names: Vec<_> = self.json().as_object().expect("an object").keys().cloned().collect();
        names.sort();
        names
    }
}
