//! HTTP/2 as frames: what a well-meaning client library would never send can be sent too.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Kinds of frames.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const PRIORITY: u8 = 2;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
/// See [`DATA`].
pub const PING: u8 = 6;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
/// See [`DATA`].
pub const WINDOW_UPDATE: u8 = 8;
/// See [`DATA`].
pub const CONTINUATION: u8 = 9;

/// Flags: the stream ends with this frame.
pub const END_STREAM: u8 = 1;
/// Flags: the head ends with this frame.
pub const END_HEADERS: u8 = 4;
/// Flags: of SETTINGS and PING.
pub const ACK: u8 = 1;

/// The setting that says how much of an answer may be sent at first.
pub const INITIAL_WINDOW: u16 = 4;

/// Nothing that is waited for takes longer, or the test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// One frame, as it came.
#[derive(Debug)]
pub struct Frame {
    /// One of the kinds.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// One frame, to be sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block with these fields more. Nothing is compressed.
pub fn block(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // `:scheme: http`, then `:method`, `:path` and `:authority` by the numbers of their names.
    let mut block = vec![0x86];
    for (name, value) in [(2, method), (4, path), (1, "orders")] {
        block.push(name);
        text(&mut block, value);
    }
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// The head of a request, in one frame.
pub fn head(stream: u32, flags: u8, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(method, path, fields))
}

/// A request without a body.
pub fn request(stream: u32, method: &str, path: &str) -> Vec<u8> {
    head(stream, END_STREAM, method, path, &[])
}

fn text(block: &mut Vec<u8>, text: &str) {
    // A length of seven bits, and what is above in groups of seven.
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).expect("short"));
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
            rest /= 128;
        }
        block.push(u8::try_from(rest).expect("a byte"));
    }
    block.extend_from_slice(text.as_bytes());
}

/// A connection.
pub struct Http2(pub TcpStream);

impl Http2 {
    /// Connects and says which settings it wants.
    pub async fn connect(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut connection = Self(TcpStream::connect(addr).await.expect("it listens"));
        connection.greet(settings).await;
        connection
    }

    /// The start of a connection.
    pub async fn greet(&mut self, settings: &[(u16, u32)]) -> bool {
        let mut payload = Vec::new();
        for (setting, value) in settings {
            payload.extend_from_slice(&setting.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let greeting = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &payload)].concat();
        self.send(&greeting).await
    }

    /// Whether the other side has taken it.
    pub async fn send(&mut self, frames: &[u8]) -> bool {
        self.0.write_all(frames).await.is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn read(&mut self) -> Option<Frame> {
        timeout(LIMIT, self.read_frame()).await.expect("a frame or the end, in time")
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads to the end of a stream, and answers the bytes of its body; `None` when it or the connection is cut before.
    pub async fn read_stream(&mut self, stream: u32) -> Option<usize> {
        let mut bytes = 0;
        loop {
            let frame = self.read().await?;
            match frame.kind {
                DATA if frame.stream == stream => bytes += frame.payload.len(),
                RST_STREAM if frame.stream == stream => return None,
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Some(bytes);
            }
        }
    }

    /// Reads to the end of the connection, which must come.
    pub async fn read_to_end(&mut self) {
        while self.read().await.is_some() {}
    }
}
