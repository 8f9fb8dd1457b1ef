use contracts::{
    Failure, Reason,
    values::{Epoch, Item, ReservationId, Stamp},
};
use inventory::stock::{StockReply, StockStore};
use uuid::Uuid;

use crate::world::{World, item};

impl World {
    async fn release(&self, id: ReservationId, item: Option<&Item>) -> Result<(), Reason> {
        let answer: Result<(), Failure> = self.inventory.reservations().release(&self.call(), id, item).await;
        answer.map_err(|failure| failure.reason)
    }
}

/// An id as the order service derives them.
fn derived() -> ReservationId {
    ReservationId(Uuid::new_v8([5; 16]))
}

#[tokio::test]
async fn a_hold_is_given_back_and_a_repeat_is_answered_alike() {
    let world = World::new().await;
    let item = item("widget");
    let (id, _) = world.hold(&item, 30).await;
    assert_eq!(world.release(id, None).await, Ok(()));
    assert_eq!(world.numbers(&item).await, (1, 100, 0, 0));
    assert_eq!(world.release(id, None).await, Ok(()));
    assert_eq!(world.release(id, Some(&item)).await, Ok(()));
    assert_eq!(world.numbers(&item).await, (1, 100, 0, 0));
}

#[tokio::test]
async fn the_verdict_comes_before_the_units() {
    let world = World::new().await;
    let item = item("widget");
    let (id, _) = world.hold(&item, 30).await;
    world.ledger.set_down(true);
    assert_eq!(world.release(id, None).await, Err(Reason::Unavailable));
    assert_eq!(world.numbers(&item).await, (1, 70, 30, 0), "nothing is given back without a verdict");
}

#[tokio::test]
async fn an_order_is_not_released() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    assert_eq!(world.release(id, None).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.release(id, Some(&item)).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.numbers(&item).await, (1, 70, 30, 0));
    world.memory.confirm(id, &stamp).await.expect("answers");
    assert_eq!(world.release(id, None).await, Err(Reason::ReservationConfirmed), "with the hold gone, too");
    assert_eq!(world.numbers(&item).await, (1, 70, 0, 30));
}

#[tokio::test]
async fn an_order_whose_hint_is_gone_is_not_released() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    world.memory.wipe();
    assert_eq!(world.release(id, None).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.release(id, Some(&item)).await, Err(Reason::ReservationConfirmed));
}

#[tokio::test]
async fn a_surplus_hold_of_an_order_is_given_back_although_the_order_stands() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    world.memory.wipe();
    // The reserve again, as a retry makes it: the new lease has counted the order, and now there is a hold beside it.
    let mut request = world.request(&item, 30);
    request.id = id;
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("held");
    assert_eq!(world.numbers(&item).await, (2, 40, 30, 30));
    assert_eq!(world.release(id, Some(&item)).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.numbers(&item).await, (2, 70, 0, 30));
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("no marker was left");
}

#[tokio::test]
async fn an_unknown_id_without_an_item_is_not_found_and_writes_nothing() {
    let world = World::new().await;
    assert_eq!(world.release(world.id(), None).await, Err(Reason::ReservationNotFound));
    assert_eq!(world.ledger.rows(), (0, 0, 0));
}

#[tokio::test]
async fn an_aborted_id_that_the_store_has_forgotten_is_released() {
    let world = World::new().await;
    let (id, _) = world.hold(&item("widget"), 30).await;
    assert_eq!(world.release(id, None).await, Ok(()));
    world.memory.wipe();
    assert_eq!(world.release(id, None).await, Ok(()));
}

#[tokio::test]
async fn a_release_with_an_item_that_overtakes_its_reserve_makes_that_reserve_fail() {
    let world = World::new().await;
    let item = item("widget");
    world.hold(&item, 1).await;
    let mut request = world.request(&item, 30);
    request.id = derived();
    request.hint = false;
    assert_eq!(world.release(request.id, Some(&item)).await, Ok(()));
    let answer = world.inventory.reservations().reserve(&world.call(), &request).await;
    assert_eq!(answer.map_err(|failure| failure.reason), Err(Reason::ReservationReleased));
    assert_eq!(world.numbers(&item).await, (1, 99, 1, 0));
}

#[tokio::test]
async fn a_hold_of_the_order_service_is_released_by_id_and_item() {
    let world = World::new().await;
    let item = item("widget");
    let mut request = world.request(&item, 30);
    request.id = derived();
    request.hint = false;
    world.inventory.reservations().reserve(&world.call(), &request).await.expect("held");
    assert_eq!(world.release(request.id, None).await, Err(Reason::ReservationNotFound), "no hint");
    assert_eq!(world.release(request.id, Some(&item)).await, Ok(()));
    assert_eq!(world.numbers(&item).await, (1, 100, 0, 0));
}

#[tokio::test]
async fn a_release_on_an_item_that_is_not_open_succeeds_and_opens_nothing() {
    let world = World::new().await;
    let item = item("widget");
    let (id, _) = world.hold(&item, 30).await;
    world.memory.renew_incarnation();
    assert_eq!(world.release(id, Some(&item)).await, Ok(()));
    assert_eq!(world.memory.available(&item).await.expect("answers"), StockReply::NotOpen);
    assert_eq!(world.ledger.rows(), (1, 1, 0), "a tombstone is there");
    let stamp = Stamp { item: item.clone(), epoch: Epoch(1), number: 1 };
    let verdict = inventory::ledger::StockLedger::resolve(
        &*world.ledger,
        &world.call(),
        &[inventory::ledger::ResolveQuery { id, stamp: Some(stamp) }],
    )
    .await;
    assert_eq!(verdict, Ok(vec![inventory::ledger::Verdict::Aborted]));
}
