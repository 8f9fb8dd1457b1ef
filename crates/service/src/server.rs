//! One way to listen, for HTTP/JSON, gRPC and admin alike: HTTP/1.1 and HTTP/2 in clear text on the same port.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use futures::future::BoxFuture;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::environment::Env;

/// Connections that a server holds at a time, unless told otherwise. More wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 4096;
/// Length of that queue. The usual 128 is full within a burst of clients; who finds it so gets no answer for a second.
pub const ACCEPT_QUEUE_MAX: u32 = 4096;
/// Requests under way on one HTTP/2 connection of a stranger.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// Calls under way on one connection between services. More than an edge has under way, because it asks after a service's
/// health on the same connection.
pub const CALLS_PER_CONNECTION_MAX: u32 = 2560;
/// Requests that a stranger may cancel before they are begun; then its connection is closed.
pub const CANCELS_MAX: usize = 20;
/// Time for a client to send the head of its (next) HTTP/1 request, or to show which HTTP it speaks.
pub const HEADER_READ_TIMEOUT_MS: u64 = 10_000;
/// Size of a request's head.
pub const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Silence after which an HTTP/2 peer is asked whether it is still there.
pub const KEEPALIVE_INTERVAL_MS: u64 = 20_000;
/// Time for its answer; then the connection is closed.
pub const KEEPALIVE_TIMEOUT_MS: u64 = 10_000;
/// Time for a connection that is accepted at the end to send the beginning of its request.
pub const LAST_REQUEST_MS: u64 = 250;
/// Pause after a failed accept: out of file descriptors, it would fail again at once.
pub const ACCEPT_BACKOFF_MS: u64 = 100;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {addr}: {error}")]
pub struct BindError {
    setting: &'static str,
    addr: SocketAddr,
    #[source]
    error: io::Error,
}

/// A bound address. Bind all of a process's addresses before serving any.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
}

impl Listener {
    /// Binds it; port 0 takes a free one.
    #[expect(clippy::unused_async, reason = "only within a runtime can it be called")]
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted process takes its address again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let socket = socket.listen(ACCEPT_QUEUE_MAX)?;
        let addr = socket.local_addr()?;
        Ok(Self { socket, addr })
    }

    /// The same for an address that an operator has set.
    pub async fn bind_set(setting: &'static str, addr: SocketAddr) -> Result<Self, BindError> {
        Self::bind(addr).await.map_err(|error| BindError { setting, addr, error })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// What a server takes on.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time.
    pub connections_max: usize,
    /// Requests under way on one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// Requests cancelled before they are begun, on one HTTP/2 connection.
    pub cancels_max: usize,
    /// Time for the head of an HTTP/1 request.
    pub header_read_timeout: Duration,
}

impl Limits {
    /// Between services, where one connection carries the calls of many clients: it must not end because deadlines pass.
    pub fn internal() -> Self {
        let streams_per_connection_max = CALLS_PER_CONNECTION_MAX;
        Self { streams_per_connection_max, cancels_max: streams_per_connection_max as usize, ..Self::default() }
    }
}

/// For strangers.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            streams_per_connection_max: STREAMS_PER_CONNECTION_MAX,
            cancels_max: CANCELS_MAX,
            header_read_timeout: Duration::from_millis(HEADER_READ_TIMEOUT_MS),
        }
    }
}

/// Travels with every request: cancelled when the server wants to end, so that endless answers end too.
#[derive(Debug, Clone)]
pub struct Draining(pub CancellationToken);

/// Serves until `drain` is cancelled, then takes no connections but those that wait already, tells clients to go away,
/// finishes the requests under way, and returns. How long that may take is for the caller to bound.
pub async fn serve(listener: Listener, router: Router, limits: Limits, env: Env, drain: CancellationToken) {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let protocol = protocol(&limits, &env);
    let (http1, http2) = (protocol.clone().http1_only(), protocol.http2_only());
    let connections = Arc::new(Connections { http1, http2, router, limits, env, drain });
    let start = |(stream, permit)| {
        let task = Arc::clone(&connections).run(stream, permit);
        connections.env.start(Box::pin(task));
    };
    while let Some(taken) = next(&listener.socket, &room, &connections).await {
        start(taken);
    }
    waiting(listener.socket, &room).into_iter().for_each(start);
    // They have ended once nobody has a permit.
    let all = u32::try_from(connections.limits.connections_max).unwrap_or(u32::MAX);
    let _ = room.acquire_many(all).await;
}

/// The connections that the kernel has taken for the server. They would be reset with the socket, which is closed here.
fn waiting(socket: TcpListener, room: &Arc<Semaphore>) -> Vec<(TcpStream, OwnedSemaphorePermit)> {
    // Asked directly: tokio would wait for the next event, although there may be more than it knows.
    let Ok(socket) = socket.into_std() else { return Vec::new() };
    let accept = || {
        let permit = Arc::clone(room).try_acquire_owned().ok()?;
        let (stream, _) = socket.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, permit))
    };
    std::iter::from_fn(accept).collect()
}

/// What all connections of a server share.
struct Connections {
    http1: auto::Builder<Tasks>,
    http2: auto::Builder<Tasks>,
    router: Router,
    limits: Limits,
    env: Env,
    drain: CancellationToken,
}

/// The next connection, once there is room for it. `None` when draining.
async fn next(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
    connections: &Connections,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accept = async {
        let permit = Arc::clone(room).acquire_owned().await.expect("it is never closed");
        loop {
            match socket.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(e) => {
                    tracing::warn!(error = %e, "accept failed");
                    connections.env.sleep(Duration::from_millis(ACCEPT_BACKOFF_MS)).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = connections.drain.cancelled() => None,
        accepted = accept => Some(accepted),
    }
}

impl Connections {
    async fn run(self: Arc<Self>, mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
        // Answers are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let Some(start) = self.first_bytes(&mut stream).await else { return };
        let protocol = if start == HTTP2_PREFACE { &self.http2 } else { &self.http1 };
        let (reading, writing) = stream.into_split();
        let io = tokio::io::join(io::Cursor::new(start).chain(reading), writing);
        self.speak(protocol, io).await;
    }

    /// Enough of what the client sends to know whether it speaks HTTP/2. hyper would wait for it without a limit.
    async fn first_bytes(&self, stream: &mut TcpStream) -> Option<Vec<u8>> {
        let read = async {
            let mut start = Vec::with_capacity(HTTP2_PREFACE.len());
            while start.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&start) {
                let missing = HTTP2_PREFACE.len() - start.len();
                let count = (&mut *stream).take(missing as u64).read_buf(&mut start).await.ok()?;
                if count == 0 {
                    return None;
                }
            }
            Some(start)
        };
        let drained = async {
            self.drain.cancelled().await;
            self.env.sleep(Duration::from_millis(LAST_REQUEST_MS)).await;
        };
        tokio::select! {
            biased;
            start = self.env.timeout(self.limits.header_read_timeout, read) => start.ok().flatten(),
            () = drained => None,
        }
    }

    async fn speak<T>(&self, protocol: &auto::Builder<Tasks>, io: T)
    where
        T: tokio::io::AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Draining(self.drain.clone()));
            self.router.clone().oneshot(request)
        });
        let mut connection = std::pin::pin!(protocol.serve_connection(TokioIo::new(io), answer));
        let ended = tokio::select! {
            biased;
            // First, because hyper answers nothing that it has not begun to read when it is told to end.
            ended = connection.as_mut() => ended,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!(error = %e, "connection ended early");
        }
    }
}

fn protocol(limits: &Limits, env: &Env) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(Tasks(Arc::clone(env)));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(KEEPALIVE_TIMEOUT_MS))
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(limits.cancels_max)
        .max_concurrent_streams(limits.streams_per_connection_max);
    builder
}

/// Runs each HTTP/2 request as a task of the environment.
#[derive(Clone)]
struct Tasks(Env);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let task: BoxFuture<'static, ()> = Box::pin(task);
        self.0.start(task);
    }
}
