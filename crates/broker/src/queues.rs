//! The system's queues, declared alike by who publishes and who consumes.

use std::sync::Arc;

use contracts::event::ORDER_CREATED;
use service::readiness::Check;

use crate::{Broker, QueueSpec};

/// Most events that wait at the broker; past it they wait in the outbox.
pub const ORDER_CREATED_LENGTH_MAX: u32 = 100_000;
/// How often an event is delivered again before it is a dead letter.
pub const ORDER_CREATED_REDELIVERIES_MAX: u32 = 20;

/// Orders that were committed.
pub fn order_created() -> QueueSpec {
    QueueSpec {
        name: ORDER_CREATED.to_owned(),
        length_max: ORDER_CREATED_LENGTH_MAX,
        redeliveries_max: ORDER_CREATED_REDELIVERIES_MAX,
    }
}

/// Whether the broker can be used and has the queues.
pub fn check(broker: &Arc<dyn Broker>) -> Check {
    Check::new("broker", broker, |broker| async move { broker.declare(&order_created()).await })
}
