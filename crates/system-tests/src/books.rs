//! Whether everything adds up: what a running system shows, and what it leaves in its files once it has stopped.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use broker::{Broker, in_process::InProcessBroker};
use contracts::{
    event::ORDER_CREATED,
    values::{ReservationId, Timestamp},
};
use order::ledger::{Ledger, sqlite::SqliteLedger};
use serde_json::Value;
use service::lifecycle::Lifecycle;

use crate::{Client, System, wired::item};

/// An order as `GET /orders` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// What was sold.
    pub item: String,
    /// Units.
    pub quantity: i64,
    /// When.
    pub created_at: Timestamp,
}

impl Listed {
    /// From an order's JSON.
    pub fn new(order: &Value) -> Self {
        let text = |name: &str| order[name].as_str().unwrap_or_else(|| panic!("no {name}: {order}")).to_owned();
        assert_eq!(order["status"], "confirmed", "{order}");
        let quantity = order["quantity"].as_i64().expect("a number");
        let created_at = text("created_at").parse().expect("a time");
        Self { id: text("id"), item: text("item"), quantity, created_at }
    }
}

/// Every order, page by page. `query` is empty or begins with `&`.
pub async fn all_orders(http: &Client, query: &str) -> Vec<Listed> {
    orders_from(http, "", query).await
}

/// Every order from a page on, page by page.
pub async fn orders_from(http: &Client, page_token: &str, query: &str) -> Vec<Listed> {
    let mut orders = Vec::new();
    let mut token = page_token.to_owned();
    loop {
        let (page, next) = page(http, &token, query).await;
        orders.extend(page);
        if next.is_empty() {
            return orders;
        }
        token = next;
    }
}

/// One page, and the next one's token.
pub async fn page(http: &Client, page_token: &str, query: &str) -> (Vec<Listed>, String) {
    let answer = http.get(&format!("/orders?page_token={page_token}{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.members(), ["next_page_token", "orders"]);
    let body = answer.json();
    let orders = body["orders"].as_array().expect("a list").iter().map(Listed::new).collect();
    (orders, body["next_page_token"].as_str().expect("text").to_owned())
}

/// Units in these orders, by item.
pub fn sold(orders: &[Listed]) -> HashMap<String, i64> {
    let mut sold = HashMap::new();
    for order in orders {
        *sold.entry(order.item.clone()).or_default() += order.quantity;
    }
    sold
}

/// What does not add up at this moment, as seen from outside; empty when the system is at rest. `received` has every
/// item that was touched, with its first stock and all restocks.
pub async fn unbalanced(system: &System, received: &[(&str, i64)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let created = system.count("orders_created_total").await;
    let handled = system.count("order_events_total").await;
    let waiting = system.count("outbox_events").await;
    if handled < created {
        wrong.push(format!("{handled} events handled of {created} orders"));
    }
    if waiting > 0 {
        wrong.push(format!("{waiting} events wait in the outbox"));
    }
    if !wrong.is_empty() {
        return wrong;
    }
    let sold = sold(&all_orders(&system.http, "&limit=500").await);
    for (item, received) in received {
        let (stock, sold) = (system.http.stock(item).await, sold.get(*item).copied().unwrap_or(0));
        if stock + sold != *received {
            wrong.push(format!("{item}: {stock} free and {sold} sold of {received}"));
        }
    }
    wrong
}

/// Waits until the system is at rest, and fails with what does not add up when it is not within `limit`.
pub async fn at_rest(system: &System, received: &[(&str, i64)], limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        let wrong = unbalanced(system, received).await;
        if wrong.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "not at rest within {limit:?}: {wrong:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The stores of a process that has ended.
pub struct Files {
    /// Its ledger.
    pub ledger: Arc<SqliteLedger>,
    /// Its broker.
    pub broker: Arc<InProcessBroker>,
}

impl Files {
    /// Opens them. No process may be using them.
    pub async fn open(data_dir: &Path) -> Self {
        let env = Lifecycle::new().env();
        let ledger = SqliteLedger::open(&data_dir.join("ledger.db"), env.clone()).await.expect("it opens");
        let broker = InProcessBroker::open(&data_dir.join("broker.db"), env).await.expect("it opens");
        Self { ledger, broker }
    }

    /// Fails unless every order is counted as sold, every event was handled, and there are as many dead letters.
    pub async fn audit(&self, orders: &[Listed], received: &[(&str, i64)], dead_letters: u64) {
        let outbox = self.ledger.outbox_backlog().await.expect("answered").events;
        assert_eq!(outbox, 0, "events wait in the outbox");
        let depth = async |queue: &str| self.broker.depth(queue).await.expect("declared");
        assert_eq!(depth(ORDER_CREATED).await, 0, "events wait in the queue");
        assert_eq!(depth(&format!("{ORDER_CREATED}.dead")).await, dead_letters, "dead letters");
        let sold = sold(orders);
        for (name, received) in received {
            let stock = self.ledger.stock(&[item(name)], *received).await.expect("answered")[0];
            assert_eq!(stock.received, *received, "{name}");
            assert_eq!(stock.sold, sold.get(*name).copied().unwrap_or(0), "{name}");
        }
        for listed in orders {
            let id = ReservationId::parse(&listed.id).expect("an id");
            let order = self.ledger.order(id).await.expect("answered").expect("it is there");
            assert_eq!((order.item.as_str(), order.quantity.get()), (&*listed.item, listed.quantity));
        }
    }
}
