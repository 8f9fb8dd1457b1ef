//! HTTP/1.1 as raw bytes: what a well-meaning client library would never send can be sent too.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// No answer takes longer than this, or the test fails.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The only value of this header; `None` when there is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is repeated: {self:?}");
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The answer's body, after checking that it is a problem of this reason in every respect that all problems share.
    #[track_caller]
    pub fn problem(&self, reason: contracts::Reason) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.check_headers();
        let body = self.json();
        assert_eq!(body["reason"], reason.name(), "{body}");
        assert_eq!(self.status, reason.http_status());
        assert_eq!(body["status"], self.status);
        assert_eq!(body["type"], format!("/problems/{}", reason.name()));
        assert_eq!(body["title"], reason.title());
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
        let instance = body["instance"].as_str().expect("text");
        let id = self.header("x-request-id").expect("an id");
        assert!([format!("urn:uuid:{id}"), format!("urn:request:{id}")].contains(&instance.to_owned()), "{instance}");
        assert_eq!(self.header("retry-after"), (self.status == 503).then_some("1"));
        assert_eq!(self.header("allow").is_some(), self.status == 405);
        body
    }

    /// The entries of a 400's `errors` as `pointer:/quantity` and the like.
    #[track_caller]
    pub fn bad_fields(&self) -> Vec<String> {
        let body = self.problem(contracts::Reason::InvalidRequest);
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no errors in {body}"));
        let place = |error: &Value| {
            let error = error.as_object().expect("an object");
            assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error:?}");
            let (kind, name) = error.iter().find(|(name, _)| *name != "detail").expect("a place");
            format!("{kind}:{}", name.as_str().expect("text"))
        };
        errors.iter().map(place).collect()
    }

    /// What every answer has, problem or not.
    #[track_caller]
    pub fn check_headers(&self) {
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert!(self.header("cache-control").is_some());
        assert!(self.header("x-request-id").is_some());
    }
}

/// Sends these bytes on a new connection and reads one answer.
pub async fn send(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    let head_only = bytes.starts_with(b"HEAD ");
    // A server may refuse before it has read all; what it answered is what counts.
    let _ = stream.write_all(bytes).await;
    read_answer(&mut stream, head_only).await
}

/// Reads one answer from the connection.
pub async fn read_answer(stream: &mut TcpStream, head_only: bool) -> Answer {
    timeout(ANSWER_TIMEOUT, read(stream, head_only)).await.expect("an answer in time")
}

async fn read(stream: &mut TcpStream, head_only: bool) -> Answer {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.expect("no reset"), 0, "closed before the answer");
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let mut body = bytes.split_off(end + 4);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let pairs = lines.map(|line| line.split_once(": ").expect("a header"));
    let headers: Vec<_> = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut answer = Answer { status: status.parse().expect("a number"), headers, body: Vec::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a number"));
    assert_eq!(answer.header("transfer-encoding"), None, "answers have a length");
    while !head_only && body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.expect("no reset"), 0, "closed within the answer");
    }
    answer.body = body;
    answer
}
