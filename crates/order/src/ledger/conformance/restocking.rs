//! Units come in.

use contracts::values::Epoch;

use super::{Bench, item, units};
use crate::ledger::{ItemStock, Restock, RestockOutcome};

fn restock(bench: &Bench, name: &str, quantity: i64) -> Restock {
    Restock { id: bench.env().uuid(), item: item(name), quantity: units(quantity) }
}

async fn record(bench: &Bench, restock: &Restock) -> RestockOutcome {
    bench.ledger.record_restock(restock, 10).await.expect("the ledger answers")
}

/// The store applies it at that epoch and no other.
pub async fn a_restock_is_journalled_at_the_item_s_epoch(bench: &Bench) {
    let lease = bench.lease(&item("widget"), 10).await;
    let journalled = record(bench, &restock(bench, "widget", 5)).await;
    assert_eq!(journalled, RestockOutcome::Journalled(lease.epoch));
    assert_eq!(bench.stock(&item("widget")).await.received, 15);
}

/// Also after the item was lent anew, by when it is counted.
pub async fn a_repeated_restock_counts_once_and_answers_its_first_epoch(bench: &Bench) {
    let first = bench.lease(&item("widget"), 10).await;
    let restock = restock(bench, "widget", 5);
    assert_eq!(record(bench, &restock).await, RestockOutcome::Journalled(first.epoch));
    assert_eq!(bench.lease(&item("widget"), 10).await.received, 15);
    assert_eq!(record(bench, &restock).await, RestockOutcome::Journalled(first.epoch));
    assert_eq!(bench.lease(&item("widget"), 10).await.received, 15);
}

/// Another quantity, or another item, known or not.
pub async fn a_restock_id_with_other_content_is_refused_and_writes_nothing(bench: &Bench) {
    bench.lease(&item("gadget"), 10).await;
    let restock = restock(bench, "widget", 5);
    assert_eq!(record(bench, &restock).await, RestockOutcome::Journalled(Epoch::NONE));
    for other in [
        Restock { quantity: units(6), ..restock.clone() },
        Restock { item: item("gadget"), ..restock.clone() },
        Restock { item: item("unknown"), ..restock.clone() },
    ] {
        assert_eq!(record(bench, &other).await, RestockOutcome::OtherContent, "{other:?}");
    }
    assert_eq!(bench.stock(&item("widget")).await.received, 15);
    assert_eq!(bench.stock(&item("gadget")).await.received, 10);
    // A lease row that the refusal left would have fixed the initial stock at 10.
    assert_eq!(bench.lease(&item("unknown"), 3).await.received, 3);
}

/// It makes the item known, with the initial stock of that moment; the first lease is granted at once.
pub async fn a_restock_comes_before_the_first_lease(bench: &Bench) {
    assert_eq!(record(bench, &restock(bench, "widget", 5)).await, RestockOutcome::Journalled(Epoch::NONE));
    let known = ItemStock { epoch: Epoch::NONE, received: 15, sold: 0 };
    assert_eq!(bench.ledger.stock(&[item("widget")], 77).await.expect("answers"), [known]);
    let outcome = bench.ledger.open_stock(&item("widget"), 77, Epoch::NONE).await.expect("answers");
    let crate::ledger::OpenOutcome::Lease(lease) = outcome else { panic!("no lease is under way") };
    assert_eq!((lease.epoch, lease.received, lease.sold), (Epoch(1), 15, 0));
}

/// I2: received = initial + the sum of restocks.
pub async fn restocks_are_counted_by_leases_and_reads(bench: &Bench) {
    let mut received = 10;
    for quantity in [1, 1_000_000, 7] {
        record(bench, &restock(bench, "widget", quantity)).await;
        record(bench, &restock(bench, "gadget", 1)).await;
        received += quantity;
        assert_eq!(bench.stock(&item("widget")).await.received, received);
        assert_eq!(bench.lease(&item("widget"), 10).await.received, received);
    }
}
