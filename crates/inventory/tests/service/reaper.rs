use contracts::{
    Reason,
    values::{Epoch, Item, ReservationId, Stamp},
};
use inventory::{
    opener::OPEN_ATTEMPTS_MAX,
    stock::{DUE_BATCH_MAX, LoadReply, OPEN_ITEMS_BATCH_MAX, StockStore},
};

use crate::{
    store::LoadFault,
    world::{World, item},
};

impl World {
    /// As another instance does.
    async fn open_all(&self, items: &[Item]) {
        for item in items {
            let incarnation = self.memory.probe(item).await.expect("answers").incarnation;
            let lease = self.ledger.lend(item, 100);
            assert_eq!(self.memory.load(&lease, &incarnation).await.expect("answers"), LoadReply::Loaded);
        }
    }
}

#[tokio::test]
async fn an_abandoned_hold_is_given_back_when_it_is_due_and_not_before() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    let reaper = world.inventory.reaper();
    assert_eq!(reaper.reap_once().await, Ok(0));
    assert_eq!(world.numbers(&item).await, (1, 70, 30, 0));
    world.pass_deadlines();
    assert_eq!(reaper.reap_once().await, Ok(1));
    assert_eq!(world.numbers(&item).await, (1, 100, 0, 0));
    // The tombstone stands: the same reserve, late, is refused.
    let mut request = world.request(&item, 30);
    request.id = id;
    let answer = world.inventory.reservations().reserve(&world.call(), &request).await;
    assert_eq!(answer.map_err(|failure| failure.reason), Err(Reason::ReservationReleased));
    assert_eq!((stamp.number, world.ledger.rows().1), (1, 1));
}

#[tokio::test]
async fn an_overdue_hold_of_an_order_is_sold() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    world.pass_deadlines();
    assert_eq!(world.inventory.reaper().reap_once().await, Ok(1));
    assert_eq!(world.numbers(&item).await, (1, 70, 0, 30));
    assert_eq!(world.metrics.processed_total(), 1);
}

#[tokio::test]
async fn a_surplus_hold_of_an_order_is_given_back() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    world.memory.wipe();
    let mut request = world.request(&item, 30);
    request.id = id;
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("held");
    assert_eq!(world.numbers(&item).await, (2, 40, 30, 30));
    world.pass_deadlines();
    assert_eq!(world.inventory.reaper().reap_once().await, Ok(1));
    assert_eq!(world.numbers(&item).await, (2, 70, 0, 30), "sold once");
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("no marker was left");
}

#[tokio::test]
async fn without_a_verdict_nothing_is_given_back_and_the_reaper_recovers() {
    let world = World::new().await;
    let item = item("widget");
    world.hold(&item, 30).await;
    world.pass_deadlines();
    world.ledger.set_down(true);
    let asked = world.ledger.asked();
    let reaper = world.run(|stop| world.inventory.reaper().run(stop));
    world.until("the ledger was asked twice", async || world.ledger.asked() >= asked + 2).await;
    assert_eq!(world.numbers(&item).await, (1, 70, 30, 0));
    world.ledger.set_down(false);
    world.until("it is given back", async || world.numbers(&item).await == (1, 100, 0, 0)).await;
    reaper.end(&world).await;
}

#[tokio::test]
async fn more_than_a_batch_of_overdue_holds_is_settled_in_one_round() {
    let world = World::with_stock(10_000).await;
    let item = item("widget");
    let holds = DUE_BATCH_MAX * 2 + 10;
    for _ in 0..holds {
        world.hold(&item, 1).await;
    }
    world.pass_deadlines();
    let asked = world.ledger.asked();
    let reaper = world.run(|stop| world.inventory.reaper().run(stop));
    let mut questions = 0;
    let done = async || {
        questions = world.ledger.asked() - asked;
        world.numbers(&item).await == (1, 10_000, 0, 0)
    };
    world.until("all are given back", done).await;
    // One for each batch, and perhaps the sweep's: between two rounds there would be another sweep.
    assert!(questions <= 4, "{questions}");
    reaper.end(&world).await;
}

#[tokio::test]
async fn an_item_of_an_older_epoch_than_the_ledger_s_is_opened_again() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    world.ledger.lend(&item, 100);
    world.inventory.reaper().sweep_once().await.expect("swept");
    assert_eq!(world.numbers(&item).await, (3, 70, 0, 30));
}

#[tokio::test]
async fn an_item_of_a_newer_epoch_than_a_restored_ledger_s_is_opened_above_both() {
    let world = World::new().await;
    let item = item("widget");
    let mut request = world.request(&item, 1);
    request.least_epoch = Epoch(5);
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("held");
    world.ledger.restore(&item, Epoch(2));
    world.inventory.reaper().sweep_once().await.expect("swept");
    assert_eq!(world.numbers(&item).await, (6, 100, 0, 0));
}

#[tokio::test]
async fn a_sweep_leaves_items_of_the_ledger_s_epoch_alone() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.hold(&item(name), 1).await;
    }
    let opens = world.ledger.opens();
    world.inventory.reaper().sweep_once().await.expect("swept");
    assert_eq!(world.ledger.opens(), opens);
    assert_eq!(world.numbers(&item("b")).await, (1, 99, 1, 0));
}

#[tokio::test]
async fn a_sweep_turns_every_page() {
    let world = World::new().await;
    let count = OPEN_ITEMS_BATCH_MAX + 3;
    let items: Vec<_> = (0..count).map(|n| item(&format!("item {n:04}"))).collect();
    world.open_all(&items).await;
    let last = items.last().expect("many");
    world.ledger.lend(last, 100);
    world.inventory.reaper().sweep_once().await.expect("swept");
    assert_eq!(world.numbers(last).await.0, 3);
    assert_eq!(world.ledger.opens(), world.store.loads().len() + waits(&world));
}

#[tokio::test]
async fn an_item_that_does_not_open_does_not_keep_the_others_from_it() {
    let world = World::new().await;
    let count = OPEN_ITEMS_BATCH_MAX + 3;
    let items: Vec<_> = (0..count).map(|n| item(&format!("item {n:04}"))).collect();
    world.open_all(&items).await;
    let (first, last) = (&items[0], &items[count - 1]);
    world.ledger.restore(first, Epoch::NONE);
    world.ledger.restore(last, Epoch::NONE);
    world.store.fault_loads(&[LoadFault::Lost; OPEN_ATTEMPTS_MAX as usize]);
    let swept = world.inventory.reaper().sweep_once().await;
    assert_eq!(swept.map_err(|failure| failure.reason), Err(Reason::Unavailable));
    assert_eq!((world.numbers(first).await.0, world.numbers(last).await.0), (1, 2));
}

fn waits(world: &World) -> usize {
    let waited = world.metrics.leases_total(inventory::metrics::LeaseOutcome::Waited);
    usize::try_from(waited).expect("few")
}

#[tokio::test]
async fn a_hold_that_appears_after_its_release_is_judged_when_it_is_due() {
    let world = World::new().await;
    let item = item("widget");
    let id: ReservationId = world.id();
    // The release found nothing to mark: the item was not open.
    world.inventory.reservations().release(&world.call(), id, Some(&item)).await.expect("released");
    let mut request = world.request(&item, 30);
    request.id = id;
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("held");
    world.pass_deadlines();
    world.inventory.reaper().reap_once().await.expect("reaped");
    assert_eq!(world.numbers(&item).await, (1, 100, 0, 0));
    let stamp = Stamp { item, epoch: Epoch(1), number: 1 };
    assert_eq!(world.memory.hold(&stamp.item, id).await.expect("answers"), None);
}

#[tokio::test]
async fn an_item_whose_hold_does_not_fit_is_lent_anew() {
    let world = World::new().await;
    let item = item("widget");
    let ((order, stamp), _) = (world.hold(&item, 30).await, world.hold(&item, 20).await);
    world.commit(order, &stamp, 30);
    world.memory.edit(&item, |state| {
        state.numbers.held -= 45;
        state.numbers.available += 45;
    });
    assert_eq!(world.numbers(&item).await, (1, 95, 5, 0), "more free than there is, and still open");
    world.pass_deadlines();
    assert_eq!(world.inventory.reaper().reap_once().await, Ok(2));
    assert_eq!(world.numbers(&item).await, (2, 70, 0, 30), "the lease has counted the order, and no hold");
}
