use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The status and the body that a GET is answered with, if it is within 5 s.
pub async fn get(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let ask = async {
        let mut connection = TcpStream::connect(addr).await?;
        // 1.0: the body is whole and ends with the connection.
        connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(ANSWER_LIMIT, ask).await.ok()?.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The sum of a metric over all label sets at this admin address; 0 when there is none, or no answer.
pub async fn metric(admin: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(admin, "/metrics").await.unwrap_or_default();
    let of_name = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    };
    let value = |line: &str| -> f64 {
        let (_, value) = line.rsplit_once(' ').expect("a value");
        value.parse().expect("a number")
    };
    text.lines().filter(of_name).map(value).sum()
}
