//! Clients that buy through NGINX without end, with keys and without, and what they were answered.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contracts::inventory::v1::{RestockRequest, inventory_service_client::InventoryServiceClient};
use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

use super::Stack;
use crate::{Answer, Client, eventually};

/// Time between two restocks.
const RESTOCK_PAUSE: Duration = Duration::from_millis(300);
/// Units of a restock.
const RESTOCK_UNITS: i64 = 7;
/// A restock is repeated for so long at most.
const RESTOCK_LIMIT: Duration = Duration::from_secs(30);

/// What is bought.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Items, each with the units of one order.
    pub items: &'static [(&'static str, i64)],
    /// The item that more is received of meanwhile.
    pub restocked: Option<&'static str>,
    /// How many buy at a time.
    pub clients: usize,
    /// Each client waits so long after an answer.
    pub pause: Duration,
}

/// A request and when it was answered.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// When it was sent.
    pub sent: Instant,
    /// When the answer was there.
    pub answered: Instant,
    /// The answer's status.
    pub status: u16,
    /// Whether an earlier request had placed the order.
    pub replayed: bool,
}

impl Asked {
    /// How long the client waited.
    pub fn took(&self) -> Duration {
        self.answered - self.sent
    }

    /// An order was placed for it, which every part of the system took part in.
    pub fn placed(&self) -> bool {
        self.status == 201 && !self.replayed
    }
}

/// What the clients know, whatever the system knows.
#[derive(Debug, Default)]
pub struct Known {
    /// Item and units of every 201, by id.
    pub created: HashMap<String, (String, i64)>,
    /// Item and units that were asked for under each key, and the id that it was answered with, if it was.
    pub keys: HashMap<String, (String, i64, Option<String>)>,
    /// Every request, as they were answered.
    pub asked: Vec<Asked>,
    /// Units that were received beside the first stock, by item.
    pub restocked: HashMap<String, i64>,
}

/// Clients at work.
pub struct Load {
    known: Arc<Mutex<Known>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts them.
    pub fn start(stack: &Stack, demand: Demand) -> Self {
        let (known, stop) = (Arc::default(), CancellationToken::new());
        let buyer = |n| Buyer { http: stack.http.clone(), name: n, demand, known: Arc::clone(&known) };
        let mut tasks: Vec<_> = (0..demand.clients).map(|n| tokio::spawn(buyer(n).run(stop.clone()))).collect();
        if let Some(item) = demand.restocked {
            tasks.push(tokio::spawn(receive(stack.inventory_clients.clone(), item, Arc::clone(&known), stop.clone())));
        }
        Self { known, stop, tasks }
    }

    /// How many requests were answered by now, to look at those after them.
    pub fn mark(&self) -> usize {
        lock(&self.known).asked.len()
    }

    /// The requests that were answered after a mark.
    pub fn since(&self, mark: usize) -> Vec<Asked> {
        lock(&self.known).asked[mark..].to_vec()
    }

    /// Waits until so many more orders are placed.
    pub async fn orders(&self, count: usize) {
        let mark = self.mark();
        let placed = async || (self.since(mark).iter().filter(|asked| asked.placed()).count() >= count).then_some(());
        eventually(Duration::from_secs(20), "the load runs", placed).await;
    }

    /// Waits for an order that was asked for after `since`, and gives the time from then to its answer.
    pub async fn next_order(&self, since: Instant) -> Duration {
        let next = async || {
            let asked = self.since(0);
            let next = asked.iter().filter(|asked| asked.placed() && asked.sent >= since).map(|asked| asked.answered);
            next.min().map(|answered| answered - since)
        };
        eventually(Duration::from_secs(20), "an order is placed again", next).await
    }

    /// Ends it, and gives what the clients know. A client that got an answer that it must never get fails the test.
    pub async fn stop(self) -> Known {
        self.stop.cancel();
        for ended in join_all(self.tasks).await {
            ended.expect("no client fails");
        }
        std::mem::take(&mut *lock(&self.known))
    }
}

impl Known {
    /// Notes an answer, which is one of those that a client may ever get.
    pub fn note(&mut self, key: Option<&str>, order: (&str, i64), sent: Instant, answer: &Answer) {
        let replayed = answer.header("idempotent-replayed") == "true";
        self.asked.push(Asked { sent, answered: Instant::now(), status: answer.status.as_u16(), replayed });
        match answer.status.as_u16() {
            201 => self.note_order(key, order, answer),
            409 => drop(answer.problem(409, "INSUFFICIENT_STOCK")),
            503 => {
                let overloaded = answer.json()["reason"] == "OVERLOADED";
                answer.problem(503, if overloaded { "OVERLOADED" } else { "UNAVAILABLE" });
                assert_eq!(answer.header("retry-after"), "1", "{answer:?}");
            }
            504 => drop(answer.problem(504, "DEADLINE_EXCEEDED")),
            _ => panic!("{answer:?}"),
        }
    }

    fn note_order(&mut self, key: Option<&str>, (item, units): (&str, i64), answer: &Answer) {
        let (id, order) = (answer.id(), answer.json());
        assert_eq!((&order["item"], &order["quantity"]), (&item.into(), &units.into()), "{answer:?}");
        if let Some(key) = key {
            let (_, _, known) = self.keys.get_mut(key).expect("it was asked");
            assert_eq!(known.get_or_insert_with(|| id.clone()), &id, "one key is one order");
        } else {
            assert!(!self.created.contains_key(&id), "two requests without a key are one order: {id}");
        }
        self.created.insert(id, (item.to_owned(), units));
    }
}

/// One client. Of four requests two have no key, one has a new key, and one repeats it.
struct Buyer {
    http: Client,
    name: usize,
    demand: Demand,
    known: Arc<Mutex<Known>>,
}

impl Buyer {
    async fn run(self, stop: CancellationToken) {
        // Another load of the same test has other keys.
        let run = Uuid::new_v4().simple().to_string();
        let key = |n: usize| format!("{run}-{}-{n}", self.name);
        for n in 0.. {
            if stop.is_cancelled() {
                return;
            }
            let items = self.demand.items;
            let (item, units) = items[(n + n / 4 + self.name) % items.len()];
            match n % 4 {
                1 => self.buy(Some(&key(n)), item, units).await,
                3 => {
                    let key = key(n - 2);
                    let (item, units, _) = lock(&self.known).keys[&key].clone();
                    self.buy(Some(&key), &item, units).await;
                }
                _ => self.buy(None, item, units).await,
            }
            tokio::time::sleep(self.demand.pause).await;
        }
    }

    async fn buy(&self, key: Option<&str>, item: &str, units: i64) {
        let mut headers = vec![("content-type", "application/json")];
        if let Some(key) = key {
            headers.push(("idempotency-key", key));
            lock(&self.known).keys.entry(key.to_owned()).or_insert_with(|| (item.to_owned(), units, None));
        }
        let body = json!({ "item": item, "quantity": units }).to_string();
        let sent = Instant::now();
        let answer = self.http.send(http::Method::POST, "/orders", &headers, body).await;
        lock(&self.known).note(key, (item, units), sent, &answer);
    }
}

/// Restocks an item again and again.
async fn receive(
    services: [InventoryServiceClient<Channel>; 2],
    item: &'static str,
    known: Arc<Mutex<Known>>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        restock(&services, item, RESTOCK_UNITS).await;
        *lock(&known).restocked.entry(item.to_owned()).or_default() += RESTOCK_UNITS;
        tokio::time::sleep(RESTOCK_PAUSE).await;
    }
}

/// Counts units in: asks the services in turn, under one id, until one has answered.
pub async fn restock(services: &[InventoryServiceClient<Channel>; 2], item: &str, quantity: i64) {
    let id = Uuid::new_v4().to_string();
    let end = Instant::now() + RESTOCK_LIMIT;
    for service in services.iter().cycle() {
        let mut request = tonic::Request::new(RestockRequest { id: id.clone(), item: item.to_owned(), quantity });
        request.set_timeout(Duration::from_secs(2));
        let Err(status) = service.clone().restock(request).await else { return };
        assert!(may_be_repeated(&status), "{status:?}");
        assert!(Instant::now() < end, "a restock is not answered within {RESTOCK_LIMIT:?}: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The service did not answer, or said that it cannot now.
fn may_be_repeated(status: &Status) -> bool {
    let cannot_now = [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Cancelled];
    cannot_now.contains(&status.code()) || status.source().is_some()
}

/// How many answers of each status there are.
pub fn statuses(asked: &[Asked]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for one in asked {
        *statuses.entry(one.status).or_default() += 1;
    }
    statuses
}

/// The longest wait for an answer; zero when nothing was asked.
pub fn slowest(asked: &[Asked]) -> Duration {
    asked.iter().map(Asked::took).max().unwrap_or_default()
}

/// How long nine of ten waited for an answer at most; zero when nothing was asked.
pub fn nine_of_ten(asked: &[Asked]) -> Duration {
    within(asked, 90)
}

/// How long so many percent waited for an answer at most; zero when nothing was asked.
pub fn within(asked: &[Asked], percent: usize) -> Duration {
    let mut took: Vec<Duration> = asked.iter().map(Asked::took).collect();
    took.sort();
    took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// The longest time in which no order was placed, from the first request on.
pub fn longest_gap(asked: &[Asked]) -> Duration {
    let mut placed: Vec<Instant> = asked.iter().filter(|one| one.placed()).map(|one| one.answered).collect();
    placed.extend(asked.iter().map(|one| one.sent).min());
    placed.sort();
    placed.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // What is wrong with an answer is said by the client that got it; the others say nothing of their own.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
