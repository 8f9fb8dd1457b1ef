//! The event `order_created`, as the inventory's consumer reads it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use broker::{Broker, BrokerError, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};
use contracts::{
    Failure,
    event::{ORDER_CREATED, OrderCreated},
    values::{Epoch, Item, Lease},
};
use inventory::{
    Inventory,
    backend::Backend,
    ledger::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict as Judgement},
    metrics::InventoryMetrics,
    stock::memory::MemoryStock,
};
use prometheus_client::registry::Registry;
use proptest::{collection::vec, prelude::*, sample::select};
use service::{
    call::Call,
    environment::{Env, RealEnvironment},
};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    driver::{self, Inputs, Verdict, word},
    json::{self, Json, Reading},
    rules,
};

/// The newest lease of every item.
const NEWEST_EPOCH: i64 = 5;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn an_event_is_handled_exactly_when_the_rules_say_so_and_all_others_are_dead_letters() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    driver::run("events", inputs(), |input| {
        let settled = runtime.block_on(settled(input));
        check(input, settled)
    });
}

fn check(input: &[u8], settled: Option<Settlement>) -> Verdict {
    let read = OrderCreated::from_json(input);
    let members = match json::read(input) {
        Reading::Object(members) => members,
        // Whether its depth or its number is too much is the reader's affair, but it has to be settled.
        Reading::Doubtful(_) => {
            prop_assert!(settled.is_some());
            return Ok(());
        }
        Reading::None => Vec::new(),
    };
    let expected = judge(&members);
    prop_assert_eq!(expected.is_some(), read.is_ok(), "{:?}", read);
    let (Some((id, item, numbers)), Ok(event)) = (expected, read) else {
        prop_assert_eq!(settled, Some(Settlement::DeadLetter));
        return Ok(());
    };
    prop_assert_eq!((event.id.to_string(), event.stamp.item.to_string()), (id, item));
    prop_assert_eq!([event.quantity.get(), event.stamp.epoch.0, event.stamp.number], numbers);
    prop_assert_eq!(OrderCreated::from_json(&event.to_json()), Ok(event.clone()));
    let handled = event.stamp.epoch.0 <= NEWEST_EPOCH;
    prop_assert_eq!(settled, Some(if handled { Settlement::Acknowledge } else { Settlement::DeadLetter }));
    Ok(())
}

/// Id, item, and quantity, epoch and number; `None` for what is no event.
fn judge(members: &[(String, Json)]) -> Option<(String, String, [i64; 3])> {
    let only = |name: &str| {
        let mut values = members.iter().filter(|(member, _)| member == name).map(|(_, value)| value);
        values.next().filter(|_| values.next().is_none())
    };
    let text = |name| match only(name)? {
        Json::Text(text) => Some(text.as_str()),
        Json::Number(_) | Json::Other => None,
    };
    let integer = |name, most| match only(name)? {
        Json::Number(number) => rules::integer(number, 1..=most),
        Json::Text(_) | Json::Other => None,
    };
    let created_at = OffsetDateTime::parse(text("created_at")?, &Rfc3339).ok()?;
    // RFC 3339 has four digits for a year.
    (0..=9999).contains(&created_at.checked_to_offset(UtcOffset::UTC)?.year()).then_some(())?;
    let numbers = [integer("quantity", 1_000_000)?, integer("epoch", i64::MAX)?, integer("number", i64::MAX)?];
    Some((rules::uuid(text("id")?)?, rules::item(text("item")?)?, numbers))
}

fn inputs() -> Inputs {
    let member = |name: &'static str, values: &'static [&'static str]| {
        prop_oneof![9 => Just(values[0]), 1 => select(values)].prop_map(move |value| format!("\"{name}\":{value}"))
    };
    let numbers: &[&str] = &[
        "1",
        "0",
        "-1",
        "2",
        "1.0",
        "1e0",
        "-0",
        "5",
        "6",
        "1000000",
        "1000001",
        "4503599627370496",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "\"1\"",
        "null",
        "[]",
    ];
    let ids: &[&str] = &[
        r#""0f8fad5b-d9cb-869f-a165-70867728950e""#,
        r#""0F8FAD5B-D9CB-869F-A165-70867728950E""#,
        r#""x""#,
        "7",
        r#""0f8fad5bd9cb869fa16570867728950e""#,
    ];
    let items: &[&str] = &[r#""widget""#, r#""cafe\u0301""#, r#""..""#, r#"" a""#, r#""{a}""#, r#""a\u0000""#, "1"];
    let times: &[&str] = &[
        r#""2026-11-22T10:00:00.123456Z""#,
        r#""2026-11-22T10:00:00+02:00""#,
        r#""2026-11-22t10:00:00z""#,
        r#""0000-01-01T00:00:00+00:01""#,
        r#""9999-12-31T23:59:59.999999999-23:59""#,
        r#""2026-02-30T10:00:00Z""#,
        r#""2016-12-31T23:59:60Z""#,
        r#""x""#,
        "1",
    ];
    let others: &[&str] =
        &[r#""new":{"a":[1,null]}"#, r#""big":1e999"#, r#""odd":"\ud800""#, r#""id":"x""#, r#""deep":[[[[]]]]"#];
    let more = prop_oneof![3 => Just(Vec::new()), 1 => vec(word(others), 1..4)];
    let fields = (
        member("id", ids),
        member("item", items),
        member("quantity", numbers),
        member("epoch", numbers),
        member("number", numbers),
        member("created_at", times),
        more,
    );
    fields
        .prop_map(|(id, item, quantity, epoch, number, time, more)| {
            let members: Vec<String> = [id, item, quantity, epoch, number, time].into_iter().chain(more).collect();
            members
        })
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(",")).into_bytes())
        .boxed()
}

/// What the consumer does with an event of this body; `None` if it does nothing.
async fn settled(body: &[u8]) -> Option<Settlement> {
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let (settled, mut settlement) = mpsc::unbounded_channel();
    let backend = Backend {
        env: env.clone(),
        store: MemoryStock::new(env),
        ledger: Arc::new(Ledger::default()),
        default_stock: 100,
        metrics: InventoryMetrics::register(&mut Registry::default()),
    };
    // Whoever publishes says what the header is, too.
    let headers = BTreeMap::from([("traceparent".to_owned(), String::from_utf8_lossy(body).into_owned())]);
    let message = Message { id: "e".into(), routing_key: ORDER_CREATED.into(), body: body.to_vec(), headers };
    let broker = Arc::new(OneEvent { message, settled });
    let stop = CancellationToken::new();
    let work = Inventory::new(backend, broker).consumer().run(stop);
    tokio::select! {
        biased;
        settlement = settlement.recv() => settlement,
        () = work => None,
        () = tokio::time::sleep(SETTLE_TIMEOUT) => None,
    }
}

/// A broker that has one event, and tells what became of it.
struct OneEvent {
    message: Message,
    settled: mpsc::UnboundedSender<Settlement>,
}

#[async_trait]
impl Broker for OneEvent {
    async fn declare(&self, _: &QueueSpec) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, _: &[Message]) -> Result<Vec<PublishOutcome>, BrokerError> {
        Err(BrokerError("nobody publishes".into()))
    }

    async fn consume(&self, _: &str, _: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let delivery = Delivery { tag: 1, message: self.message.clone(), earlier_deliveries: 0 };
        Ok(Box::new(Reader { delivery: Some(delivery), settled: self.settled.clone() }))
    }

    async fn depth(&self, _: &str) -> Result<u64, BrokerError> {
        Ok(0)
    }
}

struct Reader {
    delivery: Option<Delivery>,
    settled: mpsc::UnboundedSender<Settlement>,
}

#[async_trait]
impl Consumer for Reader {
    async fn next(&mut self, _: usize) -> Result<Vec<Delivery>, BrokerError> {
        match self.delivery.take() {
            Some(delivery) => Ok(vec![delivery]),
            None => std::future::pending().await,
        }
    }

    async fn settle(&mut self, settlements: &[(u64, Settlement)]) -> Result<(), BrokerError> {
        settlements
            .iter()
            .try_for_each(|(_, settlement)| self.settled.send(*settlement))
            .map_err(|e| BrokerError(Box::new(e)))
    }
}

/// A ledger that has lent every item a few times.
#[derive(Default)]
struct Ledger(Mutex<HashMap<Item, Epoch>>);

#[async_trait]
impl StockLedger for Ledger {
    async fn open_stock(&self, _: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        let mut epochs = self.0.lock().expect("no panic");
        let newest = epochs.entry(item.clone()).or_insert(Epoch(NEWEST_EPOCH));
        *newest = (*newest).max(dead).next();
        Ok(OpenOutcome::Lease(Lease { item: item.clone(), epoch: *newest, received: initial, sold: 0 }))
    }

    async fn stock(&self, _: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        let epochs = self.0.lock().expect("no panic");
        let epoch = |item| epochs.get(item).copied().unwrap_or(Epoch(NEWEST_EPOCH));
        Ok(items.iter().map(|item| ItemStock { epoch: epoch(item), received: initial, sold: 0 }).collect())
    }

    async fn resolve(&self, _: &Call, _: &[ResolveQuery]) -> Result<Vec<Judgement>, Failure> {
        Err(Failure::internal("nobody asks"))
    }

    async fn record_restock(&self, _: &Call, _: &Restock, _: i64) -> Result<Epoch, Failure> {
        Err(Failure::internal("nobody asks"))
    }
}
