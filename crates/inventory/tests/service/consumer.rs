use std::{sync::atomic::Ordering, time::Duration};

use broker::Broker;
use contracts::{
    event::ORDER_CREATED,
    values::{Epoch, ReservationId, Stamp},
};
use inventory::{
    consumer::OrderConsumer,
    metrics::EventOutcome,
    opener::Opener,
    stock::{StockReply, StockStore},
};

use crate::{
    flaky_broker::FlakyBroker,
    world::{Running, World, item},
};

impl World {
    fn consume(&self) -> Running {
        self.run(|stop| self.inventory.consumer().run(stop))
    }

    /// Until the queue is empty; answers the number of dead letters.
    async fn drained(&self) -> u64 {
        self.until("the queue is empty", async || self.depths().await.0 == 0).await;
        self.depths().await.1
    }

    fn events(&self, outcome: EventOutcome) -> u64 {
        self.metrics.events_total(outcome)
    }

    async fn order(&self, units: i64) -> (ReservationId, Stamp) {
        let (id, stamp) = self.hold(&item("widget"), units).await;
        self.commit(id, &stamp, units);
        (id, stamp)
    }
}

#[tokio::test]
async fn an_event_sells_its_hold_once_however_often_it_is_delivered() {
    let world = World::new().await;
    let (id, stamp) = world.order(3).await;
    for _ in 0..3 {
        world.publish_order(id, &stamp, 3).await;
    }
    let consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (1, 97, 0, 3));
    assert_eq!((world.events(EventOutcome::Processed), world.events(EventOutcome::Duplicate)), (1, 2));
    assert_eq!(world.metrics.processed_total(), 1);
    consumer.end(&world).await;
}

#[tokio::test]
async fn an_event_of_an_unknown_order_changes_nothing() {
    let world = World::new().await;
    let (_, stamp) = world.hold(&item("widget"), 3).await;
    let unknown = Stamp { number: 77, ..stamp.clone() };
    world.publish_order(world.id(), &unknown, 5).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (1, 97, 3, 0));
}

#[tokio::test]
async fn a_malformed_event_is_a_dead_letter_and_holds_up_nobody() {
    let world = World::new().await;
    let (id, stamp) = world.order(3).await;
    let negative = br#"{"id":"6ba7b810-9dad-41d1-80b4-00c04fd430c8","item":"widget","quantity":-5,"epoch":1,"number":1,"created_at":"2026-11-22T10:00:00Z"}"#;
    for body in [&b"{"[..], b"", b"[1]", b"\xff\xfe", negative] {
        world.publish("no order", body.to_vec()).await;
    }
    world.publish_order(id, &stamp, 3).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 5);
    assert_eq!(world.numbers(&stamp.item).await, (1, 97, 0, 3));
    assert_eq!(world.events(EventOutcome::Malformed), 5);
}

#[tokio::test]
async fn an_event_of_an_older_lease_is_superseded() {
    let world = World::new().await;
    let (id, stamp) = world.order(3).await;
    world.memory.wipe();
    world.hold(&stamp.item, 1).await;
    world.publish_order(id, &stamp, 3).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (2, 96, 1, 3), "the lease has counted it");
    assert_eq!(world.events(EventOutcome::Superseded), 1);
}

#[tokio::test]
async fn an_event_whose_hold_was_lost_opens_the_item_and_is_counted_by_the_lease() {
    let world = World::new().await;
    let (id, stamp) = world.order(3).await;
    world.memory.wipe();
    world.publish_order(id, &stamp, 3).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (2, 97, 0, 3));
    assert_eq!(world.events(EventOutcome::Superseded), 1);
}

#[tokio::test]
async fn an_event_that_a_later_lease_has_counted_opens_nothing() {
    let world = World::new().await;
    let (id, stamp) = world.order(3).await;
    world.memory.wipe();
    world.ledger.lend(&stamp.item, 100);
    let opens = world.ledger.opens();
    world.publish_order(id, &stamp, 3).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.events(EventOutcome::Superseded), 1);
    assert_eq!(world.ledger.opens(), opens);
    assert_eq!(world.memory.available(&stamp.item).await.expect("answers"), StockReply::NotOpen);
}

#[tokio::test]
async fn an_event_of_a_lease_that_was_never_granted_is_a_dead_letter() {
    let world = World::new().await;
    let (id, stamp) = world.hold(&item("widget"), 3).await;
    let forged = Stamp { epoch: Epoch(9), ..stamp.clone() };
    world.publish_order(id, &forged, 3).await;
    let unseen = Stamp { item: item("never seen"), ..stamp.clone() };
    world.publish_order(world.id(), &unseen, 3).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 2);
    assert_eq!(world.numbers(&stamp.item).await, (1, 97, 3, 0));
    assert_eq!(world.counts(&unseen.item).await, None);
    assert_eq!(world.events(EventOutcome::UnknownLease), 2);
}

#[tokio::test]
async fn while_the_store_is_down_events_stay_in_hand_and_are_given_back_at_the_end() {
    let world = World::new().await;
    let orders = [world.order(1).await, world.order(2).await, world.order(3).await];
    world.store.set_down(true);
    for (id, stamp) in &orders {
        world.publish_order(*id, stamp, 1).await;
    }
    let consumer = world.consume();
    // As long as several tries take.
    world.env.sleep(Duration::from_secs(1)).await;
    assert_eq!(world.depths().await, (3, 0));
    consumer.end(&world).await;
    // Had they gone back and forth meanwhile, they would have been delivered more often.
    let mut reader = world.broker.consume(ORDER_CREATED, 10).await.expect("consumes");
    let deliveries = reader.next(10).await.expect("reads");
    let earlier: Vec<u32> = deliveries.iter().map(|delivery| delivery.earlier_deliveries).collect();
    assert_eq!(earlier, [1, 1, 1]);
    drop(reader);

    world.store.set_down(false);
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&item("widget")).await, (1, 94, 0, 6));
}

#[tokio::test]
async fn events_in_hand_are_handled_once_the_store_is_back() {
    let world = World::new().await;
    let (id, stamp) = world.order(3).await;
    world.store.set_down(true);
    world.publish_order(id, &stamp, 3).await;
    let consumer = world.consume();
    world.env.sleep(Duration::from_millis(200)).await;
    world.store.set_down(false);
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (1, 97, 0, 3));
    consumer.end(&world).await;
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_effect_is_had_once() {
    let world = World::new().await;
    let broker = FlakyBroker::new(world.broker.clone());
    let (id, stamp) = world.order(3).await;
    world.publish_order(id, &stamp, 3).await;
    // It does not connect twice, then loses the connection under the settlement.
    broker.fail_consumes.store(2, Ordering::SeqCst);
    broker.fail_settles.store(1, Ordering::SeqCst);
    let opener = Opener::new(world.backend.clone());
    let consumer = OrderConsumer::new(world.backend.clone(), opener, broker.clone());
    let consumer = world.run(|stop| consumer.run(stop));
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (1, 97, 0, 3));
    assert_eq!((world.events(EventOutcome::Processed), world.events(EventOutcome::Duplicate)), (1, 1));
    consumer.end(&world).await;
}

#[tokio::test]
async fn while_the_ledger_is_down_an_event_that_needs_it_waits_and_later_ones_go_on() {
    let world = World::new().await;
    let (id, stamp) = world.hold(&item("gadget"), 2).await;
    world.commit(id, &stamp, 2);
    world.memory.wipe();
    let (other, other_stamp) = world.order(3).await;
    world.ledger.set_down(true);
    world.publish_order(id, &stamp, 2).await;
    let asked = world.ledger.asked();
    let _consumer = world.consume();
    world.until("the first was tried", async || world.ledger.asked() > asked).await;
    world.publish_order(other, &other_stamp, 3).await;
    world.until("the other is sold", async || world.numbers(&other_stamp.item).await == (1, 97, 0, 3)).await;
    world.until("and settled", async || world.depths().await == (1, 0)).await;
    world.ledger.set_down(false);
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&stamp.item).await, (2, 98, 0, 2));
}

#[tokio::test]
async fn many_events_are_all_handled() {
    let world = World::with_stock(1_000).await;
    for _ in 0..350 {
        let (id, stamp) = world.order(1).await;
        world.publish_order(id, &stamp, 1).await;
    }
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&item("widget")).await, (1, 650, 0, 350));
    assert_eq!(world.metrics.processed_total(), 350);
}

#[tokio::test]
async fn an_event_whose_hold_does_not_fit_is_counted_by_the_next_lease() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 30).await;
    world.commit(id, &stamp, 30);
    world.memory.edit(&item, |state| {
        state.numbers.held -= 25;
        state.numbers.available += 25;
    });
    world.publish_order(id, &stamp, 30).await;
    let _consumer = world.consume();
    assert_eq!(world.drained().await, 0);
    assert_eq!(world.numbers(&item).await, (2, 70, 0, 30));
}
