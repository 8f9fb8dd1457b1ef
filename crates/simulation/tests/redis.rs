//! The simulated Redis: the suite of the port whose scripts it runs, and what can befall it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId};
use deadpool_redis::redis::Value;
use futures::FutureExt;
use inventory::stock::{
    ConfirmReply, LoadReply, ReleaseReply, ReserveReply, RestockReply, StockReply, StockStore,
    conformance::{Edit, Stage, StockFixture, id, item},
    redis::{
        RedisStock,
        keys::Spread,
        scripts::SCRIPTS,
        wire::{Request, Wire},
    },
};
use service::{
    environment::Env,
    manual::{Dice, ManualEnvironment},
    planted::{self, Bug},
};
use simulation::redis::{Delivery, Redis, SimWire, wire::Hook};

inventory::stock_conformance!(Simulated::new());

/// A store over simulated servers.
struct Simulated {
    env: Arc<ManualEnvironment>,
    redis: Arc<Redis>,
    wire: Arc<SimWire>,
    store: Arc<RedisStock>,
}

impl Simulated {
    fn new() -> Self {
        Self::with(|_, _| Delivery::Pass)
    }

    fn with(hook: impl Fn(&Request, bool) -> Delivery + Send + Sync + 'static) -> Self {
        let env = ManualEnvironment::new(7);
        let clock: Env = env.clone();
        let redis = Redis::new(7, Arc::new(move || clock.now().0));
        let (wire, store) = another(&redis, &env, Arc::new(hook));
        Self { env, redis, wire, store }
    }

    /// A store of another process.
    fn other_store(&self) -> Arc<RedisStock> {
        another(&self.redis, &self.env, Arc::new(|_, _| Delivery::Pass)).1
    }
}

fn another(redis: &Arc<Redis>, env: &Arc<ManualEnvironment>, hook: Hook) -> (Arc<SimWire>, Arc<RedisStock>) {
    let pause = Arc::new(|_| std::future::ready(()).boxed());
    let wire = SimWire::new(Arc::clone(redis), env.clone(), pause, hook);
    let store = RedisStock::over(wire.clone(), Spread::OneServer, env.clone());
    (wire, store)
}

#[async_trait]
impl StockFixture for Simulated {
    fn store(&self) -> Arc<dyn StockStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.env.advance(by);
    }

    async fn wipe(&self) {
        self.redis.wipe(false);
    }

    async fn edit(&self, item: &Item, edit: Edit) {
        let (_, keys) = Spread::OneServer.item(item.as_str());
        let [units, ledger, holds, due, ..] = keys.as_slice() else { panic!("an item has more keys") };
        let add = |field: &str, by: i64| vec!["HINCRBY".to_owned(), ledger.clone(), field.to_owned(), by.to_string()];
        let drop_one =
            |command: &str, key: &String, id: ReservationId| vec![command.into(), key.clone(), id.to_string()];
        let words = match edit {
            Edit::Available(by) => vec!["INCRBY".to_owned(), units.clone(), by.to_string()],
            Edit::Received(by) => add("received", by),
            Edit::Held(by) => add("held", by),
            Edit::Sold(by) => add("sold", by),
            Edit::Counter(by) => add("holds", by),
            Edit::DropHold(id) => drop_one("HDEL", holds, id),
            Edit::DropDue(id) => drop_one("ZREM", due, id),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.redis.command(self.redis.primary(), &words);
    }

    async fn new_incarnation(&self) {
        self.redis.command(self.redis.primary(), &["DEBUG", "CHANGE-REPL-ID"]);
    }
}

/// What the next requests meet, one after the other; then all pass.
fn fates(fates: &'static [Delivery]) -> impl Fn(&Request, bool) -> Delivery + Send + Sync + 'static {
    let asked = AtomicUsize::new(0);
    move |_, _| fates.get(asked.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Delivery::Pass)
}

/// The primary's data and a lease for it, past the wire under test.
async fn opened(simulated: &Simulated) -> Stage {
    let stage = Stage { store: simulated.other_store(), item: item("widget") };
    assert_eq!(stage.load(5, 10, 0).await, LoadReply::Loaded);
    stage
}

#[tokio::test]
async fn a_lost_request_is_an_error_done_or_not_and_the_next_one_connects_anew() {
    let lost = |fate: &'static [Delivery]| async move {
        let simulated = Simulated::with(fates(fate));
        let stage = opened(&simulated).await;
        simulated.store.reserve(&stage.request(id(1), 3)).await.expect_err("lost");
        let done = stage.hold(id(1)).await.is_some();
        let again = simulated.store.reserve(&stage.request(id(1), 3)).await.expect("connected");
        assert!(matches!(again, ReserveReply::Held { remaining: 7, .. }), "{again:?}");
        done
    };
    assert!(!lost(&[Delivery::LoseBefore]).await);
    assert!(lost(&[Delivery::LoseAfter]).await);
}

#[tokio::test]
async fn a_late_request_is_given_up_and_done_when_it_arrives() {
    const LATE: Duration = Duration::from_millis(900);
    let simulated = Simulated::with(fates(&[Delivery::Late(LATE)]));
    let stage = opened(&simulated).await;
    let request = stage.request(id(1), 3);
    let (reply, ()) = futures::join!(simulated.store.reserve(&request), async {
        simulated.advance(Duration::from_millis(600)).await;
    });
    reply.expect_err("given up");
    assert_eq!(stage.hold(id(1)).await, None);
    simulated.advance(Duration::from_millis(300)).await;
    simulated.redis.deliver();
    assert!(stage.hold(id(1)).await.is_some(), "nobody waits for it, and it is done");
}

#[tokio::test]
async fn a_late_request_is_answered_by_whoever_waits_long_enough() {
    const LATE: Duration = Duration::from_millis(100);
    let simulated = Simulated::with(fates(&[Delivery::Late(LATE)]));
    let stage = opened(&simulated).await;
    let request = stage.request(id(1), 3);
    let (reply, ()) = futures::join!(simulated.store.reserve(&request), simulated.advance(LATE));
    assert!(matches!(reply, Ok(ReserveReply::Held { .. })), "{reply:?}");
}

#[tokio::test]
async fn a_request_that_is_late_dies_with_its_server() {
    const LATE: Duration = Duration::from_millis(900);
    let simulated = Simulated::with(fates(&[Delivery::Late(LATE)]));
    let stage = opened(&simulated).await;
    let request = stage.request(id(1), 3);
    let (reply, ()) = futures::join!(simulated.store.reserve(&request), async {
        simulated.redis.restart();
        simulated.advance(LATE).await;
    });
    reply.expect_err("the connection is gone");
    simulated.redis.deliver();
    assert_eq!(simulated.redis.numbers(0, "widget").expect("it is there").holds, 0);
}

#[tokio::test]
async fn a_request_arrives_twice_but_a_load_does_not() {
    const AGAIN: Duration = Duration::from_millis(10);
    let simulated = Simulated::with(|_, _| Delivery::Twice(AGAIN));
    let stage = Stage::new(&simulated);
    assert_eq!(stage.load(5, 10, 0).await, LoadReply::Loaded);
    simulated.wipe().await;
    simulated.advance(AGAIN).await;
    simulated.redis.deliver();
    assert_eq!(simulated.redis.numbers(0, "widget"), None, "a load that came twice would have opened it");
    stage.load(6, 10, 0).await;
    let stamp = stage.held(id(1), 3).await;
    assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::Released);
    simulated.advance(AGAIN).await;
    simulated.redis.deliver();
    assert!(stage.hold(id(1)).await.is_some(), "the reserve came again after the release");
}

#[tokio::test]
async fn a_pipeline_that_breaks_is_done_in_part_and_unknown_scripts_are_sent_whole() {
    let simulated = Simulated::with(fates(&[Delivery::Pass, Delivery::LoseBefore]));
    opened(&simulated).await;
    let put = |key: &str| Request::command_of(0, ["SET", key, "1"]);
    let answers = simulated.wire.ask_all(&[put("a"), put("b")]).await;
    assert!(answers.iter().all(Result::is_err));
    let dump = simulated.redis.dump(0);
    assert!(dump.contains_key("a") && !dump.contains_key("b"));

    simulated.redis.flush_scripts();
    let (slot, keys) = Spread::OneServer.item("widget");
    let counts = Request::run(&SCRIPTS.counts, slot, keys, vec![]);
    let answers = simulated.wire.ask_all(&[counts.clone(), counts.clone()]).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Value::Array(_)))), "{answers:?}");
    simulated.redis.flush_scripts();
    assert!(matches!(simulated.wire.ask(&counts).await, Ok(Value::Array(_))));
}

#[tokio::test]
async fn while_a_server_is_down_calls_fail_and_after_its_return_one_connects() {
    let simulated = Simulated::new();
    let stage = Stage::open(&simulated, 10, 0).await;
    simulated.redis.stop();
    for _ in 0..3 {
        stage.store.available(&stage.item).await.expect_err("down");
    }
    stage.store.ping().await.expect_err("down");
    simulated.redis.start();
    stage.store.available(&stage.item).await.expect_err("nobody tries yet");
    simulated.advance(Duration::from_millis(400)).await;
    stage.store.available(&stage.item).await.expect_err("this one only tries");
    assert_eq!(stage.available().await, StockReply::NotOpen, "another life");
    stage.store.ping().await.expect("it is back");
}

#[tokio::test]
async fn a_slow_server_is_given_up_and_does_what_it_was_asked() {
    let simulated = Simulated::new();
    let stage = Stage::open(&simulated, 10, 0).await;
    simulated.redis.slow(Duration::from_secs(1));
    let request = stage.request(id(1), 3);
    let step = simulated.advance(Duration::from_millis(500));
    let (reply, ()) = futures::join!(simulated.store.reserve(&request), step);
    reply.expect_err("too slow");
    simulated.redis.slow(Duration::ZERO);
    simulated.advance(Duration::from_millis(500)).await;
    simulated.redis.deliver();
    assert_eq!(simulated.redis.numbers(0, "widget").expect("it is there").holds, 1);
}

/// Numbers of the item on a server: whether it is open, its epoch, and units available.
fn seen(simulated: &Simulated, server: usize) -> Option<(bool, i64, i64)> {
    let numbers = simulated.redis.numbers(server, "widget")?;
    Some((numbers.open, numbers.epoch, numbers.available))
}

#[tokio::test]
async fn a_restart_keeps_data_but_not_connections_ids_and_scripts() {
    let simulated = Simulated::new();
    let stage = Stage::open(&simulated, 10, 0).await;
    stage.held(id(1), 3).await;
    simulated.redis.restart();
    assert_eq!(seen(&simulated, 0), Some((false, 5, 7)));
    stage.store.available(&stage.item).await.expect_err("its connection is gone");
    assert_eq!(stage.available().await, StockReply::NotOpen);
    assert_eq!(stage.load(6, 10, 0).await, LoadReply::Loaded);
    simulated.redis.roll_back(1);
    assert_eq!(seen(&simulated, 0), Some((false, 5, 7)), "without the load");
    simulated.redis.wipe(true);
    assert_eq!(simulated.redis.dump(0).len(), 0);
}

#[tokio::test]
async fn a_wipe_alone_keeps_the_incarnation() {
    let simulated = Simulated::new();
    let stage = Stage::open(&simulated, 10, 0).await;
    let before = stage.store.probe(&stage.item).await.expect("it answers");
    simulated.redis.wipe(false);
    let after = stage.store.probe(&stage.item).await.expect("it answers");
    assert_eq!((before.incarnation, after.stored), (after.incarnation, Epoch::NONE));
}

#[tokio::test]
async fn a_failover_lags_and_the_old_primary_goes_on_for_those_who_have_not_heard_of_it() {
    let simulated = Simulated::new();
    let stage = Stage::open(&simulated, 10, 0).await;
    stage.held(id(1), 3).await;
    stage.held(id(2), 2).await;
    simulated.redis.fail_over(true, 1);
    assert_eq!((simulated.redis.primary(), seen(&simulated, 1)), (1, Some((false, 5, 7))));
    stage.held(id(3), 1).await;
    assert_eq!(seen(&simulated, 0), Some((true, 5, 4)), "its connection is to the old one");
    let elsewhere = Stage { store: simulated.other_store(), item: item("widget") };
    assert_eq!(elsewhere.available().await, StockReply::NotOpen, "another life");
    simulated.wire.point_at(None);
    assert_eq!(elsewhere.load(6, 10, 0).await, LoadReply::Loaded);
    assert_eq!(stage.available().await, StockReply::Available(10));
    simulated.wire.point_at(Some(0));
    assert_eq!(stage.available().await, StockReply::Available(4));

    // Back: whoever is connected to the one that is a replica now finds out, and looks for the primary.
    simulated.wire.point_at(None);
    assert_eq!(stage.available().await, StockReply::Available(10));
    simulated.redis.fail_back();
    assert_eq!(simulated.redis.primary(), 0);
    assert_eq!(stage.available().await, StockReply::NotOpen, "a replica");
    assert_eq!(stage.available().await, StockReply::NotOpen, "the primary, in another life");
    assert_eq!(seen(&simulated, 0), Some((false, 6, 10)));
}

#[tokio::test]
async fn a_primary_out_of_reach_comes_back_with_its_connections_and_scripts() {
    let simulated = Simulated::new();
    let stage = Stage::open(&simulated, 10, 0).await;
    simulated.redis.fail_over(false, 0);
    simulated.redis.fail_back();
    assert_eq!(stage.available().await, StockReply::NotOpen, "it is connected still, and the life is another");
}

#[tokio::test]
async fn a_replica_refuses_writes() {
    let simulated = Simulated::new();
    let refused = simulated.redis.command(1, &["SET", "a", "1"]);
    assert!(matches!(refused, Value::ServerError(error) if error.code() == "READONLY"));
    simulated.wire.point_at(Some(1));
    simulated.store.ping().await.expect_err("no master");
}

/// Numbers of servers of one seed never show in those of another, though a thread has one machine for them all.
#[tokio::test]
async fn seeds_do_not_meet() {
    let one = Simulated::new();
    let two = Simulated::new();
    Stage::open(&one, 10, 0).await;
    assert_eq!(Stage::new(&two).available().await, StockReply::NotOpen);
    assert_eq!(one.redis.dump(1).len() + two.redis.dump(0).len(), 0);
}

/// One seed is one run.
#[tokio::test]
async fn edits_are_those_of_their_dice_and_every_kind_shows() {
    let run = async |seed| {
        let mut dice = Dice::new(seed);
        let simulated = Simulated::new();
        let mut done = Vec::new();
        for round in 0..40 {
            let stage = Stage::new(&simulated);
            simulated.wipe().await;
            assert_eq!(stage.load(round + 1, 100, 10).await, LoadReply::Loaded);
            stage.restock(1, 1, round + 1).await;
            for number in 0..3 {
                stage.held(id(number), 2).await;
            }
            let edit = simulated.redis.edit(&mut dice).expect("there is an item");
            let mut touched = 0;
            for number in 0..3 {
                touched += usize::from(stage.hold(id(number)).await.is_none());
            }
            // A number that was raised, no hold has yet; and a hold alone shows when it is asked for.
            let shows = stage.available().await == StockReply::NotOpen || touched == 1;
            assert!(edit.contains(" number ") || shows, "{edit}");
            done.push(edit);
        }
        done
    };
    let first = run(1).await;
    assert_eq!(first, run(1).await);
    assert_ne!(first, run(2).await);
}

/// In this thread alone: so are planted bugs.
fn with_bug(bug: Bug, work: impl AsyncFnOnce(Simulated)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    planted::with(Some(bug), || runtime.block_on(async { work(Simulated::new()).await }));
}

#[test]
fn planted_an_event_sells_again() {
    with_bug(Bug::NoDedupe, async |simulated| {
        let stage = Stage::open(&simulated, 10, 0).await;
        let stamp = stage.held(id(1), 3).await;
        for _ in 0..2 {
            assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed);
        }
        assert_eq!(stage.numbers().await, (10, 4, 0, 6, 0));
    });
}

/// The scripts keep a stock from going below zero, and take the rest from the type of a quantity.
#[test]
fn planted_a_negative_quantity_frees_units_that_others_hold() {
    with_bug(Bug::NegativeQuantity, async |simulated| {
        let stage = Stage::open(&simulated, 10, 0).await;
        stage.held(id(1), 10).await;
        stage.held(id(2), -5).await;
        assert_eq!(stage.available().await, StockReply::Available(5));
    });
}

#[test]
fn planted_a_restock_counts_at_any_epoch() {
    with_bug(Bug::RestockAtAnyEpoch, async |simulated| {
        let stage = Stage::open(&simulated, 10, 0).await;
        assert_eq!(stage.restock(1, 7, 4).await, RestockReply::Counted { available: 17 });
    });
}

#[test]
fn planted_holds_are_not_counted() {
    with_bug(Bug::HoldsUncounted, async |simulated| {
        let stage = Stage::open(&simulated, 10, 0).await;
        stage.held(id(1), 3).await;
        stage.held(id(2), 3).await;
        simulated.edit(&stage.item, Edit::DropHold(id(2))).await;
        assert_eq!(stage.available().await, StockReply::Available(4));
    });
}

/// Over there and back, with the last hold lost on the way: under its old run id, and to whoever was connected all the
/// time, the old primary's data looks like its own.
#[test]
fn planted_an_old_life_is_believed() {
    for bug in [Bug::IncarnationIsRunId, Bug::IncarnationCached] {
        with_bug(bug, async |simulated| {
            let stage = Stage::open(&simulated, 10, 0).await;
            stage.held(id(1), 3).await;
            simulated.redis.fail_over(false, 1);
            simulated.redis.fail_back();
            assert_eq!(stage.available().await, StockReply::Available(10), "{bug:?}: the hold is lost");
        });
    }
}
