//! Stock is lent and counted.

use std::time::Duration;

use contracts::values::{Epoch, Item};

use super::{Bench, item, units};
use crate::ledger::{
    CommitOutcome, ItemStock, LEASE_GRACE_MS, LedgerError, NewOrder, OpenOutcome, QUERY_BATCH_MAX, Restock,
    RestockOutcome,
};

async fn open(bench: &Bench, item: &Item, dead: Epoch) -> OpenOutcome {
    bench.ledger.open_stock(item, 10, dead).await.expect("the ledger answers")
}

fn epoch(outcome: &OpenOutcome) -> Option<i64> {
    match outcome {
        OpenOutcome::Lease(lease) => Some(lease.epoch.0),
        OpenOutcome::Wait => None,
    }
}

/// By at least one, each with the whole stock.
pub async fn epochs_grow_with_every_lease(bench: &Bench) {
    let mut last = Epoch::NONE;
    for _ in 0..5 {
        let lease = bench.lease(&item("widget"), 10).await;
        assert!(lease.epoch > last, "{lease:?}");
        assert_eq!((lease.received, lease.sold, lease.item), (10, 0, item("widget")));
        last = lease.epoch;
    }
    assert_eq!(bench.stock(&item("widget")).await, ItemStock { epoch: last, received: 10, sold: 0 });
}

/// A ledger restored to an older state goes above what the store has; so does the first lease.
pub async fn an_epoch_is_above_the_one_named_dead(bench: &Bench) {
    assert_eq!(epoch(&open(bench, &item("widget"), Epoch(41)).await), Some(42));
    assert_eq!(epoch(&open(bench, &item("widget"), Epoch(1000)).await), Some(1001));
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS));
    assert_eq!(epoch(&open(bench, &item("widget"), Epoch(7)).await), Some(1002));
}

/// Else many instances would burn each other's leases.
pub async fn a_fresh_lease_is_left_alone_unless_it_is_named_dead(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    assert_eq!(open(bench, &item("widget"), Epoch::NONE).await, OpenOutcome::Wait);
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS - 1));
    assert_eq!(open(bench, &item("widget"), Epoch::NONE).await, OpenOutcome::Wait);
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(epoch(&open(bench, &item("widget"), Epoch::NONE).await), Some(lease.epoch.0 + 1));
    // The newest is named dead: there is nothing to leave alone.
    assert_eq!(epoch(&open(bench, &item("widget"), lease.epoch.next()).await), Some(lease.epoch.0 + 2));
}

/// The lease that is left alone goes on to sell.
pub async fn a_wait_changes_nothing(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let before = bench.stock(&item("widget")).await;
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS / 2));
    assert_eq!(open(bench, &item("widget"), Epoch::NONE).await, OpenOutcome::Wait);
    assert_eq!(bench.stock(&item("widget")).await, before);
    bench.sell(&bench.order(&lease)).await;
    // Waiting does not make it wait longer.
    bench.clock.advance(Duration::from_millis(LEASE_GRACE_MS / 2));
    assert_ne!(open(bench, &item("widget"), Epoch::NONE).await, OpenOutcome::Wait);
}

/// A lease from the future is an old one.
pub async fn a_clock_that_jumps_back_does_not_stop_leases(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    bench.clock.jump(-3_600_000_000);
    assert_eq!(epoch(&open(bench, &item("widget"), Epoch::NONE).await), Some(lease.epoch.0 + 1));
    assert_eq!(open(bench, &item("widget"), Epoch::NONE).await, OpenOutcome::Wait);
}

/// One item's lease fences and delays no other's.
pub async fn items_have_leases_of_their_own(bench: &Bench) {
    let widget = bench.lease(&item("widget"), 10).await;
    assert_eq!(epoch(&open(bench, &item("gadget"), Epoch(5)).await), Some(6));
    bench.lease(&item("gadget"), 10).await;
    bench.sell(&bench.order(&widget)).await;
    assert_eq!(bench.stock(&item("gadget")).await.sold, 0);
}

/// It never follows later changes of the setting.
pub async fn initial_counts_at_the_first_lease_only(bench: &Bench) {
    assert_eq!(bench.lease(&item("widget"), 10).await.received, 10);
    assert_eq!(bench.lease(&item("widget"), 500).await.received, 10);
    assert_eq!(bench.lease(&item("none"), 0).await.received, 0);
}

/// I7: an order is in sold exactly once, before and after its event is settled.
pub async fn a_lease_has_counted_every_order_settled_or_not(bench: &Bench) {
    let mut lease = bench.lease(&item("widget"), 100).await;
    let mut sold = 0;
    for quantity in 1..=6 {
        let order = NewOrder { quantity: units(quantity), ..bench.order(&lease) };
        bench.sell(&order).await;
        sold += quantity;
        if quantity % 2 == 0 {
            bench.settle_all().await;
        }
        assert_eq!(bench.stock(&item("widget")).await.sold, sold);
        lease = bench.lease(&item("widget"), 100).await;
        assert_eq!((lease.received, lease.sold), (100, sold));
    }
}

/// Not a wrap to a small number, which would let old holds be sold.
pub async fn an_epoch_at_the_end_of_numbers_is_an_error(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    assert!(bench.ledger.open_stock(&item("widget"), 10, Epoch(i64::MAX)).await.is_err());
    assert!(bench.ledger.open_stock(&item("other"), 10, Epoch(i64::MAX)).await.is_err());
    assert_eq!(bench.stock(&item("widget")).await.epoch, lease.epoch);
    bench.sell(&bench.order(&lease)).await;
}

/// I12; an unknown item has what its first lease would give.
pub async fn stock_is_answered_in_order_and_writes_nothing(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 7).await;
    bench.sell(&bench.order(&lease)).await;
    let items = [item("unknown"), item("widget"), item("unknown")];
    let unknown = ItemStock { epoch: Epoch::NONE, received: 33, sold: 0 };
    let known = ItemStock { epoch: lease.epoch, received: 7, sold: 1 };
    assert_eq!(bench.ledger.stock(&items, 33).await.expect("answers"), [unknown, known, unknown]);
    assert_eq!(bench.ledger.stock(&[], 33).await.expect("answers"), []);
    // Had it been written, its initial would be 33 and its next epoch 2.
    let first = bench.lease(&item("unknown"), 5).await;
    assert_eq!((first.epoch, first.received), (Epoch(1), 5));
}

/// As many as are allowed, and one more; leases with restocks among them.
pub async fn stock_of_many_items_has_a_bound(bench: &Bench) {
    let mut items: Vec<Item> = (0..QUERY_BATCH_MAX).map(|n| item(&format!("item {n}"))).collect();
    let restock = Restock { id: bench.env().uuid(), item: items[499].clone(), quantity: units(4) };
    let journalled = bench.ledger.record_restock(&restock, 1).await.expect("answers");
    assert_eq!(journalled, RestockOutcome::Journalled(Epoch::NONE));
    let stock = bench.ledger.stock(&items, 1).await.expect("answers");
    assert_eq!((stock.len(), stock[0].received, stock[499].received), (500, 1, 5));
    items.push(item("one more"));
    assert!(bench.ledger.stock(&items, 1).await.is_err());
    let lease = bench.lease(&items[499], 77).await;
    assert_eq!(lease.received, 5);
    assert!(matches!(bench.commit_one(&bench.order(&lease)).await, CommitOutcome::Created(_)));
}

/// Whatever made it so: the ledger shows no stock, and the old lease is over.
pub async fn an_item_sold_beyond_its_stock_is_lent_to_nobody(bench: &Bench) {
    let widget = item("widget");
    let lease = bench.lease(&widget, 10).await;
    bench.sell(&bench.order(&lease)).await;
    let Some(done) = bench.sql("UPDATE stock_leases SET initial = 0").await else { return };
    done.expect("changed");
    let refused = bench.ledger.open_stock(&widget, 10, lease.epoch).await;
    assert!(matches!(refused, Err(LedgerError::Corrupt(_))), "{refused:?}");
    let stock = bench.stock(&widget).await;
    assert_eq!(stock.free(), 0, "{stock:?}");
    assert!(stock.epoch > lease.epoch, "what was held under the old lease is over");
}
