//! What the clients met.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

/// Times are told to a tenth of a millisecond, in microseconds.
const STEP_US: u128 = 100;
/// Longer times count as this one, in steps: half a minute.
const STEPS_MAX: usize = 300_000;

/// Of a run; its size does not grow with the run.
pub struct Tally {
    /// Orders that were placed.
    pub orders: u64,
    /// Orders that were refused for lack of stock.
    pub refused: u64,
    /// Orders whose fate stayed unknown, or whose answer was wrong.
    pub failed: u64,
    /// Requests that were sent again.
    pub repeated: u64,
    /// By the answer to the first request of an order.
    pub by_first_status: BTreeMap<String, u64>,
    times: Vec<u64>,
    longest: Duration,
    last_order: Duration,
    longest_gap: Duration,
}

impl Tally {
    /// From this moment on.
    pub fn new(begin: Duration) -> Self {
        Self {
            orders: 0,
            refused: 0,
            failed: 0,
            repeated: 0,
            by_first_status: BTreeMap::new(),
            times: vec![0; STEPS_MAX + 1],
            longest: Duration::ZERO,
            last_order: begin,
            longest_gap: Duration::ZERO,
        }
    }

    /// An order was placed at this moment, after so long a wait.
    pub fn placed(&mut self, now: Duration, took: Duration) {
        self.orders += 1;
        let steps = usize::try_from(took.as_micros() / STEP_US).unwrap_or(STEPS_MAX);
        self.times[steps.min(STEPS_MAX)] += 1;
        self.longest = self.longest.max(took);
        self.end(now);
        self.last_order = self.last_order.max(now);
    }

    /// No later order counts for the gaps.
    pub fn end(&mut self, now: Duration) {
        self.longest_gap = self.longest_gap.max(now.saturating_sub(self.last_order));
    }

    /// So many percent of the orders waited for so many steps at most.
    fn percentile(&self, percent: u64) -> usize {
        let rank = (self.orders * percent).div_ceil(100);
        let mut seen = 0;
        let reached = self.times.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        reached.unwrap_or(STEPS_MAX)
    }

    /// As it is printed.
    #[expect(clippy::cast_precision_loss, reason = "these are figures for people")]
    pub fn report(&self, took: Duration) -> Value {
        let rounded = |number: f64| (number * 10.0).round() / 10.0;
        let ms = |time: Duration| rounded(time.as_secs_f64() * 1_000.0);
        let step_ms = |steps: usize| rounded(steps as f64 * STEP_US as f64 / 1_000.0);
        json!({
            "orders": self.orders,
            "refused": self.refused,
            "failed": self.failed,
            "repeated": self.repeated,
            "by_first_status": self.by_first_status,
            "seconds": rounded(took.as_secs_f64()),
            "orders_per_second": rounded(self.orders as f64 / took.as_secs_f64().max(0.001)),
            "p50_ms": step_ms(self.percentile(50)),
            "p99_ms": step_ms(self.percentile(99)),
            "max_ms": ms(self.longest),
            "longest_gap_ms": ms(self.longest_gap),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_gaps_are_those_of_the_orders() {
        let ms = Duration::from_millis;
        let mut tally = Tally::new(ms(1_000));
        assert_eq!(tally.report(ms(1))["p99_ms"], 0.0);
        for number in 1..=100 {
            tally.placed(ms(1_000 + 10 * number), ms(number));
        }
        tally.placed(ms(2_500), ms(40_000));
        tally.end(ms(2_700));
        let report = tally.report(ms(2_000));
        let figures = ["p50_ms", "p99_ms", "max_ms", "longest_gap_ms", "orders_per_second"].map(|name| &report[name]);
        assert_eq!(figures, [51.0, 100.0, 40_000.0, 500.0, 50.5]);
        tally.end(ms(4_000));
        assert_eq!(tally.report(ms(2_000))["longest_gap_ms"], 1_500.0);
    }
}
