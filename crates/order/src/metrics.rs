//! What the order service counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::ledger::OutboxBacklog;

/// Handles to the order service's metrics.
#[derive(Clone)]
pub struct OrderMetrics {
    created: Counter,
    batch: Histogram,
    outbox_events: Gauge,
    outbox_age: Gauge<f64, AtomicU64>,
    published: Counter,
    unpublished: Counter,
}

impl OrderMetrics {
    /// Adds them to the process's registry.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self {
            created: Counter::default(),
            batch: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            outbox_events: Gauge::default(),
            outbox_age: Gauge::default(),
            published: Counter::default(),
            unpublished: Counter::default(),
        };
        registry.register("orders_created", "Orders committed; replays do not count", this.created.clone());
        registry.register("order_commit_batch_size", "Orders committed in one transaction", this.batch.clone());
        registry.register("outbox_events", "Events that wait to be published", this.outbox_events.clone());
        registry.register_with_unit(
            "outbox_oldest_event_age",
            "Age of the oldest event that waits to be published",
            Unit::Seconds,
            this.outbox_age.clone(),
        );
        registry.register("outbox_published", "Events that the broker has confirmed", this.published.clone());
        registry.register(
            "outbox_publish_failures",
            "Events that the broker returned, refused or did not confirm; they are published again",
            this.unpublished.clone(),
        );
        this
    }

    /// An order was committed now.
    pub fn order_created(&self) {
        self.created.inc();
    }

    /// So many orders go into one transaction.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub fn commit_batch(&self, orders: usize) {
        self.batch.observe(orders as f64);
    }

    /// What waits now, and since how many seconds.
    pub fn backlog(&self, backlog: &OutboxBacklog, age_seconds: f64) {
        self.outbox_events.set(i64::try_from(backlog.events).unwrap_or(i64::MAX));
        self.outbox_age.set(age_seconds);
    }

    /// So many events were judged by the broker.
    pub fn relayed(&self, published: usize, failed: usize) {
        self.published.inc_by(published as u64);
        self.unpublished.inc_by(failed as u64);
    }
}
