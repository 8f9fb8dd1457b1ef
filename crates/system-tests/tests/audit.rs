//! The audit finds what a hand has changed, and nothing else, on embedded stores.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use contracts::{
    Failure,
    ledger::{Books, BooksOf},
    values::{Epoch, Item, ReservationId, Stamp, Ttl},
};
use futures::future::join_all;
use inventory::{
    audit::{Audited, Auditor, DriftKind},
    ledger::{LedgerBooks, Restock},
    reservations::Reserved,
    stock::ReserveRequest,
};
use order::{
    ledger::{CommitOutcome, Ledger, NewOrder, sqlite::SqliteLedger},
    place_order::Placement,
};
use service::call::Call;
use system_tests::{
    Client, System, eventually,
    wired::{Wired, attempt, item, key, units},
};
use tokio_util::sync::CancellationToken;

/// Units of an item at first, and of one order.
const INITIAL: i64 = 10;
const SOLD: i64 = 3;
/// How late books are.
const BOOKS_DELAY: Duration = Duration::from_millis(300);
/// How long a load is audited.
const LOAD_TIME: Duration = Duration::from_secs(8);
/// Everything is at rest within this, on a machine that is busy with other tests.
const REST_LIMIT: Duration = Duration::from_secs(20);

async fn audit(auditor: &Auditor) -> Vec<Audited> {
    auditor.page(BooksOf::After(None), usize::MAX).await.expect("the stores answer")
}

async fn order(wired: &Wired, name: &str) {
    let identity = attempt(&name.replace(' ', "-"));
    let placement = Placement { item: item(name), quantity: units(SOLD), identity, reservation: None };
    wired.order.place(placement, wired.call()).await.expect("it is placed");
}

/// One order of an item, sold in the stock store too.
async fn sell(wired: &Wired, name: &str) {
    order(wired, name).await;
    let sold = async || {
        let audited = wired.auditor.page(BooksOf::Item(item(name)), 1).await.expect("the stores answer");
        (audited[0].stock?.sold == SOLD && audited[0].books.outbox_events == 0).then_some(())
    };
    eventually(REST_LIMIT, "its event is handled", sold).await;
}

/// An order whose hold a hand deletes before, with all that counts it.
async fn sell_without_hold(wired: &Wired, name: &str) {
    let id = ReservationId(uuid::Uuid::new_v8([7; 16]));
    let item = item(name);
    let (quantity, least_epoch) = (units(SOLD), Epoch::NONE);
    let request = ReserveRequest { id, item: item.clone(), quantity, ttl: Ttl::DEFAULT, least_epoch, hint: false };
    let held = wired.reservations.reserve(&wired.call(), &request).await.expect("answered");
    let Reserved::Held { stamp, .. } = held else { panic!("{held:?}") };
    wired.stock.edit(&item, |state| {
        state.holds.clear();
        state.due.clear();
        (state.numbers.held, state.numbers.holds) = (0, 0);
        state.numbers.available += SOLD;
    });
    commit(wired, id, stamp).await;
}

async fn commit(wired: &Wired, id: ReservationId, stamp: Stamp) {
    let order = NewOrder {
        id,
        stamp,
        quantity: units(SOLD),
        key: None,
        created_at: wired.env.now(),
        traceparent: String::new(),
    };
    let outcomes = wired.ledger.commit(&[order]).await.expect("the ledger answers");
    assert!(matches!(outcomes[..], [Ok(CommitOutcome::Created(_))]), "{outcomes:?}");
}

type Drifts = Vec<(&'static str, Vec<DriftKind>)>;

/// What a hand has done to each item, and what the audit is to find.
async fn changed_by_hand(wired: &Wired) -> Drifts {
    wired
        .sql(
            "CREATE TRIGGER hand AFTER INSERT ON outbox WHEN NEW.item = 'event deleted'
            BEGIN DELETE FROM outbox WHERE seq = NEW.seq; END",
        )
        .await;
    let names = [
        "as it was",
        "epoch behind",
        "oversold",
        "received less",
        "received more",
        "restock lost",
        "settled less",
        "settled more",
        "sold less",
        "sold more",
    ];
    join_all(names.map(|name| sell(wired, name))).await;
    // Whoever asked for it died before the stock store had it, and never asks again.
    let restock = Restock { id: wired.env.uuid(), item: item("restock lost"), quantity: units(5) };
    wired.ledger.record_restock(&restock, INITIAL).await.expect("the ledger answers");
    sell_without_hold(wired, "hold deleted").await;
    order(wired, "event deleted").await;
    wired
        .sql(
            "UPDATE stock_leases SET epoch = epoch + 1 WHERE item = 'epoch behind';
            UPDATE stock_leases SET initial = 2 WHERE item = 'oversold';
            UPDATE stock_leases SET settled = settled - 1 WHERE item = 'settled less';
            UPDATE stock_leases SET settled = settled + 1 WHERE item = 'settled more'",
        )
        .await;
    for (name, received, sold) in
        [("received more", 5, 0), ("received less", -2, 0), ("sold more", 0, 2), ("sold less", 0, -SOLD)]
    {
        wired.stock.edit(&item(name), |state| {
            state.numbers.received += received;
            state.numbers.sold += sold;
            state.numbers.available += received - sold;
        });
    }
    vec![
        ("as it was", vec![]),
        ("epoch behind", vec![DriftKind::Epoch]),
        ("event deleted", vec![DriftKind::Orders]),
        ("hold deleted", vec![DriftKind::Sold]),
        ("oversold", vec![DriftKind::Oversold]),
        ("received less", vec![DriftKind::Received]),
        ("received more", vec![DriftKind::Received]),
        ("restock lost", vec![DriftKind::Received]),
        ("settled less", vec![DriftKind::Orders]),
        ("settled more", vec![DriftKind::Orders]),
        ("sold less", vec![DriftKind::Sold]),
        ("sold more", vec![DriftKind::Sold]),
    ]
}

fn found(audited: &[Audited]) -> Vec<(&str, Vec<DriftKind>)> {
    audited.iter().map(|one| (one.books.item.as_str(), one.drift.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_drift_is_found_and_a_new_lease_heals_what_it_can() {
    let wired = Wired::new(INITIAL).await;
    let stop = CancellationToken::new();
    wired.env.start(Box::pin(wired.inventory.consumer().run(stop.clone())));
    let expected = changed_by_hand(&wired).await;

    let before = audit(&wired.auditor).await;
    assert_eq!(found(&before), expected);
    assert_eq!(audit(&wired.auditor).await, before, "an audit changes nothing");

    assert_eq!(wired.auditor.round(None).await.expect("the stores answer"), None);
    for kind in DriftKind::ALL {
        let times = expected.iter().filter(|(_, kinds)| kinds.contains(&kind)).count();
        assert_eq!(wired.audit_metrics.drift_total(kind), times as u64, "{kind:?}");
    }
    let after = audit(&wired.auditor).await;
    let left: Drifts = expected
        .iter()
        .map(|(name, kinds)| (*name, if kinds.iter().all(|kind| kind.heals()) { vec![] } else { kinds.clone() }))
        .collect();
    assert_eq!(found(&after), left);
    for (before, after) in before.iter().zip(&after) {
        if before.drift.iter().all(|kind| kind.heals()) {
            let stock = after.stock.expect("it is open");
            let received = after.books.received;
            assert_eq!((stock.received, stock.sold, stock.available), (received, SOLD, received - SOLD), "{after:?}");
            assert_eq!(stock.epoch > before.books.epoch, !before.drift.is_empty(), "{after:?}");
        } else {
            // The books are as wrong as they were: nobody guesses.
            assert_eq!(after, before);
        }
    }
    stop.cancel();
}

/// Buys, holds, gives back and counts in, as long as it is told.
async fn client(wired: &Wired, number: usize, end: Instant) {
    for n in 0.. {
        if Instant::now() > end {
            return;
        }
        let name = format!("item {}", (n + number) % 3);
        let identity = key(&format!("{number} {n}"));
        let placement = Placement { item: item(&name), quantity: units(1), identity, reservation: None };
        drop(wired.order.place(placement, wired.call()).await);
        if n % 4 == 0 {
            let restock = Restock { id: wired.env.uuid(), item: item(&name), quantity: units(5) };
            drop(wired.reservations.restock(&wired.call(), &restock).await);
        }
        if n % 5 == 0 {
            hold_and_give_back(wired, &item(&name)).await;
        }
        // A new life of the stock store: every item is lent anew. Then the leases last, so that two looks are at one.
        if number == 0 && n % 30 == 29 && n < 100 {
            wired.stock.renew_incarnation();
        }
    }
}

async fn hold_and_give_back(wired: &Wired, item: &Item) {
    let id = ReservationId(wired.env.uuid());
    let (quantity, least_epoch) = (units(2), Epoch::NONE);
    let request = ReserveRequest { id, item: item.clone(), quantity, ttl: Ttl::DEFAULT, least_epoch, hint: true };
    drop(wired.reservations.reserve(&wired.call(), &request).await);
    drop(wired.reservations.release(&wired.call(), id, Some(item)).await);
}

/// Books that are old when they arrive: much is sold between them and the look at the stock store.
struct LateBooks(Arc<SqliteLedger>);

#[async_trait]
impl LedgerBooks for LateBooks {
    async fn books(&self, _: &Call, of: &BooksOf) -> Result<Option<Books>, Failure> {
        let books = self.0.books(of).await.map_err(Failure::unavailable)?;
        tokio::time::sleep(BOOKS_DELAY).await;
        Ok(books)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_no_drift() {
    let wired = Wired::new(INITIAL).await;
    let books = Arc::new(LateBooks(wired.ledger.clone()));
    let auditor = wired.inventory.auditor(books, wired.audit_metrics.clone());
    let stop = CancellationToken::new();
    wired.env.start(Box::pin(wired.inventory.consumer().run(stop.clone())));
    wired.env.start(Box::pin(wired.inventory.reaper().run(stop.clone())));
    let end = Instant::now() + LOAD_TIME;
    let clients = join_all((0..8).map(|number| client(&wired, number, end)));
    let auditing = async {
        let mut open = 0_usize;
        while Instant::now() < end {
            for audited in audit(&auditor).await {
                open += usize::from(audited.stock.is_some());
                assert_eq!(audited.drift, [], "{audited:?}");
            }
        }
        open
    };
    let (open, _) = tokio::join!(auditing, clients);
    assert!(open >= 9, "{open} looks at items that were open show little");
    assert!(wired.orders().await.len() >= 100, "little was sold");
    stop.cancel();
}

#[tokio::test]
async fn the_all_in_one_tells_what_it_compared() {
    let system = System::start(&[("DEFAULT_STOCK", "10")]).await;
    let admin = Client::new(system.addr("admin"));
    let order = serde_json::json!({ "item": "caf\u{e9}", "quantity": 3 });
    assert_eq!(system.http.post("/orders", &order).await.status, 201);
    let sold = async || {
        let told = admin.get("/audit?item=caf%C3%A9").await.json();
        (told["items"][0]["stock"]["sold"] == 3 && told["items"][0]["ledger"]["settled"] == 3).then_some(told)
    };
    let told = eventually(REST_LIMIT, "the event is handled", sold).await;
    let item = serde_json::json!({
        "item": "caf\u{e9}",
        "ledger": { "epoch": 1, "received": 10, "settled": 3, "outbox_units": 0, "outbox_events": 0, "orders": 3 },
        "stock": { "epoch": 1, "received": 10, "available": 7, "held": 0, "sold": 3, "holds": 0 },
        "drift": [],
    });
    assert_eq!(told, serde_json::json!({ "items": [item], "next": null }));
    assert_eq!(admin.get("/audit?after=caf%C3%A9").await.json()["items"], serde_json::json!([]));
    assert_eq!(admin.get("/audit?item=nobody").await.json()["items"], serde_json::json!([]));
    for bad in ["/audit?item=", "/audit?item=a&after=b", "/audit?other=1"] {
        assert_eq!(admin.get(bad).await.status, 400, "{bad}");
    }
}
