//! What the tables say of an item.

use contracts::values::Epoch;

use super::{Bench, item, units};
use crate::ledger::{Books, BooksOf, NewOrder, Restock};

async fn books(bench: &Bench, of: BooksOf) -> Option<Books> {
    bench.ledger.books(&of).await.expect("the ledger answers")
}

/// Whether their events have left the outbox or not; restocks, tombstones and other items too.
pub async fn the_books_of_an_item_add_up_at_every_moment(bench: &Bench) {
    let widget = item("widget");
    assert_eq!(books(bench, BooksOf::Item(widget.clone())).await, None);
    let lease = bench.lease(&widget, 10).await;
    bench.sell(&NewOrder { quantity: units(2), ..bench.order(&lease) }).await;
    bench.settle_all().await;
    for quantity in [1, 3] {
        bench.sell(&NewOrder { quantity: units(quantity), ..bench.order(&lease) }).await;
    }
    let restock = Restock { id: bench.env().uuid(), item: widget.clone(), quantity: units(5) };
    bench.ledger.record_restock(&restock, 10).await.expect("the ledger answers");
    let surplus = bench.order(&lease);
    bench.resolve(surplus.id, Some(&surplus.stamp)).await;
    let other = bench.lease(&item("gadget"), 10).await;
    bench.sell(&bench.order(&other)).await;

    let told = Books {
        item: widget.clone(),
        epoch: lease.epoch,
        received: 15,
        settled: 2,
        outbox_units: 4,
        outbox_events: 2,
        orders: Some(6),
    };
    assert_eq!(books(bench, BooksOf::Item(widget.clone())).await, Some(told.clone()));
    bench.settle_all().await;
    let told = Books { settled: 6, outbox_units: 0, outbox_events: 0, ..told };
    assert_eq!(books(bench, BooksOf::Item(widget)).await, Some(told));
}

/// In the order of the bytes of their names, restocked ones too.
pub async fn books_are_told_item_by_item(bench: &Bench) {
    for name in ["zebra", "apple", "éclair", "Zebra"] {
        bench.lease(&item(name), 10).await;
    }
    let restock = Restock { id: bench.env().uuid(), item: item("melon"), quantity: units(5) };
    bench.ledger.record_restock(&restock, 10).await.expect("the ledger answers");
    let (mut after, mut seen) = (None, Vec::new());
    while let Some(next) = books(bench, BooksOf::After(after.clone())).await {
        assert_eq!(books(bench, BooksOf::Item(next.item.clone())).await, Some(next.clone()));
        seen.push((next.item.to_string(), next.epoch > Epoch::NONE, next.received));
        after = Some(next.item);
    }
    let lent = |name: &str| (name.to_owned(), true, 10);
    assert_eq!(seen, [lent("Zebra"), lent("apple"), ("melon".to_owned(), false, 15), lent("zebra"), lent("éclair")]);
}
