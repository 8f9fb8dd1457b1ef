//! Ids that are an order already, or never can be: what a client is told who brings one again.

use contracts::{
    Reason,
    values::{ReservationId, Stamp},
};
use inventory::{
    reservations::Reserved,
    stock::{HINT_GRACE_SECONDS, ReserveRequest, StockStore},
};

use crate::world::{World, item, quantity};

impl World {
    /// As a client who brings the id asks.
    pub async fn reserve_again(&self, request: &ReserveRequest) -> Result<Reserved, Reason> {
        let answer = self.inventory.reservations().reserve_unjudged(&self.call(), request).await;
        answer.map_err(|failure| failure.reason)
    }

    /// As the order service asks.
    pub async fn reserve_to_order(&self, request: &ReserveRequest) -> Result<Reserved, Reason> {
        let answer = self.inventory.reservations().reserve(&self.call(), request).await;
        answer.map_err(|failure| failure.reason)
    }

    async fn held(&self, units: i64) -> (ReserveRequest, Stamp) {
        let request = self.request(&item("widget"), units);
        match self.reserve_again(&request).await {
            Ok(Reserved::Held { stamp, .. }) => (request, stamp),
            other => panic!("not held: {other:?}"),
        }
    }

    async fn delete(&self, id: ReservationId) -> Result<(), Reason> {
        let answer = self.inventory.reservations().release(&self.call(), id, None).await;
        answer.map_err(|failure| failure.reason)
    }
}

#[tokio::test]
async fn an_id_that_is_an_order_is_not_held_again_whatever_the_store_knows() {
    let world = World::new().await;
    let item = item("widget");
    let (request, stamp) = world.held(60).await;
    world.commit(request.id, &stamp, 60);
    assert_eq!(world.reserve_again(&request).await, Err(Reason::ReservationConfirmed), "its event is under way");
    assert_eq!(world.numbers(&item).await, (1, 40, 60, 0), "its hold stays");
    world.memory.confirm(request.id, &stamp).await.expect("answers");
    assert_eq!(world.reserve_again(&request).await, Err(Reason::ReservationConfirmed), "the store knows");
    world.pass_deadlines();
    assert_eq!(world.reserve_again(&request).await, Err(Reason::ReservationConfirmed), "too little is left for it");
    world.memory.wipe();
    let small = ReserveRequest { quantity: quantity(1), ..request.clone() };
    for again in [&request, &small] {
        assert_eq!(world.reserve_again(again).await, Err(Reason::ReservationConfirmed), "the store has forgotten");
    }
    assert_eq!(world.numbers(&item).await, (2, 40, 0, 60), "the hold made for it is given back at once");
}

#[tokio::test]
async fn an_id_that_was_released_is_not_held_again_after_the_store_has_forgotten_it() {
    let world = World::new().await;
    let item = item("widget");
    let (request, _) = world.held(60).await;
    assert_eq!(world.delete(request.id).await, Ok(()));
    assert_eq!(world.reserve_again(&request).await, Err(Reason::ReservationReleased));
    world.memory.wipe();
    assert_eq!(world.reserve_again(&request).await, Err(Reason::ReservationReleased));
    assert_eq!(world.numbers(&item).await, (2, 100, 0, 0));
    world.memory.wipe();
    let large = ReserveRequest { quantity: quantity(101), ..request };
    assert_eq!(
        world.reserve_again(&large).await,
        Err(Reason::ReservationReleased),
        "rather than that too few are free"
    );
}

#[tokio::test]
async fn without_the_ledger_a_brought_id_is_not_answered_and_its_hold_waits() {
    let world = World::new().await;
    let item = item("widget");
    world.held(1).await;
    let request = world.request(&item, 5);
    world.ledger.set_down(true);
    assert_eq!(world.reserve_again(&request).await, Err(Reason::Unavailable));
    assert_eq!(world.numbers(&item).await, (1, 94, 6, 0));
    world.ledger.set_down(false);
    assert!(matches!(world.reserve_again(&request).await, Ok(Reserved::Held { remaining: 94, .. })), "one hold");
}

#[tokio::test]
async fn a_hold_past_its_deadline_is_over_before_the_reaper_comes() {
    let world = World::new().await;
    let item = item("widget");
    for other in [0, 1] {
        let ((first, _), (second, _)) = (world.held(10).await, world.held(20).await);
        world.pass_deadlines();
        let other =
            |request: ReserveRequest| ReserveRequest { quantity: quantity(request.quantity.get() + other), ..request };
        assert_eq!(world.reserve_again(&other(first.clone())).await, Err(Reason::ReservationReleased));
        assert_eq!(world.reserve_to_order(&other(second.clone())).await, Err(Reason::ReservationReleased));
        assert_eq!(world.numbers(&item).await, (1, 100, 0, 0), "and its units are back");
        assert_eq!(world.inventory.reaper().reap_once().await, Ok(0));
        for id in [first.id, second.id] {
            assert_eq!(world.delete(id).await, Ok(()));
        }
    }
}

#[tokio::test]
async fn an_overdue_hold_that_is_an_order_stays() {
    let world = World::new().await;
    let item = item("widget");
    let (request, stamp) = world.held(10).await;
    world.commit(request.id, &stamp, 10);
    world.pass_deadlines();
    assert_eq!(world.reserve_again(&request).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.reserve_to_order(&request).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.delete(request.id).await, Err(Reason::ReservationConfirmed));
    assert_eq!(world.numbers(&item).await, (1, 90, 10, 0));
    assert_eq!(world.inventory.reaper().reap_once().await, Ok(1));
    assert_eq!(world.numbers(&item).await, (1, 90, 0, 10));
}

#[tokio::test]
async fn a_hold_that_ended_is_known_as_released_at_every_moment_after() {
    let world = World::new().await;
    let (request, _) = world.held(10).await;
    world.pass_deadlines();
    assert_eq!(world.delete(request.id).await, Ok(()), "before the reaper comes");
    assert_eq!(world.delete(request.id).await, Ok(()));

    let (request, _) = world.held(10).await;
    world.pass_deadlines();
    world.inventory.reaper().reap_once().await.expect("reaped");
    assert_eq!(world.delete(request.id).await, Ok(()), "after it came");
    for _ in 0..=HINT_GRACE_SECONDS / 1_000 {
        world.pass_deadlines();
    }
    assert_eq!(world.memory.find(request.id).await.expect("answers"), None);
    assert_eq!(world.delete(request.id).await, Ok(()), "the ledger knows it alone");
    world.memory.wipe();
    assert_eq!(world.delete(request.id).await, Ok(()));
}
