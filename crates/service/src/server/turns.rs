//! Connections take turns.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that a connection reads before the others have their turn. A flood of frames of a few bytes each would otherwise
/// keep a thread busy for as long as it comes, megabytes at a time.
pub const TURN_BYTES: usize = 4 * 1024;

/// Reads, and gives way after [`TURN_BYTES`].
pub struct Turns<T> {
    reading: T,
    bytes: usize,
}

impl<T> Turns<T> {
    pub fn new(reading: T) -> Self {
        Self { reading, bytes: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Turns<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bytes >= TURN_BYTES {
            self.bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.reading).poll_read(cx, into);
        self.bytes = if read.is_pending() { 0 } else { self.bytes + into.filled().len() - before };
        read
    }
}
