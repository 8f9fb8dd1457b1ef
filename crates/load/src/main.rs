//! A load run as honest clients would do it: each orders one unit at a time under a key of its own, repeats what was
//! not answered, and notices what it must never be told.

use std::{
    io::Write,
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use service::{
    cli,
    environment::Env,
    lifecycle::Lifecycle,
    settings::{BadSettings, EXIT_BAD_SETTINGS, Settings},
};
use tally::Tally;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

mod tally;

/// An order that has no answer by then has failed, in milliseconds.
const ORDER_MAX_MS: u64 = 10_000;
/// A request that has none by then is sent again, in milliseconds.
const REQUEST_MAX_MS: u64 = 4_000;
/// Wait before a request is sent again, if the answer asks for none, in milliseconds.
const REPEAT_PAUSE_MS: u64 = 100;
/// Longest wait that an answer may ask for, in seconds.
const RETRY_AFTER_MAX_S: u64 = 2;
/// One order of so many, and each that was repeated, is asked for once more: it has to be the same.
const CHECKED_EVERY: u64 = 16;
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const CLIENTS_MAX: u64 = 1_024;
const SECONDS_MAX: u64 = 86_400;

const HELP: &str = "\
Orders as fast as its clients get answers, and prints what they met as one line of JSON.

Settings are environment variables:
  TARGET_URL    where orders are placed               [http://127.0.0.1:8080]
  LOAD_CLIENTS  clients at a time, 1..1024            [16]
  LOAD_SECONDS  how long orders are placed, 1..86400  [30]

Ctrl-C or SIGTERM ends it early. Exit codes: 0 orders were placed and none failed, 1 otherwise, 64 bad arguments,
78 bad settings.
";

struct LoadSettings {
    target: Uri,
    clients: u64,
    seconds: u64,
}

impl LoadSettings {
    fn read(mut settings: Settings) -> Result<Self, BadSettings> {
        let mut targets =
            settings.urls("TARGET_URL").unwrap_or_else(|| vec![Uri::from_static("http://127.0.0.1:8080")]);
        let target = targets.swap_remove(0);
        if !targets.is_empty() {
            settings.bad("TARGET_URL", "must be one URL");
        }
        let clients = within(&mut settings, "LOAD_CLIENTS", 16, CLIENTS_MAX);
        let seconds = within(&mut settings, "LOAD_SECONDS", 30, SECONDS_MAX);
        settings.finish()?;
        Ok(Self { target, clients, seconds })
    }
}

/// A number from 1 to this one.
fn within(settings: &mut Settings, name: &str, default: u64, most: u64) -> u64 {
    let number = settings.parsed(name, default);
    if !(1..=most).contains(&number) {
        settings.bad(name, format!("must be 1 to {most}"));
    }
    number
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(done) = cli::command("load", HELP, &[]) {
        return done;
    }
    service::open_files::raise_limit();
    match LoadSettings::read(Settings::from_env()) {
        Ok(settings) => run(settings).await,
        Err(bad) => cli::fail(EXIT_BAD_SETTINGS, &bad),
    }
}

async fn run(settings: LoadSettings) -> ExitCode {
    let (env, stop) = (Lifecycle::new().env(), CancellationToken::new());
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return cli::fail(1, &error),
    };
    let begin = env.uptime();
    let load = Load {
        http: Client::builder(TokioExecutor::new()).build_http(),
        url: format!("{}orders", settings.target),
        run: format!("{:08x}", env.random() >> 96),
        tally: Mutex::new(Tally::new(begin)),
        env: env.clone(),
    };
    let time_is_up = async {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = env.sleep(Duration::from_secs(settings.seconds)) => {}
        }
        let took = env.uptime().saturating_sub(begin);
        load.tally().end(env.uptime());
        stop.cancel();
        took
    };
    let clients = join_all((0..settings.clients).map(|number| load.client(number, settings.clients, &stop)));
    let (took, _, ()) = tokio::join!(time_is_up, clients, load.tell(begin, &stop));

    let tally = load.tally();
    cli::succeed(&tally.report(took));
    if tally.orders > 0 && tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What an order came to.
#[derive(Debug)]
enum Fate {
    Placed { id: String },
    Refused,
    Unknown,
}

struct Load {
    env: Env,
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    /// In the names of its items: no other run has them.
    run: String,
    tally: Mutex<Tally>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Load {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Each change is whole.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line a second, of that second.
    async fn tell(&self, begin: Duration, stop: &CancellationToken) {
        let mut before = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.env.sleep(Duration::from_secs(1)) => {}
            }
            let (orders, failed, repeated) = {
                let tally = self.tally();
                (tally.orders, tally.failed, tally.repeated)
            };
            let seconds = self.env.uptime().saturating_sub(begin).as_secs();
            complain(&format!("{seconds} s: {} orders, {failed} failed, {repeated} repeated so far", orders - before));
            before = orders;
        }
    }

    /// Buys one item until it is sold out, then the next of its own.
    async fn client(&self, number: u64, clients: u64, stop: &CancellationToken) {
        let mut item = number;
        for count in 0_u64.. {
            if stop.is_cancelled() {
                return;
            }
            if matches!(self.order(&format!("load-{}-{item}", self.run), count).await, Fate::Refused) {
                item += clients;
            }
        }
    }

    async fn order(&self, item: &str, count: u64) -> Fate {
        let key = self.env.uuid().to_string();
        let begin = self.env.uptime();
        let (fate, tries) = self.until_answered(item, &key, true).await;
        let now = self.env.uptime();
        match &fate {
            Fate::Refused => self.tally().refused += 1,
            Fate::Unknown => self.tally().failed += 1,
            Fate::Placed { id } => {
                self.tally().placed(now, now.saturating_sub(begin));
                if tries > 1 || count.is_multiple_of(CHECKED_EVERY) {
                    self.check(item, &key, id).await;
                }
            }
        }
        fate
    }

    /// A key that was answered with an order names that order for ever.
    async fn check(&self, item: &str, key: &str, id: &str) {
        match self.until_answered(item, key, false).await.0 {
            Fate::Placed { id: again } if again == id => {}
            other => {
                self.tally().failed += 1;
                complain(&format!("key {key} was answered with {id}, and then: {other:?}"));
            }
        }
    }

    /// Sends the request until it is answered for good, and says how often that was.
    async fn until_answered(&self, item: &str, key: &str, is_first: bool) -> (Fate, u64) {
        let end = self.env.uptime() + Duration::from_millis(ORDER_MAX_MS);
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.ask(item, key).await;
            if tries == 1 && is_first {
                let first = answer.as_ref().map_or("lost".to_owned(), |answer| answer.status.as_u16().to_string());
                *self.tally().by_first_status.entry(first).or_default() += 1;
            }
            let fate = answer.as_ref().and_then(|answer| Self::fate(item, answer));
            if let Some(fate) = fate {
                return (fate, tries);
            }
            let pause = answer.map_or(Duration::from_millis(REPEAT_PAUSE_MS), |answer| pause(&answer.headers));
            if self.env.uptime() + pause >= end {
                return (Fate::Unknown, tries);
            }
            self.env.sleep(pause).await;
            self.tally().repeated += 1;
        }
    }

    /// What an answer says of the order; nothing, if the request may be sent again.
    fn fate(item: &str, answer: &Answer) -> Option<Fate> {
        match answer.status {
            StatusCode::CREATED => {
                let id =
                    answer.body["id"].as_str().filter(|_| answer.body["item"] == item && answer.body["quantity"] == 1);
                if id.is_none() {
                    complain(&format!("{item} was ordered, and this answered: {}", answer.body));
                }
                Some(id.map_or(Fate::Unknown, |id| Fate::Placed { id: id.to_owned() }))
            }
            StatusCode::CONFLICT if answer.body["reason"] == "INSUFFICIENT_STOCK" => Some(Fate::Refused),
            _ => None,
        }
    }

    /// Nothing, if the connection or the time was lost.
    async fn ask(&self, item: &str, key: &str) -> Option<Answer> {
        let body = json!({ "item": item, "quantity": 1 }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Full::new(body.into()))
            .expect("all parts are sane");
        let work = async {
            let (head, body) = self.http.request(request).await.ok()?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Some(Answer { status: head.status, headers: head.headers, body })
        };
        self.env.timeout(Duration::from_millis(REQUEST_MAX_MS), work).await.ok().flatten()
    }
}

/// How long the answer asks to wait, within limits.
fn pause(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    seconds.map_or(Duration::from_millis(REPEAT_PAUSE_MS), |s| Duration::from_secs(s.min(RETRY_AFTER_MAX_S)))
}

fn complain(what: &str) {
    // Nobody reading changes nothing.
    let _ = writeln!(std::io::stderr(), "{what}");
}
