//! The figures that the system promises, measured one after the other on a system that nothing else is done to. What
//! none of them may cost, an order or a unit, the judge of the whole run tells: I3, I8 and I9.

use std::time::{Duration, Instant};

use futures::future::join_all;
use servers::get;
use tokio::time::sleep;
use uuid::Uuid;

use crate::calls::Caller;
use crate::history::{Invoke, Op, Phase};
use crate::load::{HOLD_SECONDS, Load, Mix};
use crate::report::say;
use crate::system::{FIRST_STOCK, POSTGRES, RABBITMQ, System};
use crate::tally::{Asked, statuses, within};

/// The backlog is gone so soon after the broker's return.
const BACKLOG_LIMIT: Duration = Duration::from_secs(30);
/// Orders are placed again so soon after Redis was wiped,
const WIPED_LIMIT: Duration = Duration::from_secs(2);
/// and after Postgres is back.
const POSTGRES_LIMIT: Duration = Duration::from_secs(3);
/// Who asks while Redis is empty is answered within this.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);
/// Who asks so soon after a wipe may meet it.
const WIPED_SPAN: Duration = Duration::from_secs(2);
/// A hold without an order is back in stock so soon after it was due.
const HOLD_LIMIT: Duration = Duration::from_secs(5);
/// Units of what many order at once,
const RUSH_UNITS: i64 = 100;
/// and those who do.
const RUSH_ORDERS: u32 = 5_000;
/// Who is told to come again comes so much later, as the answer asks.
const RUSH_PAUSE: Duration = Duration::from_secs(1);
/// Each of them is told yes or no within this.
const RUSH_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
const GIVE_UP: Duration = Duration::from_mins(2);

/// How much of everything is done.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    broker_down: Duration,
    repeats: usize,
    holds: usize,
    rushes: usize,
}

impl Extent {
    /// As promised.
    pub const LONG: Self = Self { broker_down: Duration::from_mins(1), repeats: 10, holds: 50, rushes: 50 };
    /// The same limits, in a minute.
    pub const SHORT: Self = Self { broker_down: Duration::from_secs(10), repeats: 2, holds: 10, rushes: 2 };
}

/// One line of the table.
#[derive(Debug)]
pub struct Figure {
    /// What was done.
    pub what: &'static str,
    /// What was promised.
    pub goal: String,
    /// What was measured.
    pub measured: String,
    /// Whether the promise was kept.
    pub is_met: bool,
}

struct Run<'a> {
    system: &'a System,
    caller: Caller,
    seed: u64,
    figures: Vec<Figure>,
}

/// Measures all of them. The same seed must not have been used in the same history.
pub async fn measure(caller: &Caller, extent: Extent, system: &System, seed: u64) -> Vec<Figure> {
    let mut run = Run { system, caller: caller.clone(), seed, figures: Vec::new() };
    run.broker_down(extent.broker_down).await;
    run.redis_wiped(extent.repeats).await;
    run.postgres_killed(extent.repeats).await;
    run.holds_without_orders(extent.holds).await;
    run.rushes(extent.rushes).await;
    run.figures
}

impl Run<'_> {
    fn add(&mut self, what: &'static str, goal: &str, measured: String, is_met: bool) {
        say(&format!("{what}: {measured}"));
        self.figures.push(Figure { what, goal: goal.to_owned(), measured, is_met });
    }

    async fn load(&mut self, mix: Mix) -> Load {
        self.seed = self.seed.wrapping_add(1_000);
        let load = Load::start(self.caller.clone(), mix, self.seed).await;
        let runs = self.caller.tally.orders(100, GIVE_UP).await;
        assert!(runs, "no orders are placed within {GIVE_UP:?} although nothing was done");
        load
    }

    async fn outbox(&self, condition: &str) -> u64 {
        let count = self.system.sql(&format!("SELECT count(*) FROM outbox {condition}")).await;
        count.parse().expect("a number")
    }

    async fn broker_down(&mut self, down: Duration) {
        let load = self.load(Mix::Orders).await;
        let (mark, rabbitmq) = (self.caller.tally.mark(), &self.system.rabbitmq);
        self.caller.recorder.fault("rabbitmq_killed", Phase::Begin);
        rabbitmq.kill().await;
        self.system.set_dead(RABBITMQ, true);
        sleep(down).await;
        self.system.set_dead(RABBITMQ, false);
        rabbitmq.start_again().await;
        self.caller.recorder.fault("rabbitmq_killed", Phase::End);
        let back = Instant::now();
        let newest = self.system.sql("SELECT coalesce(max(seq), 0) FROM outbox").await;
        let left = format!("WHERE seq <= {newest}");
        let backlog = self.outbox(&left).await;
        while self.outbox(&left).await > 0 && back.elapsed() < GIVE_UP {
            sleep(POLL).await;
        }
        let gone = back.elapsed();
        load.stop().await;
        let asked = self.caller.tally.since(mark);
        let failed = asked.iter().filter(|one| one.status != Some(201)).count();
        self.add(
            "broker down under load",
            "0 failed orders, backlog gone within 30 s of its return",
            format!("down {down:.0?}, {} orders, {failed} failed; {backlog} events gone after {gone:.1?}", asked.len()),
            failed == 0 && backlog > 0 && gone <= BACKLOG_LIMIT,
        );
    }

    async fn redis_wiped(&mut self, repeats: usize) {
        let load = self.load(Mix::Everything).await;
        let (mut longest, mut asked): (Duration, Vec<Asked>) = Default::default();
        for _ in 0..repeats {
            let mark = self.caller.tally.mark();
            self.caller.recorder.fault("redis_wiped", Phase::Begin);
            let begin = Instant::now();
            self.system.redis[0].cli(&["FLUSHALL"]).await;
            self.caller.recorder.fault("redis_wiped", Phase::End);
            let again = self.caller.tally.orders_again(GIVE_UP).await.unwrap_or(GIVE_UP);
            longest = longest.max(again);
            sleep(WIPED_SPAN.saturating_sub(begin.elapsed())).await;
            asked.extend(self.caller.tally.since(mark).iter().filter(|one| {
                // A key with another body is refused whatever happens.
                one.op == Op::Order && one.answered >= begin && one.status != Some(422)
            }));
            sleep(WIPED_SPAN).await;
        }
        load.stop().await;
        let statuses = statuses(&asked, Op::Order);
        let expected = statuses.keys().all(|status| [201, 409, 503].contains(status));
        let slowest = within(&asked, 100);
        self.add(
            "Redis wiped under load",
            "answers 201, 409 or 503 within 250 ms, orders again within 2 s",
            format!(
                "{repeats} times: {statuses:?}, 99 of 100 within {:.0?}, all within {slowest:.0?}; orders of every \
                 item again after {longest:.2?} at most",
                within(&asked, 99)
            ),
            expected && slowest <= ANSWER_LIMIT && longest <= WIPED_LIMIT,
        );
    }

    async fn postgres_killed(&mut self, repeats: usize) {
        let load = self.load(Mix::Everything).await;
        let mut longest = Duration::ZERO;
        for _ in 0..repeats {
            self.caller.recorder.fault("postgres_killed", Phase::Begin);
            self.system.postgres.kill().await;
            self.system.set_dead(POSTGRES, true);
            sleep(Duration::from_secs(1)).await;
            self.system.postgres.start_again().await;
            self.system.set_dead(POSTGRES, false);
            self.caller.recorder.fault("postgres_killed", Phase::End);
            let again = self.caller.tally.orders_again(GIVE_UP).await.unwrap_or(GIVE_UP);
            longest = longest.max(again);
            sleep(Duration::from_secs(1)).await;
        }
        load.stop().await;
        self.add(
            "Postgres killed and restarted under load",
            "orders again within 3 s of its return",
            format!("{repeats} times: orders of every item again after {longest:.2?} at most"),
            longest <= POSTGRES_LIMIT,
        );
    }

    async fn stock(&self, item: &str) -> i64 {
        let answer = get(self.caller.http, &format!("/inventory/{item}")).await;
        let stock = answer.and_then(|(_, body)| serde_json::from_str::<serde_json::Value>(&body).ok());
        stock.and_then(|body| body["stock"].as_i64()).unwrap_or(-1)
    }

    async fn receive(&self, item: &str, units: i64) {
        let quantity = u64::try_from(units - FIRST_STOCK).expect("more than there are");
        let invoke = Invoke {
            op: Op::Restock,
            item: Some(item.to_owned()),
            quantity: Some(quantity),
            restock: Some(Uuid::new_v4()),
            ..Invoke::default()
        };
        while self.caller.call(0, invoke.clone()).await.is_unknown() {
            sleep(POLL).await;
        }
    }

    async fn holds_without_orders(&mut self, holds: usize) {
        let item = "forgotten";
        let units = i64::try_from(holds).expect("small");
        self.receive(item, units).await;
        let begin = Instant::now();
        for _ in 0..holds {
            let hold = Some(Uuid::new_v4());
            let (item, quantity) = (Some(item.to_owned()), Some(1));
            let reserve = Invoke { op: Op::Reserve, item, quantity, hold, ..Invoke::default() };
            assert!(self.caller.call(0, reserve).await.is_held(), "a hold of what nobody else wants");
        }
        let last = Instant::now();
        let held = self.stock(item).await == 0;
        while self.stock(item).await != units && last.elapsed() < GIVE_UP {
            sleep(POLL).await;
        }
        // Against all of them: from when the first one was made.
        let (ttl, took) = (Duration::from_secs(HOLD_SECONDS), begin.elapsed());
        self.add(
            "hold without an order",
            "back in stock within TTL + 5 s",
            format!("{holds} holds of {ttl:?}, all back after {took:.1?}"),
            held && took <= ttl + HOLD_LIMIT,
        );
    }

    async fn rushes(&mut self, rushes: usize) {
        let (mut sold_right, mut slowest, mut others) = (0, Duration::ZERO, 0);
        for number in 0..rushes {
            let item = format!("rush-{number}");
            self.receive(&item, RUSH_UNITS).await;
            let begin = Instant::now();
            let (run, caller, wanted) = (self.seed, &self.caller, &item);
            let orders = (0..RUSH_ORDERS).map(|client| async move {
                let (item, key) = (Some(wanted.clone()), Some(format!("{run:x}-{wanted}-{client}")));
                let order = Invoke { op: Op::Order, item, quantity: Some(1), key, ..Invoke::default() };
                let mut told = caller.call(client, order.clone()).await;
                while told.is_unknown() && begin.elapsed() < RUSH_LIMIT {
                    sleep(RUSH_PAUSE).await;
                    told = caller.call(client, order.clone()).await;
                }
                (told.order().is_some(), told.is_unknown())
            });
            let told = join_all(orders).await;
            slowest = slowest.max(begin.elapsed());
            let placed = told.iter().filter(|(is_placed, _)| *is_placed).count();
            others += told.iter().filter(|(_, is_unknown)| *is_unknown).count();
            let in_ledger = self.system.sql(&format!("SELECT count(*) FROM orders WHERE item = '{item}'")).await;
            sold_right += usize::from(placed.to_string() == in_ledger && in_ledger == RUSH_UNITS.to_string());
        }
        self.add(
            "5,000 parallel orders on a stock of 100",
            "exactly 100 each",
            format!("{sold_right} of {rushes} times exactly 100, {others} not answered, each within {slowest:.1?}"),
            sold_right == rushes && others == 0,
        );
    }
}
