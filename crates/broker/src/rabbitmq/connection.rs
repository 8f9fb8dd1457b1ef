//! One connection, how it is opened, how often, and how it is thrown away.

use std::{
    fmt, io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties,
    tcp::TLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use service::environment::Env;

use super::{
    BadUrl, CONNECT_TIMEOUT_MS, HEARTBEAT_SECONDS, RECONNECT_BACKOFF_MAX_MS, RECONNECT_BACKOFF_MIN_MS, RabbitMqUrl,
};
use crate::BrokerError;

impl FromStr for RabbitMqUrl {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        // The parser takes an IPv6 address to be localhost.
        if url.contains("://[") || url.contains("@[") {
            return Err(BadUrl);
        }
        let mut uri: AMQPUri = url.parse().map_err(|_| BadUrl)?;
        // A password with a slash that is not escaped would be read as the virtual host, which is shown.
        if uri.vhost.contains('@') {
            return Err(BadUrl);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self(uri))
    }
}

/// Neither user nor password.
impl fmt::Display for RabbitMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { authority, vhost, .. } = &self.0;
        write!(f, "RabbitMQ at {}:{}, virtual host {vhost}", authority.host, authority.port)
    }
}

/// The same.
impl fmt::Debug for RabbitMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Opens connections, not too often: after a failure it pauses, for all callers together.
pub(super) struct Connector {
    uri: AMQPUri,
    env: Env,
    /// What the connections are for, as an operator sees them listed at the server.
    purpose: &'static str,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    failures: u32,
    /// As uptime.
    not_before: Duration,
    last_error: String,
}

impl Connector {
    pub(super) fn new(url: &RabbitMqUrl, env: Env, purpose: &'static str) -> Self {
        Self { uri: url.0.clone(), env, purpose, pace: Mutex::default() }
    }

    pub(super) async fn connect(&self) -> Result<Line, BrokerError> {
        self.may_try()?;
        // Boxed, for it is large and seldom needed.
        let open = Box::pin(self.open());
        let opened = match self.env.timeout(Duration::from_millis(CONNECT_TIMEOUT_MS), open).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {CONNECT_TIMEOUT_MS} ms")),
        };
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(line) => {
                *pace = Pace::default();
                Ok(line)
            }
            Err(error) => {
                let doubled = RECONNECT_BACKOFF_MIN_MS << pace.failures.min(10);
                let pause = self.env.jittered(Duration::from_millis(doubled.min(RECONNECT_BACKOFF_MAX_MS)));
                pace.failures = pace.failures.saturating_add(1);
                pace.not_before = self.env.uptime() + pause;
                pace.last_error.clone_from(&error);
                Err(BrokerError::text(format!("cannot connect: {error}")))
            }
        }
    }

    fn may_try(&self) -> Result<(), BrokerError> {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if self.env.uptime() < pace.not_before {
            return Err(BrokerError::text(format!("cannot connect, as of a moment ago: {}", pace.last_error)));
        }
        Ok(())
    }

    /// Opens a connection. Given up half way it leaves nothing: lapin works on it in a thread, which ends with the
    /// socket and not before.
    async fn open(&self) -> lapin::Result<Line> {
        let authority = &self.uri.authority;
        let addresses: Vec<_> = tokio::net::lookup_host((authority.host.as_str(), authority.port)).await?.collect();
        let runtime = lapin::runtime::default_runtime()?;
        let plain = AsyncTcpStream::connect(&runtime, addresses).await?;
        let AsyncTcpStream::Plain(stream) = &plain else {
            return Err(io::Error::other("a plain connection was asked for").into());
        };
        let socket = Socket(TcpStream::from(stream.get_ref().as_fd().try_clone_to_owned()?));
        let stream = match self.uri.scheme {
            AMQPScheme::AMQP => plain,
            AMQPScheme::AMQPS => plain.into_tls(&authority.host, TLSConfig::default()).await?,
        };
        let stream = Mutex::new(Some(stream));
        let hand_over = async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
        };
        let name = format!("order system, {}", self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connector(self.uri.clone(), runtime, hand_over, properties).await?;
        Ok(Line { connection, socket, severed: AtomicBool::new(false) })
    }
}

/// A connection. Dropped, it is closed at once: asking the server first could take for ever.
pub(super) struct Line {
    connection: Connection,
    socket: Socket,
    severed: AtomicBool,
}

impl Line {
    /// Whether it can be used, as far as anyone knows.
    pub(super) fn works(&self) -> bool {
        !self.severed.load(Ordering::Relaxed) && self.connection.status().connected()
    }

    /// Whether the server, short of memory or disk, has said that it reads nothing from it at the moment.
    pub(super) fn is_blocked(&self) -> bool {
        self.works() && self.connection.status().blocked()
    }

    /// Closes it under whoever uses it.
    pub(super) fn sever(&self) {
        self.severed.store(true, Ordering::Relaxed);
        self.socket.close();
    }

    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        self.connection.create_channel().await.map_err(BrokerError::of)
    }
}

/// The socket under a connection, closed for all its owners when this one is dropped.
struct Socket(TcpStream);

impl Socket {
    fn close(&self) {
        // An error says that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<AMQPUri, BadUrl> {
        url.parse::<RabbitMqUrl>().map(|url| url.0)
    }

    #[test]
    fn a_url_is_taken_or_refused_as_a_whole() {
        let uri = parse("amqp://me:secret@broker.internal/orders").expect("a URL");
        assert_eq!(
            (uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()),
            ("broker.internal", 5672, "orders")
        );
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT_SECONDS));
        assert_eq!(parse("amqps://h/%2f?heartbeat=20").expect("a URL").query.heartbeat, Some(20));
        for bad in [
            "",
            "localhost:5672",
            "http://localhost",
            "amqp:me",
            "amqp://me:secret@[::1]:5672/",
            "amqp://[::1]",
            "amqp://u:12/rest@h/v",
        ] {
            assert_eq!(parse(bad), Err(BadUrl), "{bad}");
        }
    }
}
