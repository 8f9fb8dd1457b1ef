//! Bad input to the running all-in-one: each piece gets the right answer, and changes nothing.

mod bodies;
mod calls;
mod connections;
mod targets;

use contracts::orders::v1::{GetStockRequest, ItemStock, ledger_service_client::LedgerServiceClient};
use serde_json::{Value, json};
use system_tests::{
    Answer, System,
    books::{Listed, all_orders},
    raw,
};
use tonic::transport::Channel;

const ORDER: &str = r#"{"item":"widget","quantity":1}"#;
const ID: &str = "7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e";

/// A system that has sold one widget.
struct Target {
    system: System,
    ledger: LedgerServiceClient<Channel>,
}

/// What bad input must not change.
#[derive(Debug, PartialEq)]
struct State {
    orders: Vec<Listed>,
    created: u64,
    held: u64,
    leases: u64,
    widgets: i64,
    /// Of widget, and of an item that nobody has named.
    ledger: Vec<ItemStock>,
}

impl Target {
    async fn start() -> Self {
        let system = System::start(&[("RUST_LOG", "warn")]).await;
        assert_eq!(system.http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await.status, 201);
        let ledger = LedgerServiceClient::connect(system.url("order gRPC")).await.expect("it listens");
        Self { system, ledger }
    }

    async fn state(&self) -> State {
        let items = ["widget", "poison"].map(str::to_owned).to_vec();
        let stocks = self.ledger.clone().get_stock(GetStockRequest { items, initial: 100 }).await.expect("answered");
        State {
            orders: all_orders(&self.system.http, "").await,
            created: self.system.count("orders_created_total").await,
            held: self.system.count(r#"reservations_total{outcome="held"}"#).await,
            leases: self.system.count("leases_total").await,
            widgets: self.system.http.stock("widget").await,
            ledger: stocks.into_inner().stocks,
        }
    }

    /// Sends these bytes; the answer is a problem of this status and reason, and nothing has changed.
    async fn refuses(&self, bytes: &[u8], status: u16, reason: &str) -> Value {
        let before = self.state().await;
        let answer = raw::send(self.system.addr("HTTP"), bytes).await;
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        assert_eq!(answer.status, status, "{start}\n{answer:?}");
        let body = answer.problem(status, reason);
        assert_eq!(self.state().await, before, "{start}");
        body
    }

    /// Sends a body that is refused for this place in it alone.
    async fn refuses_body(&self, path: &str, body: &[u8], pointer: &str) {
        let problem = self.refuses(&raw::post_json(path, body), 400, "INVALID_REQUEST").await;
        let start = String::from_utf8_lossy(&body[..body.len().min(100)]);
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{start}: {problem}"));
        assert_eq!(errors.len(), 1, "{start}: {problem}");
        assert_eq!(errors[0]["pointer"], pointer, "{start}: {problem}");
        assert!(errors[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }

    /// Sends bytes that are no request that could be answered with a problem: the parser's own answer, or none.
    async fn rejects(&self, bytes: &[u8]) {
        let before = self.state().await;
        let mut stream = raw::connect(self.system.addr("HTTP")).await;
        raw::write(&mut stream, bytes).await;
        let answer = raw::read_to_end(&mut stream).await;
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
        let refused: [&[u8]; 3] = [b"", b"HTTP/1.1 400 ", b"HTTP/1.1 431 "];
        assert!(refused.iter().any(|status| answer.get(..13).unwrap_or(&answer) == *status), "{start}: {answer:?}");
        assert_eq!(self.state().await, before, "{start}");
    }

    /// The same for what need not be answered until the sender has ended.
    async fn rejects_or_closes(&self, bytes: &[u8]) {
        let before = self.state().await;
        let mut stream = raw::connect(self.system.addr("HTTP")).await;
        raw::write(&mut stream, bytes).await;
        raw::finish(&mut stream).await;
        let answer = raw::read_to_end(&mut stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{bytes:?}: {answer:?}");
        assert_eq!(self.state().await, before, "{bytes:?}");
    }

    /// The end: what is right is still served.
    async fn still_sells(self) {
        let answer: Answer = self.system.http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}
