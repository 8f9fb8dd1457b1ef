//! What the inventory service counts.

use std::sync::atomic::AtomicU64;

use contracts::values::Timestamp;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::audit::DriftKind;

type Label = [(&'static str, &'static str); 1];

/// What became of an attempt to hold units or to give them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationOutcome {
    /// Units are held, now or before.
    Held,
    /// Too few are free.
    Insufficient,
    /// The id was released before.
    Released,
    /// The id is a hold of something else.
    Mismatch,
    /// The id is an order.
    Confirmed,
    /// The store or the ledger did not answer, or not in time.
    Unavailable,
}

impl ReservationOutcome {
    const ALL: [Self; 6] =
        [Self::Held, Self::Insufficient, Self::Released, Self::Mismatch, Self::Confirmed, Self::Unavailable];

    fn label(self) -> Label {
        let outcome = match self {
            Self::Held => "held",
            Self::Insufficient => "insufficient",
            Self::Released => "released",
            Self::Mismatch => "mismatch",
            Self::Confirmed => "confirmed",
            Self::Unavailable => "unavailable",
        };
        [("outcome", outcome)]
    }
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// Loaded: the item is open under it.
    Opened,
    /// Not granted, because another was granted a moment ago.
    Waited,
    /// Granted but perhaps not loaded; never to be used.
    Burnt,
}

impl LeaseOutcome {
    const ALL: [Self; 3] = [Self::Opened, Self::Waited, Self::Burnt];

    fn label(self) -> Label {
        let outcome = match self {
            Self::Opened => "opened",
            Self::Waited => "waited",
            Self::Burnt => "burnt",
        };
        [("outcome", outcome)]
    }
}

/// What became of an event. All but the last two are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// The hold was sold by it.
    Processed,
    /// No hold of its stamp is there: sold before.
    Duplicate,
    /// A later lease has counted the order.
    Superseded,
    /// It names a lease that the ledger never granted: dead-lettered.
    UnknownLease,
    /// It is no event: dead-lettered.
    Malformed,
}

impl EventOutcome {
    const ALL: [Self; 5] = [Self::Processed, Self::Duplicate, Self::Superseded, Self::UnknownLease, Self::Malformed];

    fn label(self) -> Label {
        let outcome = match self {
            Self::Processed => "processed",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::UnknownLease => "unknown_lease",
            Self::Malformed => "malformed",
        };
        [("outcome", outcome)]
    }
}

/// What the reaper did with an overdue hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapOutcome {
    /// An order: sold.
    Confirmed,
    /// No order: given back.
    Released,
    /// The order has another hold: given back.
    Surplus,
}

impl ReapOutcome {
    const ALL: [Self; 3] = [Self::Confirmed, Self::Released, Self::Surplus];

    fn label(self) -> Label {
        let outcome = match self {
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Surplus => "surplus",
        };
        [("outcome", outcome)]
    }
}

/// Handles to the inventory service's metrics.
#[derive(Clone)]
pub struct InventoryMetrics {
    processed: Counter,
    events: Family<Label, Counter>,
    reservations: Family<Label, Counter>,
    leases: Family<Label, Counter>,
    reaped: Family<Label, Counter>,
}

impl InventoryMetrics {
    /// Adds them to the process's registry, every outcome at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let this = Self {
            processed: Counter::default(),
            events: family(&EventOutcome::ALL.map(EventOutcome::label)),
            reservations: family(&ReservationOutcome::ALL.map(ReservationOutcome::label)),
            leases: family(&LeaseOutcome::ALL.map(LeaseOutcome::label)),
            reaped: family(&ReapOutcome::ALL.map(ReapOutcome::label)),
        };
        registry.register(
            "orders_processed",
            "Holds that became sales, by event or by the reaper; redeliveries do not count",
            this.processed.clone(),
        );
        registry.register("order_events", "Events handled, redeliveries too", this.events.clone());
        registry.register("reservations", "Reserves answered", this.reservations.clone());
        registry.register("leases", "Leases asked for", this.leases.clone());
        registry.register("reaped_holds", "Overdue holds that were settled", this.reaped.clone());
        this
    }

    /// A reserve was answered.
    pub fn reservation(&self, outcome: ReservationOutcome) {
        self.reservations.get_or_create(&outcome.label()).inc();
    }

    /// A lease was asked for.
    pub fn lease(&self, outcome: LeaseOutcome) {
        self.leases.get_or_create(&outcome.label()).inc();
    }

    /// An event was handled.
    pub fn event(&self, outcome: EventOutcome) {
        self.events.get_or_create(&outcome.label()).inc();
        if outcome == EventOutcome::Processed {
            self.processed.inc();
        }
    }

    /// An overdue hold was settled.
    pub fn reaped(&self, outcome: ReapOutcome) {
        self.reaped.get_or_create(&outcome.label()).inc();
        if outcome == ReapOutcome::Confirmed {
            self.processed.inc();
        }
    }

    /// Holds that became sales so far.
    pub fn processed_total(&self) -> u64 {
        self.processed.get()
    }

    /// Events of this outcome so far.
    pub fn events_total(&self, outcome: EventOutcome) -> u64 {
        self.events.get_or_create(&outcome.label()).get()
    }

    /// Leases of this outcome so far.
    pub fn leases_total(&self, outcome: LeaseOutcome) -> u64 {
        self.leases.get_or_create(&outcome.label()).get()
    }
}

/// Handles to what the audit counts.
#[derive(Clone)]
pub struct AuditMetrics {
    drift: Family<Label, Counter>,
    items: Counter,
    last_round: Gauge<f64, AtomicU64>,
}

impl AuditMetrics {
    /// Adds them to the process's registry, every kind of drift at zero. Until the first round has come to its end it
    /// counts from `now`.
    pub fn register(registry: &mut Registry, now: Timestamp) -> Self {
        let this = Self {
            drift: family(&DriftKind::ALL.map(|kind| [("kind", kind.name())])),
            items: Counter::default(),
            last_round: Gauge::default(),
        };
        this.whole_round(now);
        registry.register(
            "inventory_audit_drift",
            "Items found that do not fit between ledger, outbox and stock store, by what does not",
            this.drift.clone(),
        );
        registry.register("inventory_audit_items", "Items that the audit has looked at", this.items.clone());
        registry.register_with_unit(
            "inventory_audit_last_round_timestamp",
            "When the audit had last looked at every item, since the epoch",
            Unit::Seconds,
            this.last_round.clone(),
        );
        this
    }

    /// An item has drifted.
    pub fn drift(&self, kind: DriftKind) {
        self.drift.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// So many items were looked at.
    pub fn items(&self, count: usize) {
        self.items.inc_by(count as u64);
    }

    /// Every item has been looked at.
    pub fn whole_round(&self, now: Timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "a double holds microseconds for 285 years")]
        self.last_round.set(now.0 as f64 / 1e6);
    }

    /// Items of this drift so far.
    pub fn drift_total(&self, kind: DriftKind) -> u64 {
        self.drift.get_or_create(&[("kind", kind.name())]).get()
    }
}

fn family(labels: &[Label]) -> Family<Label, Counter> {
    let family = Family::<Label, Counter>::default();
    for label in labels {
        drop(family.get_or_create(label));
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_there_from_the_start() {
        let mut registry = Registry::default();
        let metrics = InventoryMetrics::register(&mut registry);
        let audit = AuditMetrics::register(&mut registry, Timestamp(1_500_000));
        audit.drift(DriftKind::Sold);
        metrics.event(EventOutcome::Processed);
        metrics.reaped(ReapOutcome::Confirmed);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes it");
        for line in [
            "orders_processed_total 2",
            r#"order_events_total{outcome="processed"} 1"#,
            r#"order_events_total{outcome="malformed"} 0"#,
            r#"reservations_total{outcome="held"} 0"#,
            r#"reservations_total{outcome="unavailable"} 0"#,
            r#"leases_total{outcome="burnt"} 0"#,
            r#"reaped_holds_total{outcome="surplus"} 0"#,
            r#"inventory_audit_drift_total{kind="sold"} 1"#,
            r#"inventory_audit_drift_total{kind="orders"} 0"#,
            "inventory_audit_items_total 0",
            "inventory_audit_last_round_timestamp_seconds 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
