//! Clients that race each other for holds over HTTP, and whether what all of them were told is one story.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    time::{Duration, Instant, SystemTime},
};

use contracts::values::Timestamp;
use futures::{StreamExt, future::join_all, stream};
use http::Method;
use serde_json::{Value, json};
use service::manual::Dice;
use uuid::Uuid;

use crate::{Answer, Client, books::Listed, eventually};

/// Races that run at a time,
const RACES_AT_ONCE: usize = 8;
/// and those that wait for a hold's end.
const ENDS_AT_ONCE: usize = 32;
/// A hold's life where nobody waits for its end.
const TTL_LONG_SECONDS: i64 = 60;
/// The racers of a race start within this of each other, in answers: so each of them can be the first one.
const START_SPREAD_ANSWERS: u32 = 4;
/// Those who race against a deadline start this long before it at most, or after it, in microseconds.
const DEADLINE_SPREAD_MICROS: u64 = 250_000;

/// `POST /reserve`.
pub async fn reserve(http: &Client, item: &str, id: &str, quantity: i64, ttl_seconds: i64) -> Answer {
    let body = json!({ "item": item, "quantity": quantity, "ttl_seconds": ttl_seconds, "reservation_id": id });
    http.post("/reserve", &body).await
}

/// `POST /orders` on a hold, with an Idempotency-Key or without.
pub async fn order(http: &Client, item: &str, id: &str, quantity: i64, key: Option<&str>) -> Answer {
    let body = json!({ "item": item, "quantity": quantity, "reservation_id": id });
    match key {
        Some(key) => http.post_with_key("/orders", key, &body).await,
        None => http.post("/orders", &body).await,
    }
}

/// `DELETE /reservations/<id>`.
pub async fn release(http: &Client, id: &str) -> Answer {
    http.send(Method::DELETE, &format!("/reservations/{id}"), &[], "").await
}

/// When a hold falls due, as its reserve was answered.
#[track_caller]
pub fn expires_at(held: &Answer) -> Timestamp {
    assert_eq!((held.status.as_u16(), &held.json()["success"]), (200, &json!(true)), "{held:?}");
    held.json()["expires_at"].as_str().expect("text").parse().expect("a time")
}

/// The time now, by the clock that the stores of a test have too.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_micros()).expect("not that late"))
}

/// Who races for a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Racer {
    /// Orders it, without a key.
    Order,
    /// Orders it under the race's key of this number.
    KeyedOrder(u8),
    /// Releases it.
    Release,
    /// Reserves it again.
    Repeat,
}

/// A race: who takes part, and whether the hold's deadline does.
#[derive(Debug, Clone, Copy)]
pub struct Race {
    /// What is counted under one name.
    pub name: &'static str,
    /// Who takes part.
    pub racers: &'static [Racer],
    /// The hold lives for a second, and its end takes part.
    pub expires: bool,
}

/// Every two of those who may meet, and all of them at once.
pub const RACES: [Race; 10] = {
    use Racer::{KeyedOrder, Order, Release, Repeat};
    const fn race(name: &'static str, racers: &'static [Racer], expires: bool) -> Race {
        Race { name, racers, expires }
    }
    [
        race("order, release", &[Order, Release], false),
        race("keyed order, release", &[KeyedOrder(1), Release, Release], false),
        race("two orders", &[Order, Order], false),
        race("two orders, one key", &[KeyedOrder(1), KeyedOrder(1)], false),
        race("two orders, two keys", &[KeyedOrder(1), KeyedOrder(2)], false),
        race("two orders, key and none", &[KeyedOrder(1), Order], false),
        race("repeat, release", &[Repeat, Release], false),
        race("order, end", &[KeyedOrder(1)], true),
        race("release, end", &[Repeat, Release], true),
        race("all", &[Order, KeyedOrder(1), KeyedOrder(2), Release, Release, Repeat, Repeat], true),
    ]
};

/// How a race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// There is an order, without a key.
    Order,
    /// There is an order of this key.
    KeyedOrder(u8),
    /// There is none, and a repeat was held.
    Held,
    /// There is none, and no repeat was held.
    Released,
}

/// What came of many races: in how many each ended how, and the orders.
#[derive(Debug, Default)]
pub struct Ends {
    /// By the race's name.
    pub counts: BTreeMap<(&'static str, End), usize>,
    /// Every order.
    pub orders: Vec<Listed>,
}

impl Ends {
    /// Fails unless each race was won by either side: one that always ends alike is none.
    pub fn all_seen(&self) {
        let ordered = |end| matches!(end, End::Order | End::KeyedOrder(_));
        for name in ["order, release", "keyed order, release", "order, end", "all"] {
            self.seen(name, ordered);
            self.seen(name, |end| !ordered(end));
        }
        for (name, second) in [("two orders, two keys", End::KeyedOrder(2)), ("two orders, key and none", End::Order)] {
            self.seen(name, |end| end == End::KeyedOrder(1));
            self.seen(name, |end| end == second);
        }
        for name in ["repeat, release", "release, end"] {
            self.seen(name, |end| end == End::Held);
            self.seen(name, |end| end == End::Released);
        }
    }

    fn seen(&self, name: &str, wanted: impl Fn(End) -> bool) {
        let seen = self.counts.keys().any(|(of, end)| *of == name && wanted(*end));
        assert!(seen, "{name}: {:?}", self.counts);
    }
}

/// Who starts when.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// One after the other at once, as they are named.
    Forward,
    /// The other way round, after the hold's end if that takes part.
    Backward,
    /// Almost together, about the hold's end if that takes part.
    Together,
}

/// Has each race run so often, on holds of `item`, and checks each. Half of them are no races: so every end is seen.
pub async fn race(http: &Client, item: &str, rounds: usize, seed: u64) -> Ends {
    let mut dice = Dice::new(seed);
    let starts = [Start::Together, Start::Forward, Start::Together, Start::Backward];
    let (mut slow, mut quick) = (Vec::new(), Vec::new());
    for start in starts.into_iter().cycle().take(rounds) {
        for race in RACES {
            let queue = if race.expires { &mut slow } else { &mut quick };
            queue.push((race, start, Dice::new(dice.below(u64::MAX))));
        }
    }
    let run = async |(race, start, dice)| run(http, item, race, start, dice).await;
    let (slow, quick) = tokio::join!(
        stream::iter(slow).map(run).buffer_unordered(ENDS_AT_ONCE).collect::<Vec<_>>(),
        stream::iter(quick).map(run).buffer_unordered(RACES_AT_ONCE).collect::<Vec<_>>(),
    );
    let mut ends = Ends::default();
    for (name, end, order) in slow.into_iter().chain(quick) {
        *ends.counts.entry((name, end)).or_default() += 1;
        ends.orders.extend(order);
    }
    ends
}

/// What a racer was told, and when.
#[derive(Debug)]
struct Told {
    racer: Racer,
    sent: (Instant, Timestamp),
    answered: (Instant, Timestamp),
    answer: Answer,
}

impl Told {
    /// The problem's reason; empty for success.
    fn reason(&self) -> String {
        if self.answer.status.is_success() {
            return String::new();
        }
        let reason = self.answer.json()["reason"].as_str().unwrap_or_default().to_owned();
        self.answer.problem(409, &reason);
        reason
    }

    fn succeeded(&self, wanted: impl Fn(Racer) -> bool) -> bool {
        self.answer.status.is_success() && wanted(self.racer)
    }

    fn replayed(&self) -> bool {
        self.answer.header("idempotent-replayed") == "true"
    }
}

fn is_order(racer: Racer) -> bool {
    matches!(racer, Racer::Order | Racer::KeyedOrder(_))
}

/// One hold, and all that is asked of it.
struct Held<'a> {
    http: &'a Client,
    item: &'a str,
    id: String,
    quantity: i64,
}

impl Held<'_> {
    fn key(&self, number: u8) -> String {
        format!("{}-{number}", self.id)
    }

    async fn ask(&self, racer: Racer, ttl_seconds: i64) -> Told {
        let Self { http, item, id, quantity } = self;
        let sent = (Instant::now(), now());
        let answer = match racer {
            Racer::Order => order(http, item, id, *quantity, None).await,
            Racer::KeyedOrder(number) => order(http, item, id, *quantity, Some(&self.key(number))).await,
            Racer::Release => release(http, id).await,
            Racer::Repeat => reserve(http, item, id, *quantity, ttl_seconds).await,
        };
        Told { racer, sent, answered: (Instant::now(), now()), answer }
    }

    async fn stands(&self) -> Option<Value> {
        let read = self.http.get(&format!("/orders/{}", self.id)).await;
        if read.status == 200 {
            return Some(read.json());
        }
        read.problem(404, "ORDER_NOT_FOUND");
        None
    }

    /// Whoever asks afterwards is told the same.
    async fn ask_afterwards(&self, was_order: bool, about: &dyn Debug) {
        let Self { http, item, id, quantity } = self;
        let released = release(http, id).await;
        let repeated = reserve(http, item, id, *quantity, TTL_LONG_SECONDS).await;
        let ordered = order(http, item, id, *quantity, None).await;
        let keyed = order(http, item, id, *quantity, Some(&self.key(9))).await;
        let released_again = release(http, id).await;
        if was_order {
            for spent in [released, repeated, keyed, released_again] {
                spent.problem(409, "RESERVATION_CONFIRMED");
            }
            let answered = (ordered.status.as_u16(), ordered.id(), ordered.header("idempotent-replayed"));
            assert_eq!(answered, (201, id.clone(), "true"), "{about:?}");
        } else {
            for released in [released, released_again] {
                assert_eq!(released.status, 204, "{released:?} after {about:?}");
            }
            for ended in [repeated, ordered, keyed] {
                ended.problem(409, "RESERVATION_RELEASED");
            }
        }
    }
}

async fn run(
    http: &Client,
    item: &str,
    race: Race,
    start_as: Start,
    mut dice: Dice,
) -> (&'static str, End, Option<Listed>) {
    let quantity = 1 + i64::try_from(dice.below(3)).expect("small");
    let held = Held { http, item, id: Uuid::new_v4().to_string(), quantity };
    let ttl = if race.expires { 1 } else { TTL_LONG_SECONDS };
    let asked = Instant::now();
    let due = expires_at(&reserve(http, item, &held.id, quantity, ttl).await);
    let (start, spread) = if race.expires {
        let until_due = Duration::from_micros(u64::try_from(due.0 - now().0).unwrap_or(0));
        let before = Duration::from_micros(DEADLINE_SPREAD_MICROS);
        (Instant::now() + until_due.saturating_sub(before), 2 * before)
    } else {
        (Instant::now(), asked.elapsed() * START_SPREAD_ANSWERS)
    };
    let mut told = Vec::new();
    match start_as {
        Start::Forward => {
            for racer in race.racers {
                told.push(held.ask(*racer, ttl).await);
            }
        }
        Start::Backward => {
            tokio::time::sleep_until((start + spread).into()).await;
            for racer in race.racers.iter().rev() {
                told.push(held.ask(*racer, ttl).await);
            }
        }
        Start::Together => {
            let mut later = || start + spread * u32::try_from(dice.below(1_000)).expect("small") / 1_000;
            let racers: Vec<_> = race.racers.iter().map(|racer| (*racer, later())).collect();
            let ask = async |(racer, at): (Racer, Instant)| {
                tokio::time::sleep_until(at.into()).await;
                held.ask(racer, ttl).await
            };
            told.extend(join_all(racers.into_iter().map(ask)).await);
        }
    }
    let order = held.stands().await;
    check(race, due, &told, order.as_ref());
    held.ask_afterwards(order.is_some(), &told).await;
    assert_eq!(held.stands().await, order, "{told:?}");

    let placed = told.iter().find(|t| t.succeeded(is_order) && !t.replayed());
    let end = match placed.map(|placed| placed.racer) {
        Some(Racer::KeyedOrder(number)) => End::KeyedOrder(number),
        Some(_) => End::Order,
        None if told.iter().any(|t| t.succeeded(|racer| racer == Racer::Repeat)) => End::Held,
        None => End::Released,
    };
    (race.name, end, order.as_ref().map(Listed::new))
}

/// What all were told is one story, which ends with this order, or none.
fn check(race: Race, due: Timestamp, told: &[Told], order: Option<&Value>) {
    let firsts = told.iter().filter(|t| t.succeeded(is_order) && !t.replayed()).count();
    assert_eq!(firsts, usize::from(order.is_some()), "one is the first: {told:#?}");
    for one in told {
        let fits = match (one.racer, one.reason().as_str()) {
            (Racer::Order | Racer::KeyedOrder(_), "") => order == Some(&one.answer.json()),
            (Racer::Release, "") => one.answer.status == 204 && order.is_none(),
            (Racer::Repeat, "") => expires_at(&one.answer) >= due && expires_at(&one.answer) >= one.sent.1,
            (Racer::KeyedOrder(_) | Racer::Release | Racer::Repeat, "RESERVATION_CONFIRMED") => order.is_some(),
            (_, "RESERVATION_RELEASED") => order.is_none(),
            _ => false,
        };
        assert!(fits, "{one:#?} of {told:#?}, and the order is {order:?}");
    }
    // The first order of a key is the key's; under another key the hold's order is not told.
    for one in told.iter().filter(|t| t.reason() == "RESERVATION_CONFIRMED" && is_order(t.racer)) {
        assert!(!told.iter().any(|t| t.racer == one.racer && t.succeeded(is_order)), "one key, two answers: {told:#?}");
    }
    // Who asks when something is answered already cannot be told otherwise.
    for (before, after) in told.iter().flat_map(|a| told.iter().map(move |b| (a, b))) {
        if before.answered.0 < after.sent.0 && after.succeeded(|racer| racer == Racer::Repeat) {
            let spent = before.succeeded(|racer| racer != Racer::Repeat) || before.reason() == "RESERVATION_RELEASED";
            assert!(!spent, "held although it was {before:#?}: {after:#?}");
        }
    }
    // What a deadline promises, and nothing beside it can have changed.
    if let [only] = told {
        assert!(race.expires && is_order(only.racer));
        assert!(only.answered.1 > due || order.is_some(), "refused before {due}: {only:#?}");
        assert!(only.sent.1 <= due || order.is_none(), "placed after {due}: {only:#?}");
    }
}

/// Holds of one unit of an item each, that came to different ends.
pub struct Fates {
    item: String,
    ordered: String,
    released: String,
    expired: String,
    live: String,
}

impl Fates {
    /// Brings them about. Two units are sold or held afterwards.
    pub async fn come(http: &Client, item: &str) -> Self {
        let [ordered, released, expired, live] = std::array::from_fn(|_| Uuid::new_v4().to_string());
        for (id, ttl_seconds) in [(&expired, 1), (&ordered, 60), (&released, 60), (&live, 60)] {
            expires_at(&reserve(http, item, id, 1, ttl_seconds).await);
        }
        assert_eq!(order(http, item, &ordered, 1, None).await.status, 201);
        assert_eq!(release(http, &released).await.status, 204);
        let back = async || (http.get(&format!("/inventory/{item}")).await.json()["stock"] == 98).then_some(());
        eventually(Duration::from_secs(1 + 5), "the units of a hold that ended are back", back).await;
        Self { item: item.to_owned(), ordered, released, expired, live }
    }

    /// After the stock store has lost everything, 99 units are free, and stay so: what the ledger has judged is known, and
    /// of the hold that was live nobody knows.
    pub async fn are_known(&self, http: &Client) {
        let Self { item, ordered, released, expired, live } = self;
        assert_eq!(http.stock(item).await, 99);
        reserve(http, item, ordered, 1, 60).await.problem(409, "RESERVATION_CONFIRMED");
        assert_eq!(order(http, item, ordered, 1, None).await.id(), *ordered);
        release(http, ordered).await.problem(409, "RESERVATION_CONFIRMED");
        for ended in [released, expired] {
            assert_eq!(release(http, ended).await.status, 204);
            reserve(http, item, ended, 1, 60).await.problem(409, "RESERVATION_RELEASED");
            order(http, item, ended, 1, None).await.problem(409, "RESERVATION_RELEASED");
            assert_eq!(release(http, ended).await.status, 204);
        }
        release(http, live).await.problem(404, "RESERVATION_NOT_FOUND");
        assert_eq!(http.stock(item).await, 99);
        assert_eq!(order(http, item, live, 1, None).await.status, 201, "from what is free");
        assert_eq!(http.stock(item).await, 98);
    }
}
