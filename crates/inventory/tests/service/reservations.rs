use contracts::{Reason, values::Ttl};
use inventory::{
    reservations::Reserved,
    stock::{ReleaseReply, ReserveRequest, StockStore},
};

use crate::world::{World, item, quantity};

#[tokio::test]
async fn reading_an_unseen_item_answers_the_default_stock_and_opens_nothing() {
    let world = World::with_stock(7).await;
    let item = item("widget");
    assert_eq!(world.inventory.reservations().available(&world.call(), &item).await, Ok(7));
    assert_eq!((world.ledger.rows(), world.ledger.opens()), ((0, 0, 0), 0));
    assert_eq!(world.counts(&item).await, None);
}

#[tokio::test]
async fn reading_an_open_item_answers_what_is_free() {
    let world = World::new().await;
    let item = item("widget");
    world.hold(&item, 30).await;
    let asked = world.ledger.asked();
    assert_eq!(world.inventory.reservations().available(&world.call(), &item).await, Ok(70));
    assert_eq!(world.ledger.asked(), asked, "the store alone is asked");
}

#[tokio::test]
async fn a_reserve_that_no_lease_could_serve_opens_nothing() {
    let world = World::with_stock(7).await;
    let item = item("widget");
    let request = world.request(&item, 8);
    let answer = world.inventory.reservations().reserve(&world.call(), &request).await;
    assert_eq!(answer, Ok(Reserved::Insufficient { remaining: 7 }));
    assert_eq!((world.ledger.rows(), world.ledger.opens()), ((0, 0, 0), 0));
    assert_eq!(world.counts(&item).await, None);
}

#[tokio::test]
async fn a_reserve_repeated_answers_the_same_hold() {
    let world = World::new().await;
    let item = item("widget");
    let request = world.request(&item, 8);
    let reservations = world.inventory.reservations();
    let mut stamps = Vec::new();
    for _ in 0..2 {
        let answer = reservations.reserve(&world.call(), &request).await;
        let Ok(Reserved::Held { stamp, remaining: 92, .. }) = answer else { panic!("{answer:?}") };
        stamps.push(stamp);
    }
    assert_eq!(stamps[0], stamps[1]);
    assert_eq!(world.numbers(&item).await, (1, 92, 8, 0));
}

#[tokio::test]
async fn an_id_in_use_for_another_quantity_or_released_is_refused() {
    let world = World::new().await;
    let item = item("widget");
    let reservations = world.inventory.reservations();
    let mut request = world.request(&item, 8);
    reservations.reserve(&world.call(), &request).await.expect("held");
    request.quantity = quantity(9);
    let refused = async |request: ReserveRequest| {
        let answer = reservations.reserve(&world.call(), &request).await;
        answer.expect_err("refused").reason
    };
    assert_eq!(refused(request.clone()).await, Reason::ReservationMismatch);
    request.quantity = quantity(8);
    reservations.release(&world.call(), request.id, None).await.expect("released");
    assert_eq!(refused(request).await, Reason::ReservationReleased);
}

#[tokio::test]
async fn insufficient_stock_of_an_open_item_says_what_is_free() {
    let world = World::with_stock(10).await;
    let item = item("widget");
    world.hold(&item, 9).await;
    let answer = world.inventory.reservations().reserve(&world.call(), &world.request(&item, 2)).await;
    assert_eq!(answer, Ok(Reserved::Insufficient { remaining: 1 }));
}

#[tokio::test]
async fn while_the_store_is_down_everything_is_unavailable() {
    let world = World::new().await;
    let item = item("widget");
    let request = world.request(&item, 1);
    world.store.set_down(true);
    let reservations = world.inventory.reservations();
    let call = world.call();
    let reserve = reservations.reserve(&call, &request).await.map(drop);
    let release = reservations.release(&call, request.id, None).await;
    let read = reservations.available(&call, &item).await.map(drop);
    for answer in [reserve, release, read] {
        assert_eq!(answer.map_err(|failure| failure.reason), Err(Reason::Unavailable));
    }
    world.store.set_down(false);
    assert_eq!(reservations.available(&call, &item).await, Ok(100));
}

#[tokio::test]
async fn a_hold_s_deadline_is_its_time_to_live_from_now() {
    let world = World::new().await;
    let mut request = world.request(&item("widget"), 1);
    request.ttl = Ttl::parse_seconds(60).expect("in range");
    let before = world.env.now();
    let answer = world.inventory.reservations().reserve(&world.call(), &request).await;
    let Ok(Reserved::Held { stamp, deadline, .. }) = answer else { panic!("{answer:?}") };
    assert!((before.plus(request.ttl.duration())..=world.env.now().plus(request.ttl.duration())).contains(&deadline));
    assert_eq!(world.memory.release(request.id, &stamp, false).await.expect("answers"), ReleaseReply::Released);
}
