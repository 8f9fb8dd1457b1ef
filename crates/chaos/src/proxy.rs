//! A TCP link that can be slowed, cut and silenced while it is in use. Whatever a link has swallowed is gone: its
//! connection is reset when the link passes again, since a stream with a hole is nothing that a network delivers.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{pending, try_join};
use servers::{Port, local};
use service::manual::Dice;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::one_of;

/// Read at once.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Chunks under way in one direction: beyond them the sender has to wait, as on a real line.
const CHUNKS_MAX: usize = 256;
/// Parts of the jitter.
const PERCENT: [u32; 5] = [0, 10, 25, 50, 100];
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected.
    ToServer,
    /// To who connected.
    ToClient,
}

/// What a link does to what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Bytes arrive so much later, and up to `jitter` more, in order.
    Delay {
        /// At least.
        least: Duration,
        /// And up to so much more, anew for each chunk.
        jitter: Duration,
    },
    /// Connections are accepted, and nothing arrives.
    BlackHole,
    /// Nothing arrives in this direction.
    Silent(Direction),
    /// Each connection is reset after so many bytes more, of both directions.
    CutAfter(u64),
    /// Nobody listens, and what is open is reset.
    Refuse,
}

impl Mode {
    fn swallows(self, direction: Direction) -> bool {
        self == Self::BlackHole || self == Self::Silent(direction)
    }

    fn is_deaf(self) -> bool {
        matches!(self, Self::BlackHole | Self::Silent(_))
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    target: SocketAddr,
    /// The server behind it is dead: it is refused whatever the mode.
    is_dead: bool,
    /// Grows with every reset; a connection of an earlier number ends.
    resets: u64,
}

impl State {
    fn refuses(self) -> bool {
        self.is_dead || self.mode == Mode::Refuse
    }
}

/// One link: a listener, where it leads, and how it behaves. It ends with this value.
#[derive(Debug)]
pub struct Link {
    /// Who connects.
    pub from: String,
    /// Who is connected to.
    pub to: String,
    addr: SocketAddr,
    state: watch::Sender<State>,
    _task: JoinSet<()>,
}

impl Link {
    /// Listens at a free port and leads to the target.
    pub async fn start(from: &str, to: &str, target: SocketAddr) -> Self {
        let port = Port::claim();
        let addr = local(&port);
        let (state, watched) = watch::channel(State { mode: Mode::Pass, target, is_dead: false, resets: 0 });
        let listener = listen(addr).await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            serve(listener, watched).await;
            drop(port);
        });
        Self { from: from.to_owned(), to: to.to_owned(), addr, state, _task: task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Behaves so from now on.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Resets everything that is open.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Leads elsewhere from now on; what is open is reset.
    pub fn point_at(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = target;
            state.resets += 1;
        });
    }

    /// Whether the server behind it is dead, so that nobody listens.
    pub fn set_dead(&self, is_dead: bool) {
        self.state.send_modify(|state| state.is_dead = is_dead);
    }
}

async fn listen(addr: SocketAddr) -> TcpListener {
    TcpListener::bind(addr).await.unwrap_or_else(|error| panic!("a link at {addr}: {error}"))
}

async fn serve(mut listener: TcpListener, mut state: watch::Receiver<State>) {
    let addr = listener.local_addr().expect("it is bound");
    let mut connections = JoinSet::new();
    loop {
        while !state.borrow_and_update().refuses() {
            tokio::select! {
                biased;
                changed = state.changed() => if changed.is_err() { return },
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => drop(connections.spawn(carry(client, state.clone()))),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(listener);
        if state.wait_for(|state| !state.refuses()).await.is_err() {
            return;
        }
        listener = listen(addr).await;
    }
}

/// One connection, to its end.
async fn carry(mut client: TcpStream, state: watch::Receiver<State>) {
    let State { target, resets, .. } = *state.borrow();
    let Ok(mut server) = TcpStream::connect(target).await else {
        reset(&client);
        return;
    };
    for side in [&client, &server] {
        side.set_nodelay(true).ok();
    }
    let line = Line { state, cut_bytes: AtomicU64::new(0), has_lost: AtomicBool::new(false) };
    let is_whole = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let there = line.pump(from_client, to_server, Direction::ToServer);
        let back = line.pump(from_server, to_client, Direction::ToClient);
        tokio::select! {
            biased;
            () = line.reset(resets) => false,
            ended = try_join(there, back) => ended.is_ok(),
        }
    };
    if !is_whole {
        reset(&client);
        reset(&server);
    }
}

/// What is then dropped ends with an RST.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

struct Line {
    state: watch::Receiver<State>,
    /// Passed while the link cuts.
    cut_bytes: AtomicU64,
    has_lost: AtomicBool,
}

impl Line {
    /// Ready when the connection has to be reset.
    async fn reset(&self, resets: u64) {
        let mut state = self.state.clone();
        let must_end = |state: &State| {
            let has_a_hole = self.has_lost.load(Ordering::Relaxed) && !state.mode.is_deaf();
            state.resets != resets || state.refuses() || has_a_hole
        };
        // An error: the link is gone.
        state.wait_for(must_end).await.ok();
    }

    async fn pump(
        &self,
        reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
        direction: Direction,
    ) -> io::Result<()> {
        let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
        let write = async {
            while let Some((due, chunk)) = chunks.recv().await {
                sleep_until(due).await;
                writer.write_all(&chunk).await?;
            }
            io::Result::Ok(())
        };
        let (is_cut, ()) = try_join(self.read(reader, sender, direction), write).await?;
        if is_cut {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        writer.shutdown().await
    }

    /// Reads to the end, or until the connection is to be cut: then true.
    async fn read(
        &self,
        mut reader: impl AsyncRead + Unpin,
        sender: mpsc::Sender<(Instant, Vec<u8>)>,
        direction: Direction,
    ) -> io::Result<bool> {
        let mut dice = Dice::new(self.state.borrow().resets);
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let mut due = Instant::now();
        loop {
            let read = reader.read(&mut buffer).await;
            let mode = self.state.borrow().mode;
            if mode.swallows(direction) {
                self.has_lost.store(true, Ordering::Relaxed);
                if matches!(read, Ok(0) | Err(_)) {
                    // Its end does not arrive either.
                    pending::<()>().await;
                }
                continue;
            }
            let mut length = read?;
            if length == 0 {
                return Ok(false);
            }
            let mut is_cut = false;
            if let Mode::CutAfter(most) = mode {
                let before = self.cut_bytes.fetch_add(length as u64, Ordering::Relaxed);
                let left = usize::try_from(most.saturating_sub(before)).unwrap_or(usize::MAX);
                is_cut = left < length;
                length = length.min(left);
            }
            if let Mode::Delay { least, jitter } = mode {
                due = due.max(Instant::now() + least + jitter * *one_of(&mut dice, &PERCENT) / 100);
            }
            // An error: the other side is gone, and the pump ends with its cause.
            if sender.send((due, buffer[..length].to_vec())).await.is_err() {
                pending::<()>().await;
            }
            if is_cut {
                return Ok(true);
            }
        }
    }
}
