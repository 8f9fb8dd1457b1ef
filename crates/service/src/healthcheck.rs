//! The command `healthcheck`: asks the process of the same settings whether it is ready. For images that have no other
//! program that could ask.

use std::{
    error::Error,
    future::pending,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use futures::StreamExt;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{cli, lifecycle::Lifecycle, settings::Settings};

/// The command's name.
pub const COMMAND: &str = "healthcheck";
/// How long the answer may take, in milliseconds, from the first packet to its last byte.
pub const ANSWER_MAX_MS: u64 = 2_000;
/// How much of the answer's text is shown, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// Asks `/readyz` at `ADMIN_ADDR`, and reads no other setting: success if the answer is 200, else 1. Says in a line
/// what was answered.
#[tokio::main(flavor = "current_thread")]
pub async fn run(admin_default: &str) -> ExitCode {
    let mut settings = Settings::from_env();
    let addr = reachable(settings.addr("ADMIN_ADDR", admin_default));
    if let Err(bad) = settings.finish() {
        return cli::fail(1, &bad);
    }
    let limit = Duration::from_millis(ANSWER_MAX_MS);
    let answered = match Lifecycle::new().env().timeout(limit, ask(addr)).await {
        Ok(Ok((status, text))) => Ok((status, format!("{} {text}", status.as_u16()))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {ANSWER_MAX_MS} ms")),
    };
    match answered {
        Ok((StatusCode::OK, text)) => cli::succeed(&format!("http://{addr}/readyz: {text}")),
        Ok((_, text)) | Err(text) => cli::fail(1, &format!("http://{addr}/readyz: {text}")),
    }
}

/// Who listens on all addresses is reached at loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

async fn ask(addr: SocketAddr) -> Result<(StatusCode, String), Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header(header::HOST, addr.to_string()).body(Empty::<Bytes>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        Ok((answer.status(), text(answer.into_body()).await))
    };
    // The answer notices by itself that the connection has ended, and has what came before.
    let carry = async {
        drop(connection.await);
        pending().await
    };
    tokio::select! {
        biased;
        answered = answer => answered,
        never = carry => never,
    }
}

/// The beginning of a body, as one line. What is lost on the way is not shown.
async fn text(body: Incoming) -> String {
    let mut bytes = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() >= TEXT_BYTES_MAX {
            bytes.truncate(TEXT_BYTES_MAX);
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).replace(|c: char| c.is_control(), " ");
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_at_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "[::1]:7"),
            ("10.1.2.3:7", "10.1.2.3:7"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
        ] {
            assert_eq!(reachable(listens.parse().expect("an address")).to_string(), asked);
        }
    }
}
