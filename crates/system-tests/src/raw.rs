//! HTTP/1.1 as bytes: what a well-meaning client library would never send can be sent too.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Answer;

/// No answer takes longer than this, or the test fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A POST with these header lines, each ended by CRLF. Nothing is added but `Host`.
pub fn post(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: orders\r\n{lines}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A GET with these header lines, each ended by CRLF, and a body.
pub fn get(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("GET {path} HTTP/1.1\r\nHost: orders\r\n{lines}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A POST of JSON, or of what pretends to be JSON.
pub fn post_json(path: &str, body: &[u8]) -> Vec<u8> {
    post(path, &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()), body)
}

/// A POST of JSON in chunks of so many bytes.
pub fn post_chunked(path: &str, body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let mut bytes = post(path, "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"");
    for chunk in body.chunks(chunk_bytes) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Sends these bytes on a new connection and reads one answer.
pub async fn send(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(addr).await;
    write(&mut stream, bytes).await;
    read(&mut stream).await.expect("an answer")
}

/// Sends these bytes, or those of them that the other side takes: it may refuse before it has read all, and what it
/// answers is what counts.
pub async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
}

/// Sends no more.
pub async fn finish(stream: &mut TcpStream) {
    // Closed by the other side already: then it reads no more either.
    let _ = stream.shutdown().await;
}

/// A new connection.
pub async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.expect("it listens")
}

/// Reads one answer, head and body; `None` if the connection ends before one begins. An answer cut short is a failure.
pub async fn read(stream: &mut TcpStream) -> Option<Answer> {
    timeout(ANSWER_TIMEOUT, read_answer(stream)).await.expect("an answer in time")
}

/// Reads to the end of the connection, which must come.
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(ANSWER_TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    bytes
}

async fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let head_bytes = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        // One byte at a time: what follows the answer belongs to the next one.
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) if bytes.is_empty() => return None,
            Err(error) => panic!("cut within the head ({error}): {bytes:?}"),
        }
    };
    let head = std::str::from_utf8(&bytes[..head_bytes - 4]).expect("text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let status = StatusCode::from_bytes(status.as_bytes()).expect("a status");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let length = headers.get("content-length").map_or("0", |value| value.to_str().expect("text"));
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("the whole body");
    Some(Answer { status, headers, body: body.into() })
}
