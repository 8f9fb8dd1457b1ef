//! How a peer is found, reached, and asked whether it lives; a test hands in its own.

use std::{io, net::SocketAddr, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::service_fn;

/// A connection on which nothing was heard for so long is asked for a sign of life, also while nobody uses it, in
/// milliseconds,
pub const KEEPALIVE_INTERVAL_MS: u64 = 5_000;
/// and is given up when there is none for so long, in milliseconds. What waits for an answer is helped sooner, by another
/// attempt; this is for what has no other address.
pub const KEEPALIVE_TIMEOUT_MS: u64 = 5_000;

type Answer<T, E = String> = BoxFuture<'static, Result<T, E>>;

/// Where calls go out.
pub(super) struct Network {
    /// Looks a name and port up.
    pub resolve: Box<dyn Fn(String, u16) -> Answer<Vec<SocketAddr>, io::Error> + Send + Sync>,
    /// Connects. The peer is told its name, whichever of its addresses is asked.
    pub connect: Box<dyn Fn(SocketAddr, Uri) -> Answer<Channel> + Send + Sync>,
    /// Fails when nothing answers.
    pub ask: Box<dyn Fn(Channel) -> Answer<()> + Send + Sync>,
}

impl Network {
    pub fn system() -> Self {
        Self {
            resolve: Box::new(|host, port| {
                async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
            }),
            connect: Box::new(|addr, origin| connect(addr, origin).boxed()),
            ask: Box::new(|channel| ask(channel).boxed()),
        }
    }
}

/// With keepalive, whoever connects.
pub(crate) fn endpoint(url: Uri) -> Endpoint {
    Endpoint::from(url)
        .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(KEEPALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// One connection, which tonic cannot make again: its calls would wait for that one after the other, however long each
/// takes, where there may be another address. Once it has ended, they fail at once.
async fn connect(addr: SocketAddr, origin: Uri) -> Result<Channel, String> {
    let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let mut stream = Some(TokioIo::new(stream));
    let once = service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "it has ended"));
        std::future::ready(stream)
    });
    let endpoint = endpoint(origin.clone()).origin(origin);
    endpoint.connect_with_connector(once).await.map_err(|e| format!("{e:?}"))
}

/// Whatever it answers, it lives.
async fn ask(channel: Channel) -> Result<(), String> {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    match answer {
        Err(status) if std::error::Error::source(&status).is_some() => Err(format!("{status:?}")),
        _ => Ok(()),
    }
}
