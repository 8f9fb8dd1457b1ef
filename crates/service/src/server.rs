//! One way to listen, for HTTP/JSON, gRPC and admin alike: HTTP/1.1 and HTTP/2 in clear text on the same port.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use futures::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{environment::Env, open_files};

mod connections;
mod turns;

pub use connections::{LEAVE_TIMEOUT_MS, UnderWay};
pub use turns::TURN_BYTES;

use connections::{Connection, Connections};
use turns::Turns;

/// Connections that a server holds at a time, unless told otherwise, or unless that is more than three quarters of the
/// files that the process may open. The next one takes the place of the one that has been idle for the longest.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections that wait to be accepted. The usual 128 is full within a burst of clients; who finds it so gets no answer
/// for a second.
pub const ACCEPT_QUEUE_MAX: u32 = 4096;
/// Requests under way on one HTTP/2 connection of a stranger.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// Calls under way on one connection between services. More than an edge has under way, because it asks after a service's
/// health on the same connection.
pub const CALLS_PER_CONNECTION_MAX: u32 = 4096;
/// Requests that a stranger may cancel before they are begun; then its connection is closed.
pub const CANCELS_MAX: usize = 20;
/// Requests that a stranger may abandon once they are begun, as long as most are not; then its connection is closed.
pub const ABANDONED_MAX: usize = 100;
/// Bytes that a stranger may send on a connection, or on one of its streams, before they are read. A body fits.
pub const WINDOW_BYTES: u32 = 64 * 1024;
/// The same between services: a large message fits.
pub const INTERNAL_WINDOW_BYTES: u32 = 1024 * 1024;
/// Time for a client to read what it is sent; then its connection is closed.
pub const ANSWER_READ_TIMEOUT_MS: u64 = 10_000;
/// Answers in memory that have not been read. When there are more, the connection of the oldest is closed.
pub const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time without a request after which a stranger's connection is closed. HTTP/1 has less, that for the next head.
pub const IDLE_TIMEOUT_MS: u64 = 60_000;
/// How often connections are looked through for those to close.
pub const SWEEP_PAUSE_MS: u64 = 500;
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
    /// Requests abandoned once they are begun, unless most are not.
    pub abandoned_max: usize,
    /// Bytes on their way to the server, on a connection or one of its streams.
    pub window_bytes: u32,
    /// Time for the head of an HTTP/1 request.
    pub header_read_timeout: Duration,
    /// Time without a request.
    pub idle_timeout: Duration,
    /// Time for a client to read an answer.
    pub answer_read_timeout: Duration,
    /// Answers in memory that have not been read.
    pub unread_bytes_max: usize,
}

impl Limits {
    /// Between services, where one connection carries the calls of many clients: it must not end because deadlines pass.
    pub fn internal() -> Self {
        Self {
            streams_per_connection_max: CALLS_PER_CONNECTION_MAX,
            cancels_max: CALLS_PER_CONNECTION_MAX as usize,
            abandoned_max: usize::MAX,
            window_bytes: INTERNAL_WINDOW_BYTES,
            idle_timeout: Duration::MAX,
            ..Self::default()
        }
    }
}

/// For strangers.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            streams_per_connection_max: STREAMS_PER_CONNECTION_MAX,
            cancels_max: CANCELS_MAX,
            abandoned_max: ABANDONED_MAX,
            window_bytes: WINDOW_BYTES,
            header_read_timeout: Duration::from_millis(HEADER_READ_TIMEOUT_MS),
            idle_timeout: Duration::from_millis(IDLE_TIMEOUT_MS),
            answer_read_timeout: Duration::from_millis(ANSWER_READ_TIMEOUT_MS),
            unread_bytes_max: UNREAD_BYTES_MAX,
        }
    }
}

/// Travels with every request: cancelled when the server wants to end, so that endless answers end too.
#[derive(Debug, Clone)]
pub struct Draining(pub CancellationToken);

/// Serves until `drain` is cancelled, then takes no connections but those that wait already, tells clients to go away,
/// finishes the requests under way, and returns. How long that may take is for the caller to bound.
pub async fn serve(listener: Listener, router: Router, mut limits: Limits, env: Env, drain: CancellationToken) {
    // The process has to open other files too.
    limits.connections_max = limits.connections_max.min(open_files::limit() / 4 * 3);
    let protocol = protocol(&limits, &env);
    let (http1, http2) = (protocol.clone().http1_only(), protocol.http2_only());
    let connections = Connections::new(Arc::clone(&env), limits.clone(), drain.clone());
    let server = Arc::new(Server { http1, http2, router, limits, env, drain, connections });
    let open = TaskTracker::new();
    let sweeping = async {
        loop {
            server.env.sleep(Duration::from_millis(SWEEP_PAUSE_MS)).await;
            server.connections.sweep();
        }
    };
    let mut sweeping = std::pin::pin!(sweeping);
    tokio::select! {
        biased;
        () = server.drain.cancelled() => {}
        () = server.accept(&listener.socket, &open) => {}
        () = &mut sweeping => {}
    }
    waiting(listener.socket).for_each(|stream| server.start(stream, &open));
    open.close();
    // Clients that do not read their last answers hold nothing up.
    tokio::select! { biased; () = open.wait() => {} () = &mut sweeping => {} }
}

/// The connections that the kernel has taken for the server. They would be reset with the socket, which is closed here.
fn waiting(socket: TcpListener) -> impl Iterator<Item = TcpStream> {
    // Asked directly: tokio would wait for the next event, although there may be more than it knows.
    let socket = socket.into_std().ok();
    let next = move || {
        let (stream, _) = socket.as_ref()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        TcpStream::from_std(stream).ok()
    };
    // Clients may connect faster than that; those who come later have not waited.
    std::iter::from_fn(next).take(ACCEPT_QUEUE_MAX as usize)
}

/// What all connections of a server share.
struct Server {
    http1: auto::Builder<Tasks>,
    http2: auto::Builder<Tasks>,
    router: Router,
    limits: Limits,
    env: Env,
    drain: CancellationToken,
    connections: Arc<Connections>,
}

impl Server {
    async fn accept(self: &Arc<Self>, socket: &TcpListener, open: &TaskTracker) {
        loop {
            match socket.accept().await {
                Ok((stream, _)) => self.start(stream, open),
                Err(e) => {
                    tracing::warn!(error = %e, "accept failed");
                    self.connections.make_room();
                    self.env.sleep(Duration::from_millis(ACCEPT_BACKOFF_MS)).await;
                }
            }
        }
    }

    fn start(self: &Arc<Self>, stream: TcpStream, open: &TaskTracker) {
        // All are at work: whoever comes now is closed at once, and can try elsewhere.
        let Some(connection) = self.connections.open() else { return };
        let server = Arc::clone(self);
        let task = async move {
            tokio::select! {
                biased;
                () = connection.cut().cancelled() => tracing::debug!("connection cut"),
                () = server.run(stream, &connection) => {}
            }
        };
        self.env.start(Box::pin(open.track_future(task)));
    }

    async fn run(&self, mut stream: TcpStream, connection: &Arc<Connection>) {
        // Answers are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        // What the kernel cannot get rid of, it does not keep for long either.
        let unread_ms = u32::try_from(self.limits.answer_read_timeout.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, unread_ms);
        let Some(start) = self.first_bytes(&mut stream).await else { return };
        let protocol = if start == HTTP2_PREFACE { &self.http2 } else { &self.http1 };
        let (reading, writing) = stream.into_split();
        let io = tokio::io::join(io::Cursor::new(start).chain(Turns::new(reading)), writing);
        self.speak(protocol, io, connection).await;
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

    async fn speak<T>(&self, protocol: &auto::Builder<Tasks>, io: T, connection: &Arc<Connection>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|mut request: Request<Incoming>| {
            let under_way = connection.begin();
            request.extensions_mut().insert(Draining(self.drain.clone()));
            request.extensions_mut().insert(under_way.clone());
            let answer = self.router.clone().oneshot(request);
            async move {
                let unanswered = under_way.unanswered();
                let answer = answer.await;
                unanswered.answered();
                answer.map(|answer| {
                    answer.map(|body| body.map_frame(move |frame| frame.map_data(|bytes| under_way.unread(bytes))))
                })
            }
        });
        let mut serving = std::pin::pin!(protocol.serve_connection(TokioIo::new(io), answer));
        let ended = tokio::select! {
            biased;
            // First, because hyper answers nothing that it has not begun to read when it is told to end.
            ended = serving.as_mut() => ended,
            () = connection.leave().cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
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
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.window_bytes)
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
