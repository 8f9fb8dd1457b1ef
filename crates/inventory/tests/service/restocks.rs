use contracts::{Reason, values::Item};
use inventory::{
    ledger::Restock,
    stock::{LoadReply, RESTOCKS_PER_LEASE_MAX, StockStore},
};

use crate::world::{World, item, quantity};

impl World {
    fn restock(&self, item: &Item, units: i64) -> Restock {
        Restock { id: self.env.uuid(), item: item.clone(), quantity: quantity(units) }
    }

    async fn count_in(&self, restock: &Restock) -> Result<i64, Reason> {
        self.inventory.reservations().restock(&self.call(), restock).await.map_err(|failure| failure.reason)
    }
}

#[tokio::test]
async fn a_restock_of_an_item_never_lent_is_journalled_and_counted_by_its_first_lease() {
    let world = World::with_stock(10).await;
    let item = item("widget");
    let restock = world.restock(&item, 5);
    assert_eq!(world.count_in(&restock).await, Ok(15));
    assert_eq!(world.count_in(&restock).await, Ok(15), "once by id");
    assert_eq!((world.counts(&item).await, world.ledger.opens()), (None, 0));
    world.hold(&item, 15).await;
    assert_eq!(world.numbers(&item).await, (1, 0, 15, 0));
}

#[tokio::test]
async fn a_restock_of_an_open_item_is_added_once() {
    let world = World::with_stock(10).await;
    let item = item("widget");
    world.hold(&item, 8).await;
    let restock = world.restock(&item, 5);
    assert_eq!(world.count_in(&restock).await, Ok(7));
    assert_eq!(world.count_in(&restock).await, Ok(7));
    assert_eq!(world.numbers(&item).await, (1, 7, 8, 0));
}

#[tokio::test]
async fn a_restock_repeated_after_a_new_lease_is_not_added_again() {
    let world = World::with_stock(10).await;
    let item = item("widget");
    world.hold(&item, 8).await;
    let restock = world.restock(&item, 5);
    assert_eq!(world.count_in(&restock).await, Ok(7));
    world.memory.wipe();
    assert_eq!(world.count_in(&restock).await, Ok(15), "the lease has counted it");
    assert_eq!(world.counts(&item).await.expect("open").received, 15);
}

#[tokio::test]
async fn a_restock_while_the_newest_lease_is_on_its_way_to_the_store_is_not_lost() {
    let world = World::with_stock(10).await;
    let item = item("widget");
    let incarnation = world.memory.probe(&item).await.expect("answers").incarnation;
    // Summed before the restock, loaded after it.
    let lease = world.ledger.lend(&item, 10);
    let restock = world.restock(&item, 5);
    let arrival = async {
        world.until("it is journalled", async || world.ledger.rows().2 == 1).await;
        assert_eq!(world.memory.load(&lease, &incarnation).await.expect("answers"), LoadReply::Loaded);
    };
    let (answer, ()) = futures::join!(world.count_in(&restock), arrival);
    assert_eq!(answer, Ok(15));
    let counts = world.counts(&item).await.expect("open");
    assert_eq!((counts.received, counts.available), (15, 15));
}

#[tokio::test]
async fn a_restock_that_failed_half_way_is_finished_by_its_repeat() {
    let world = World::with_stock(10).await;
    let item = item("widget");
    world.hold(&item, 8).await;
    let restock = world.restock(&item, 5);
    world.store.set_down(true);
    assert_eq!(world.count_in(&restock).await, Err(Reason::Unavailable));
    assert_eq!(world.ledger.rows().2, 1, "journalled");
    world.store.set_down(false);
    assert_eq!(world.numbers(&item).await, (1, 2, 8, 0));
    assert_eq!(world.count_in(&restock).await, Ok(7));
}

#[tokio::test]
async fn a_restock_id_used_for_something_else_is_refused() {
    let world = World::new().await;
    let first = world.restock(&item("widget"), 5);
    world.count_in(&first).await.expect("counted");
    for other in [Restock { quantity: quantity(6), ..first.clone() }, Restock { item: item("w"), ..first.clone() }] {
        assert_eq!(world.count_in(&other).await, Err(Reason::RestockMismatch));
    }
}

#[tokio::test]
async fn past_the_most_restocks_of_a_lease_a_newer_lease_counts_them() {
    let world = World::with_stock(0).await;
    let item = item("widget");
    world.count_in(&world.restock(&item, 1)).await.expect("counted");
    world.hold(&item, 1).await;
    for _ in 0..RESTOCKS_PER_LEASE_MAX {
        world.count_in(&world.restock(&item, 1)).await.expect("counted");
    }
    assert_eq!(world.counts(&item).await.expect("open").epoch.0, 1);
    let most = i64::try_from(RESTOCKS_PER_LEASE_MAX).expect("small");
    assert_eq!(world.count_in(&world.restock(&item, 1)).await, Ok(most + 2));
    assert_eq!(world.numbers(&item).await, (2, most + 2, 0, 0));
}
