//! Carries the product's requests to the simulated servers by the rules of the product's own router: a request is sent
//! again only if it was certainly not done, a server that fails or hangs is given up and connected to anew, and while it is
//! known to be down every call fails at once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use deadpool_redis::redis::Value;
use futures::future::BoxFuture;
use inventory::stock::{
    StockError,
    redis::{
        keys::{SLOTS, Spread},
        router::{REPAIR_BACKOFF_MAX_MS, REPAIR_BACKOFF_MIN_MS, RESPONSE_TIMEOUT_MS},
        scripts::SCRIPTS,
        wire::{Request, Wire},
    },
};
use service::environment::Env;
use tokio::sync::oneshot;

use super::{Cut, Letter, Link, Redis, Reply};

/// Waits as long as the simulation likes, before a step of this name.
pub type Pause = Arc<dyn Fn(&'static str) -> BoxFuture<'static, ()> + Send + Sync>;

/// What becomes of a request on its way; the second argument is whether it may be sent once only.
pub type Hook = Arc<dyn Fn(&Request, bool) -> Delivery + Send + Sync>;

/// What becomes of a request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It arrives, and so does its answer.
    Pass,
    /// The connection breaks before it arrives.
    LoseBefore,
    /// The connection breaks after it was done.
    LoseAfter,
    /// It was done, nothing is heard of it, and so much later the connection breaks.
    Silent(Duration),
    /// It arrives so much later, whether or not somebody waits for it still.
    Late(Duration),
    /// It arrives, and once more so much later. What may be sent once only arrives once.
    Twice(Duration),
}

/// One process' way to the servers.
pub struct SimWire {
    redis: Arc<Redis>,
    env: Env,
    pause: Pause,
    hook: Hook,
    way: Mutex<Way>,
}

/// What the process knows of the servers.
#[derive(Default)]
struct Way {
    link: Option<Link>,
    /// It was connected before.
    known: bool,
    /// A server that it is told to use, whatever Sentinels say.
    target: Option<usize>,
    /// Failures since it was last connected.
    failures: u32,
    /// No new connection before this moment, as uptime.
    not_before: Duration,
}

/// The answers did not come: the connection is lost, and the requests may have been done.
struct Lost;

impl SimWire {
    /// Of a process, which gives its clock and its randomness. Connects when it is first asked.
    pub fn new(redis: Arc<Redis>, env: Env, pause: Pause, hook: Hook) -> Arc<Self> {
        Arc::new(Self { redis, env, pause, hook, way: Mutex::default() })
    }

    /// From now on the process uses this server, whatever Sentinels say; `None` is the one that they name.
    pub fn point_at(&self, server: Option<usize>) {
        let mut way = self.way();
        (way.target, way.link) = (server, None);
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection. While the server is known to be down nobody waits for one.
    async fn link(&self) -> Result<Link, StockError> {
        let failures = {
            let way = self.way();
            match &way.link {
                Some(link) => return Ok(link.clone()),
                None if self.env.uptime() < way.not_before => return Err(down("it is down")),
                None => way.failures,
            }
        };
        if failures == 0 {
            (self.pause)("redis: connect").await;
        }
        let found = self.connect();
        // Once it was down, the first call does no more than try, and the next one finds the connection.
        if failures == 0 { found.map_err(down) } else { Err(down("it was down")) }
    }

    fn connect(&self) -> Result<Link, &'static str> {
        let mut way = self.way();
        if let Some(link) = &way.link {
            return Ok(link.clone());
        }
        let state = &mut *self.redis.state();
        match state.connect(way.target.unwrap_or(state.primary)) {
            Ok(link) => {
                way.link = Some(link.clone());
                (way.known, way.failures, way.not_before) = (true, 0, Duration::ZERO);
                Ok(link)
            }
            Err(cause) => {
                let doubled = REPAIR_BACKOFF_MIN_MS << way.failures.min(10);
                let pause = self.env.jittered(Duration::from_millis(doubled.min(REPAIR_BACKOFF_MAX_MS)));
                way.not_before = self.env.uptime() + pause;
                way.failures = way.failures.saturating_add(1);
                Err(cause)
            }
        }
    }

    /// Gives a connection up. With `failures` nobody waits for the next one.
    fn lose(&self, link: &Link, failures: u32) {
        let mut way = self.way();
        if way.link.as_ref().is_some_and(|present| (present.server, present.life) == (link.server, link.life)) {
            way.link = None;
            way.failures = way.failures.max(failures);
        }
    }

    /// Sends requests, once; their answers, within the time for it.
    async fn send(&self, link: &Link, requests: &[Request], whole: bool, once: bool) -> Result<Vec<Reply>, Lost> {
        let work = async {
            (self.pause)("redis: request").await;
            let replies = self.arrive(link, requests, whole, once).await?;
            (self.pause)("redis: answer").await;
            Ok(replies)
        };
        let (result, failures) = match self.env.timeout(Duration::from_millis(RESPONSE_TIMEOUT_MS), work).await {
            Ok(Ok(replies)) => return Ok(replies),
            Ok(Err(Cut)) => (Lost, 0),
            Err(_) => (Lost, 1),
        };
        self.lose(link, failures);
        Err(result)
    }

    async fn arrive(&self, link: &Link, requests: &[Request], whole: bool, once: bool) -> Result<Vec<Reply>, Cut> {
        let mut replies = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            let slowness = self.redis.state().servers[link.server].slowness;
            let fate = match (self.hook)(request, once) {
                Delivery::Pass if slowness > Duration::ZERO => Delivery::Late(slowness),
                Delivery::Twice(_) if once => Delivery::Pass,
                fate => fate,
            };
            match fate {
                Delivery::LoseBefore => return Err(Cut),
                Delivery::Late(by) => {
                    // What comes after it on the connection cannot overtake it.
                    replies.extend(self.arrive_late(link, &requests[index..], whole, by).await?);
                    return Ok(replies);
                }
                Delivery::Pass | Delivery::LoseAfter | Delivery::Silent(_) | Delivery::Twice(_) => {}
            }
            let now = self.redis.now_micros();
            replies.push(self.redis.state().answer_now(now, link, request, whole)?);
            match fate {
                Delivery::LoseAfter => return Err(Cut),
                Delivery::Silent(by) => {
                    self.env.sleep(by).await;
                    return Err(Cut);
                }
                Delivery::Twice(by) => {
                    let (letter, _) = letter(now, by, link, vec![request.clone()], whole);
                    self.redis.state().post(letter);
                }
                Delivery::Pass | Delivery::LoseBefore | Delivery::Late(_) => {}
            }
        }
        Ok(replies)
    }

    /// They are on their way whether or not this is waited for.
    async fn arrive_late(
        &self,
        link: &Link,
        requests: &[Request],
        whole: bool,
        by: Duration,
    ) -> Result<Vec<Reply>, Cut> {
        let (letter, answer) = letter(self.redis.now_micros(), by, link, requests.to_vec(), whole);
        let number = self.redis.state().post(letter);
        self.env.sleep(by).await;
        let now = self.redis.now_micros();
        self.redis.state().deliver(now, number);
        answer.await.unwrap_or(Err(Cut))
    }

    /// One request's answer, which may be an error of the server's. One that says that it is no master loses it.
    async fn one(&self, request: &Request, whole: bool, once: bool) -> Result<Value, StockError> {
        let link = self.link().await?;
        let mut replies = self.send(&link, std::slice::from_ref(request), whole, once).await.map_err(lost)?;
        let value = replies.pop().expect("one answer for one request").value();
        if matches!(&value, Value::ServerError(error) if matches!(error.code(), "READONLY" | "LOADING" | "MASTERDOWN"))
        {
            self.lose(&link, 0);
        }
        Ok(value)
    }

    async fn pipeline(&self, requests: &[Request]) -> Result<Vec<Value>, StockError> {
        let link = self.link().await?;
        let replies = self.send(&link, requests, false, false).await.map_err(lost)?;
        let mut values = Vec::with_capacity(requests.len());
        for (request, reply) in requests.iter().zip(replies) {
            let value = reply.value();
            values.push(if is_unknown_script(&value) { self.ask(request).await? } else { value });
        }
        Ok(values)
    }
}

#[async_trait]
impl Wire for SimWire {
    async fn ask(&self, request: &Request) -> Result<Value, StockError> {
        let mut value = self.one(request, false, false).await?;
        if is_unknown_script(&value) {
            // It was certainly not done.
            value = self.one(request, true, false).await?;
        }
        answered(value)
    }

    async fn ask_once(&self, request: &Request) -> Result<Value, StockError> {
        answered(self.one(request, true, true).await?)
    }

    async fn ask_all(&self, requests: &[Request]) -> Vec<Result<Value, StockError>> {
        match self.pipeline(requests).await {
            Ok(values) => values.into_iter().map(Ok).collect(),
            Err(error) => {
                let error = error.to_string();
                requests.iter().map(|_| Err(StockError(error.clone().into()))).collect()
            }
        }
    }

    async fn servers(&self) -> Result<Vec<u16>, StockError> {
        let found = self.link().await;
        if !self.way().known {
            found?;
        }
        Ok(vec![SLOTS - 1])
    }

    async fn check(&self) -> Result<(), StockError> {
        let link = self.link().await?;
        let question = Request::command_of(0, ["INFO", "replication"]);
        let replies = self.send(&link, &[question], false, false).await.map_err(lost)?;
        let [Reply::Bulk(facts)] = replies.as_slice() else { return Err(down("INFO answered nonsense")) };
        if !String::from_utf8_lossy(facts).contains("role:master") {
            self.lose(&link, 0);
            return Err(down("it is no master, but a slave"));
        }
        let key = Spread::Cluster.items(0);
        self.ask(&Request::run(&SCRIPTS.writable, 0, vec![key], vec![])).await.map(drop)
    }

    fn doubt(&self, _: u16) {
        self.way().link = None;
    }
}

fn letter(
    now: i64,
    by: Duration,
    link: &Link,
    requests: Vec<Request>,
    whole: bool,
) -> (Letter, oneshot::Receiver<Result<Vec<Reply>, Cut>>) {
    let (sender, answer) = oneshot::channel();
    let due_micros = now.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX));
    (Letter { due_micros, link: link.clone(), requests, whole, answer: sender }, answer)
}

/// An error of the server's is one.
fn answered(value: Value) -> Result<Value, StockError> {
    value.extract_error().map_err(|error| StockError(Box::new(error)))
}

fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

fn down(cause: &str) -> StockError {
    StockError(format!("simulated Redis: {cause}").into())
}

fn lost(_: Lost) -> StockError {
    down("the connection was lost")
}
