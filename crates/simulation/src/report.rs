//! What a campaign did, in figures, and what went wrong, with all that is needed to see it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    process::Command,
    time::Duration,
};

use crate::{
    executor::Kind,
    oracle::Outcomes,
    run::{Failed, Outcome},
};

/// Sums over all seeds.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds that were run.
    pub seeds: u64,
    /// Of those, how many a second time.
    pub twice: u64,
    /// Polls.
    pub steps: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// What all threads together have had of a core.
    pub computed: Duration,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each kind of task was crashed in each await.
    pub crashed: BTreeMap<(Kind, &'static str), u64>,
    /// By how they ended.
    pub orders: Outcomes,
}

fn add<K: Ord + Clone>(sums: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *sums.entry(key.clone()).or_default() += count;
    }
}

impl Report {
    /// Counts a seed in.
    pub fn add(&mut self, outcome: &Outcome, twice: bool) {
        self.seeds += 1;
        self.twice += u64::from(twice);
        self.steps += outcome.steps;
        self.lasted += outcome.lasted;
        add(&mut self.faults, &outcome.faults);
        add(&mut self.crashed, &outcome.crashed);
        add(&mut self.orders, &outcome.orders);
    }

    /// Faults of one seed, on average.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn faults_per_seed(&self) -> f64 {
        self.faults.values().sum::<u64>() as f64 / self.seeds.max(1) as f64
    }

    /// Time of one core that a seed takes, on average.
    pub fn computed_per_seed(&self) -> Duration {
        self.computed / u32::try_from((self.seeds + self.twice).max(1)).unwrap_or(u32::MAX)
    }

    /// Awaits of the parts that matter where nothing was ever crashed.
    pub fn never_crashed(&self, awaits: &[(Kind, &'static str)]) -> BTreeSet<(Kind, &'static str)> {
        awaits.iter().filter(|place| !self.crashed.contains_key(place)).copied().collect()
    }
}

impl fmt::Display for Report {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.seeds.max(1) as f64;
        writeln!(f, "{:<32} {:>12} {:>10}", "", "in all", "per seed")?;
        let mut row = |name: &str, count: u64| writeln!(f, "{name:<32} {count:>12} {:>10.2}", count as f64 / seeds);
        row("seeds", self.seeds)?;
        row("  run twice, with the same trace", self.twice)?;
        row("steps", self.steps)?;
        row("orders asked for, by answer", self.orders.values().sum())?;
        for (answer, count) in &self.orders {
            row(&format!("  {answer}"), *count)?;
        }
        row("faults", self.faults.values().sum())?;
        for (fault, count) in &self.faults {
            row(&format!("  {fault}"), *count)?;
        }
        row("tasks crashed in an await", self.crashed.values().sum())?;
        writeln!(f, "{:<32} {:>12}", "  different awaits", self.crashed.len())?;
        writeln!(f, "{:<32} {:>12.1}", "virtual hours", self.lasted.as_secs_f64() / 3600.0)?;
        let per_seed = self.computed_per_seed().as_secs_f64();
        writeln!(f, "{:<32} {:>12.1} {:>10.4}", "seconds of one core", self.computed.as_secs_f64(), per_seed)
    }
}

/// What went wrong, and all that is needed to see it again.
pub fn failure(outcome: &Outcome, failed: &Failed) -> String {
    let mut text = String::new();
    let seed = outcome.seed;
    let _ = writeln!(text, "\n{:?} is violated", failed.promise);
    let _ = writeln!(text, "  seed    {seed}, commit {}", commit());
    let _ = writeln!(text, "  after   {:.6} s, {} steps", outcome.lasted.as_secs_f64(), outcome.steps);
    let _ = writeln!(text, "  {}", failed.violation);
    let _ = writeln!(text, "again: just simulate --seed {seed}");
    text
}

/// Of the sources that this runs in.
fn commit() -> String {
    let out = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let out = out.ok().filter(|out| out.status.success());
    out.map_or_else(|| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
