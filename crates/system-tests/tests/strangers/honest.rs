//! Honest clients, and what they notice of the others.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;
use system_tests::Client;

/// Requests without which nothing can be told.
const REQUESTS_MIN: usize = 10;

/// How long honest requests took, in milliseconds, sorted.
#[derive(Debug)]
pub struct Waits(Vec<u128>);

impl Waits {
    /// The wait that so many of a hundred do not exceed.
    pub fn percentile(&self, percent: usize) -> u128 {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

/// What an overloaded server says; clients wait as long as it asks for, and repeat.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest that any of it may take.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// Orders and reads, one after the other, for so long or somewhat longer; every single one has to be served.
pub async fn clients(addr: SocketAddr, time: Duration) -> Waits {
    let (start, mut waits) = (Instant::now(), Vec::new());
    while start.elapsed() < time || waits.len() < REQUESTS_MIN {
        for is_order in [true, false] {
            // Each on a connection of its own: connections have to be had too.
            let (client, begun) = (Client::new(addr), Instant::now());
            loop {
                let (answer, status) = if is_order {
                    (client.post("/orders", &json!({ "item": "honest", "quantity": 1 })).await, 201)
                } else {
                    (client.get("/inventory/honest").await, 200)
                };
                if answer.status == status {
                    break;
                }
                answer.problem(503, "OVERLOADED");
                assert!(begun.elapsed() < SERVED_WITHIN, "{answer:?}");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            waits.push(begun.elapsed().as_millis());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waits.sort_unstable();
    Waits(waits)
}
