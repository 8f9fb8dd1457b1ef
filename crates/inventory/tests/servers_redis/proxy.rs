//! Stands between a store and its Redis: counts what is sent, and can lose an answer or be a long way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use servers::Redis;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    spawn,
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// A way to a Redis.
pub struct Proxy {
    port: u16,
    seen: Arc<Seen>,
}

struct Seen {
    /// What to look for.
    word: &'static str,
    /// How often it was sent.
    count: AtomicUsize,
    /// Whether the connection ends in place of the answer to it.
    losing: AtomicBool,
    /// How long what is sent is under way.
    delay: Duration,
}

impl Proxy {
    /// Looks for this word, and loses its answers.
    pub async fn losing(redis: &Redis, word: &'static str) -> Self {
        let seen = Seen { word, count: AtomicUsize::new(0), losing: AtomicBool::new(true), delay: Duration::ZERO };
        Self::start(redis, seen).await
    }

    /// Makes every round trip last this long at least, and loses nothing.
    pub async fn far(redis: &Redis, delay: Duration) -> Self {
        let seen = Seen { word: "", count: AtomicUsize::new(0), losing: AtomicBool::new(false), delay };
        Self::start(redis, seen).await
    }

    async fn start(redis: &Redis, seen: Seen) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let seen = Arc::new(seen);
        let (to, shared) = (redis.port(), Arc::clone(&seen));
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                spawn(pass(client, to, Arc::clone(&shared)));
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How often the word was sent.
    pub fn count(&self) -> usize {
        self.seen.count.load(Ordering::SeqCst)
    }

    /// From now on no answer is lost.
    pub fn mend(&self) {
        self.seen.losing.store(false, Ordering::SeqCst);
    }
}

/// Passes one connection on. What the tests look for is sent in one piece.
async fn pass(mut client: TcpStream, to: u16, seen: Arc<Seen>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let mut lost = false;
    loop {
        tokio::select! {
            biased;
            read = client.read(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let text = String::from_utf8_lossy(&asked[..count]);
                    if text.contains("EVAL\r\n") && text.contains(seen.word) {
                        seen.count.fetch_add(1, Ordering::SeqCst);
                        lost = seen.losing.load(Ordering::SeqCst);
                    }
                    if server.write_all(&asked[..count]).await.is_err() {
                        return;
                    }
                }
            },
            read = server.read(&mut answered) => match read {
                Ok(0) | Err(_) => return,
                // It was done, and nobody learns it.
                Ok(_) if lost => return,
                Ok(count) => late.send((Instant::now() + seen.delay, answered[..count].to_vec())).expect("it is here"),
            },
            Some((when, answer)) = due.recv() => {
                sleep_until(when).await;
                if client.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }
}
