//! What happens to whole parts, one disaster after the other.

use std::{sync::Arc, time::Duration};

use crate::{
    executor::{Kind, ProcessId},
    faults::Disaster,
    process::Cluster,
};

/// Longest that a server is away, in microseconds.
const DOWN_MICROS_MAX: u64 = 3_000_000;
/// Furthest that a clock jumps, in seconds.
const JUMP_SECONDS_MAX: u64 = 2 * 3_600;

impl Cluster {
    /// Lets one happen after the other until all is healed.
    pub fn start_disasters(self: &Arc<Self>) {
        let this = self.clone();
        let work = async move {
            while let Some((pause, disaster)) = this.faults.next() {
                this.faults.delay(pause).await;
                if this.faults.is_healed() {
                    return;
                }
                this.disaster(disaster);
            }
        };
        self.executor.start(ProcessId::WORLD, Kind::Faults, Box::pin(work));
    }

    /// One of them, now.
    pub fn disaster(self: &Arc<Self>, disaster: Disaster) {
        let services = self.services();
        let service = services[self.draw(services.len())];
        match disaster {
            Disaster::Crash => self.crash(service),
            Disaster::Freeze => self.freeze(service),
            Disaster::Stop => self.stop(service),
            Disaster::ClockJumped => self.jump(),
            Disaster::LedgerDown
            | Disaster::StockWiped
            | Disaster::StockRestarted
            | Disaster::StockRolledBack
            | Disaster::StockFailedOver
            | Disaster::StockFailedBack
            | Disaster::StockEdited
            | Disaster::ScriptsFlushed
            | Disaster::BrokerDown
            | Disaster::BrokerCut
            | Disaster::QueueDeleted => {
                if self.stores.strike(self, disaster) {
                    self.faults.count(disaster.name());
                }
            }
        }
    }

    /// A number from 0 to below `end`.
    pub fn draw(&self, end: usize) -> usize {
        usize::try_from(self.executor.below(end as u64)).expect("below a usize")
    }

    /// Does it after a while, or when all is healed.
    pub fn later(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let pause = Duration::from_micros(1 + self.executor.below(DOWN_MICROS_MAX));
        let this = self.clone();
        let work = async move {
            this.faults.delay(pause).await;
            // What ends a fault may change as much as its beginning.
            this.faults.change();
            work(&this);
        };
        self.executor.start(ProcessId::WORLD, Kind::Faults, Box::pin(work));
    }

    /// Somebody's clock is elsewhere from now on: a service's, the ledger's or the stock store's.
    fn jump(&self) {
        self.faults.count(Disaster::ClockJumped.name());
        let span = JUMP_SECONDS_MAX * 2 * 1_000_000;
        // Mostly a little, now and then far.
        let span = if self.executor.chance(700) { span / 3_000 } else { span };
        let micros = i64::try_from(self.executor.below(span)).expect("hours") - i64::try_from(span / 2).expect("hours");
        let process = ProcessId(self.draw(self.executor.processes()));
        if process != ProcessId::CLIENTS && process != ProcessId::WORLD {
            self.executor.jump(process, micros);
        }
    }
}
