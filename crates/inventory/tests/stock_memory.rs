//! The embedded stock store: the conformance suite, and what only memory promises.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item};
use inventory::stock::{
    CONFIRMED_MARKER_SECONDS, ConfirmReply, HINT_GRACE_SECONDS, LoadReply, RELEASE_MARKER_SECONDS,
    RESTOCKS_PER_LEASE_MAX, ReleaseReply, ReserveReply, ReserveRequest, RestockReply, StockReply, StockStore,
    conformance::{Edit, Stage, StockFixture, id, stamp_of},
    memory::{MARKERS_PER_ITEM_MAX, MemoryStock},
};
use service::manual::ManualEnvironment;

/// In microseconds.
const SECOND: i64 = 1_000_000;

struct MemoryFixture {
    env: Arc<ManualEnvironment>,
    stock: Arc<MemoryStock>,
}

impl MemoryFixture {
    fn new() -> Self {
        let env = ManualEnvironment::new(1);
        let stock = MemoryStock::new(env.clone());
        Self { env, stock }
    }
}

#[async_trait]
impl StockFixture for MemoryFixture {
    fn store(&self) -> Arc<dyn StockStore> {
        self.stock.clone()
    }

    async fn advance(&self, by: Duration) {
        self.env.advance(by);
    }

    async fn wipe(&self) {
        self.stock.wipe();
    }

    async fn edit(&self, item: &Item, edit: Edit) {
        self.stock.edit(item, |state| match edit {
            Edit::Available(units) => state.numbers.available += units,
            Edit::Received(units) => state.numbers.received += units,
            Edit::Held(units) => state.numbers.held += units,
            Edit::Sold(units) => state.numbers.sold += units,
            Edit::Counter(holds) => state.numbers.holds = state.numbers.holds.wrapping_add_signed(holds),
            Edit::DropHold(id) => assert!(state.holds.remove(&id).is_some(), "there is a hold to drop"),
            Edit::DropDue(id) => state.due.retain(|(_, due)| *due != id),
        });
    }

    async fn new_incarnation(&self) {
        self.stock.renew_incarnation();
    }
}

inventory::stock_conformance!(MemoryFixture::new());

#[tokio::test]
async fn a_deadline_is_the_time_to_live_from_now() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let now = service::environment::Environment::now(&*fixture.env);
    stage.send(&stage.short_request(id(1), 1)).await;
    assert_eq!(stage.hold(id(1)).await.expect("held").deadline, now.plus(Duration::from_secs(1)));
    fixture.advance(Duration::from_micros(999_999)).await;
    assert_eq!(stage.due().await, []);
    fixture.advance(Duration::from_micros(1)).await;
    assert_eq!(stage.due().await, [id(1)]);
}

#[tokio::test]
async fn a_clock_that_jumps_changes_only_when_holds_are_due() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let stamp = stamp_of(stage.send(&stage.short_request(id(1), 1)).await);
    let before = stage.counts().await;
    fixture.env.jump(3_600 * SECOND);
    assert_eq!(stage.due().await, [id(1)]);
    fixture.env.jump(-7_200 * SECOND);
    assert_eq!(stage.due().await, []);
    assert_eq!(stage.counts().await, before);
    assert_eq!(stage.send(&stage.short_request(id(1), 1)).await, stage.reserve(id(1), 1).await, "no deadline is cut");
    assert_eq!(stage.confirm(id(1), &stamp).await, ConfirmReply::Confirmed);
}

#[tokio::test]
async fn a_marker_that_comes_alive_again_hides_no_hold() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    assert_eq!(stage.release_marked(id(1), &stage.stamp(0, 0)).await, ReleaseReply::Absent);
    fixture.env.jump(2 * SECOND * i64::try_from(RELEASE_MARKER_SECONDS).expect("small"));
    let stamp = stage.held(id(1), 1).await;
    fixture.env.jump(-2 * SECOND * i64::try_from(RELEASE_MARKER_SECONDS).expect("small"));
    assert_eq!(stage.held(id(1), 1).await, stamp);
    assert_eq!(stage.release(id(1), &stamp).await, ReleaseReply::Released);
    assert_eq!(stage.held(id(1), 1).await.number, 2, "the marker was over when the hold was made");
}

#[tokio::test]
async fn a_confirmed_marker_lasts_its_time() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let stamp = stage.held(id(1), 1).await;
    stage.confirm(id(1), &stamp).await;
    fixture.advance(Duration::from_micros(CONFIRMED_MARKER_SECONDS * 1_000_000 - 1)).await;
    assert_eq!(stage.held(id(1), 1).await, stamp);
    fixture.advance(Duration::from_micros(1)).await;
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(5, 2), "a hold of its own, which the ledger judges surplus");
}

#[tokio::test]
async fn an_order_is_never_marked_as_released() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let stamp = stage.held(id(1), 1).await;
    stage.confirm(id(1), &stamp).await;
    assert_eq!(stage.release_marked(id(1), &stamp).await, ReleaseReply::Absent);
    assert_eq!(stage.release_marked(id(1), &stage.stamp(0, 0)).await, ReleaseReply::Absent);
    fixture.advance(Duration::from_secs(CONFIRMED_MARKER_SECONDS)).await;
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(5, 2), "the ledger finds the order under this id");
}

#[tokio::test]
async fn a_release_marker_lasts_its_time() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    stage.release_marked(id(1), &stage.stamp(0, 0)).await;
    fixture.advance(Duration::from_micros(RELEASE_MARKER_SECONDS * 1_000_000 - 1)).await;
    assert_eq!(stage.reserve(id(1), 1).await, ReserveReply::Released);
    fixture.advance(Duration::from_micros(1)).await;
    assert_eq!(stage.held(id(1), 1).await, stage.stamp(5, 1));
}

#[tokio::test]
async fn a_hint_lasts_its_grace_after_the_deadline_that_a_repeat_lengthened() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let short = ReserveRequest { hint: true, ..stage.short_request(id(1), 1) };
    let last = Duration::from_micros(1_000_000 + HINT_GRACE_SECONDS * 1_000_000 - 1);
    let known = async || stage.store.find(id(1)).await.expect("it answers").is_some();
    stage.send(&short).await;
    fixture.advance(Duration::from_millis(900)).await;
    stage.send(&short).await;
    fixture.advance(last).await;
    assert!(known().await);
    fixture.advance(Duration::from_micros(1)).await;
    assert!(!known().await);
}

#[tokio::test]
async fn markers_and_hints_that_are_over_are_forgotten_as_new_ones_come() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 100_000, 0).await;
    for round in 0..3_u64 {
        for number in 0..1_000 {
            let (kept, sold) = (id(round * 10_000 + number), id(round * 10_000 + 5_000 + number));
            let hinted = ReserveRequest { hint: true, ..stage.short_request(kept, 1) };
            let stamp = stamp_of(stage.send(&hinted).await);
            stage.release_marked(kept, &stamp).await;
            let stamp = stage.held(sold, 1).await;
            stage.confirm(sold, &stamp).await;
        }
        fixture.advance(Duration::from_secs(RELEASE_MARKER_SECONDS)).await;
    }
    assert_eq!(fixture.stock.remembered(&stage.item), (1_000, 1_000, 1_000));
}

#[tokio::test]
async fn markers_are_bounded_and_forgetting_one_is_safe() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let stamp = stage.stamp(0, 0);
    let count = u64::try_from(MARKERS_PER_ITEM_MAX).expect("small");
    for number in 0..=count {
        fixture.env.advance(Duration::from_micros(1));
        assert_eq!(stage.release_marked(id(number), &stamp).await, ReleaseReply::Absent);
    }
    assert_eq!(fixture.stock.remembered(&stage.item), (0, 0, MARKERS_PER_ITEM_MAX));
    assert_eq!(stage.reserve(id(count), 1).await, ReserveReply::Released);
    assert_eq!(stage.reserve(id(1), 1).await, ReserveReply::Released);
    let forgotten = stage.held(id(0), 1).await;
    assert_eq!(stage.numbers().await, (10, 9, 1, 0, 1), "an ordinary hold");
    assert_eq!(stage.release(id(0), &forgotten).await, ReleaseReply::Released, "which its verdict gives back");
}

#[tokio::test]
async fn restocks_beyond_the_bound_ask_for_the_next_lease_which_counts_them_all() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 0, 0).await;
    let most = i64::try_from(RESTOCKS_PER_LEASE_MAX).expect("small");
    for number in 1..=most {
        let reply = stage.restock(u64::try_from(number).expect("positive"), 1, 5).await;
        assert_eq!(reply, RestockReply::Counted { available: number });
    }
    let beyond = u64::try_from(most).expect("positive") + 1;
    assert_eq!(stage.restock(beyond, 1, 5).await, RestockReply::NotOpen);
    assert_eq!(stage.restock(1, 1, 5).await, RestockReply::Counted { available: most }, "a repeat is known still");
    assert_eq!(stage.numbers().await, (most, most, 0, 0, 0), "for everything else the item stays open");
    assert_eq!(stage.load(6, most + 1, 0).await, LoadReply::Loaded);
    assert_eq!(stage.restock(beyond, 1, 5).await, RestockReply::Counted { available: most + 1 });
    assert_eq!(stage.restock(beyond, 1, 6).await, RestockReply::Counted { available: most + 2 }, "there is room again");
}

#[tokio::test]
async fn numbers_never_overflow() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, i64::MAX, 0).await;
    assert_eq!(stage.restock(1, 1, 5).await, RestockReply::NotOpen);
    assert_eq!(stage.numbers().await, (i64::MAX, i64::MAX, 0, 0, 0));
    let held = stage.held(id(1), 1_000_000).await;
    assert_eq!(stage.confirm(id(1), &held).await, ConfirmReply::Confirmed);
    fixture.env.jump((i64::MAX / SECOND - 1_795_000_000 - 10) * SECOND);
    stage.held(id(2), 1).await;
    assert_eq!(stage.due().await, [], "a deadline beyond all time is never due");
}

#[tokio::test]
async fn after_a_broken_assertion_nothing_is_believed_any_more() {
    let fixture = MemoryFixture::new();
    let stage = Stage::open(&fixture, 10, 0).await;
    let before = stage.store.probe(&stage.item).await.expect("the store answers").incarnation;
    let broken = catch_unwind(AssertUnwindSafe(|| fixture.stock.edit(&stage.item, |_| panic!("on purpose"))));
    assert!(broken.is_err());
    assert_eq!(stage.available().await, StockReply::NotOpen);
    assert_eq!(stage.counts_if_there().await, None);
    let after = stage.store.probe(&stage.item).await.expect("the store answers").incarnation;
    assert_ne!(before, after, "a lease that is on its way is refused");
    assert_eq!(stage.load(6, 10, 0).await, LoadReply::Loaded, "and the next one opens it again");
}

#[tokio::test]
async fn two_stores_are_two_incarnations() {
    let env = ManualEnvironment::new(1);
    let stores = [MemoryStock::new(env.clone()), MemoryStock::new(env)];
    let item = Item::parse("widget").expect("sane");
    let first = stores[0].probe(&item).await.expect("it answers");
    let second = stores[1].probe(&item).await.expect("it answers");
    assert_ne!(first.incarnation, second.incarnation);
    assert_eq!(first.stored, Epoch::NONE);
}
