//! Stands in for an edge: keeps every request that it gets, as bytes, and answers as no real edge would.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use system_tests::raw;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What it does with a request.
#[derive(Clone, Copy)]
pub enum Act {
    /// Answers 200.
    Answers,
    /// The same, after this long.
    AnswersAfter(Duration),
    /// Closes the connection without an answer.
    Dies,
    /// Has the edge at this address serve the request, and closes the connection without an answer.
    DiesAfter(SocketAddr),
    /// Never answers.
    Hangs,
}

/// What it has seen.
#[derive(Default)]
pub struct Seen {
    /// Head and body of every request.
    pub requests: Vec<String>,
    /// Connections on which a request came.
    pub connections: usize,
    /// How long the connections that the other side ended were idle before.
    pub idle: Vec<Duration>,
}

/// A running one. It ends with the test.
pub struct StandIn {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl StandIn {
    pub async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::default());
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, act, Arc::clone(&shared)));
            }
        });
        Self { addr, seen }
    }

    pub fn requests(&self) -> Vec<String> {
        self.with(|seen| seen.requests.clone())
    }

    pub fn with<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.lock().expect("whole"))
    }
}

async fn serve(mut stream: TcpStream, act: Act, seen: Arc<Mutex<Seen>>) {
    for number in 0.. {
        let since = Instant::now();
        let Some(request) = read_request(&mut stream).await else {
            seen.lock().expect("whole").idle.push(since.elapsed());
            return;
        };
        {
            let mut seen = seen.lock().expect("whole");
            seen.connections += usize::from(number == 0);
            seen.requests.push(String::from_utf8_lossy(&request).into_owned());
        }
        match act {
            Act::Answers => {}
            Act::AnswersAfter(delay) => tokio::time::sleep(delay).await,
            Act::Dies => return,
            Act::DiesAfter(edge) => {
                raw::send(edge, &request).await;
                return;
            }
            Act::Hangs => std::future::pending().await,
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(answer).await.expect("it is read");
    }
}

/// Head and body; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.ok()?;
    Some([bytes, body].concat())
}
