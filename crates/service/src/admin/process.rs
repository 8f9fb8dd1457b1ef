//! Metrics of the process itself, as Prometheus names them, read from `/proc` at each scrape.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::environment::Environment;

/// Linux counts processor time for user space in hundredths of a second, on every machine.
const TICKS_PER_SECOND: u32 = 100;

#[derive(Debug)]
struct Process {
    started_micros: i64,
}

/// Adds `process_start_time_seconds`, `process_resident_memory_bytes`, `process_open_fds` and
/// `process_cpu_seconds_total`. Call it when the process starts: it takes the start time from the clock.
pub fn register(registry: &mut Registry, env: &dyn Environment) {
    registry.register_collector(Box::new(Process { started_micros: env.now().0 }));
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut write = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn EncodeOne| {
            metric.encode_one(&mut encoder, name, help, unit)
        };
        #[expect(clippy::cast_precision_loss, reason = "a double holds microseconds for 285 years")]
        let started = self.started_micros as f64 / 1e6;
        write(
            "process_start_time",
            "When it started, since the epoch.",
            Some(&Unit::Seconds),
            &ConstGauge::new(started),
        )?;
        if let Some(bytes) = resident_bytes() {
            write("process_resident_memory", "Memory in use.", Some(&Unit::Bytes), &ConstGauge::new(bytes))?;
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            let count = i64::try_from(fds.count()).unwrap_or(i64::MAX);
            write("process_open_fds", "Open file descriptors.", None, &ConstGauge::new(count))?;
        }
        if let Some(seconds) = cpu_seconds() {
            write("process_cpu", "Processor time used.", Some(&Unit::Seconds), &ConstCounter::new(seconds))?;
        }
        Ok(())
    }
}

trait EncodeOne {
    fn encode_one(&self, encoder: &mut DescriptorEncoder, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result;
}

impl<M: EncodeMetric> EncodeOne for M {
    fn encode_one(&self, encoder: &mut DescriptorEncoder, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, unit, self.metric_type())?)
    }
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<i64>().ok().map(|kibibytes| kibibytes * 1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name comes before, in brackets, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(f64::from(user) / f64::from(TICKS_PER_SECOND) + f64::from(system) / f64::from(TICKS_PER_SECOND))
}
