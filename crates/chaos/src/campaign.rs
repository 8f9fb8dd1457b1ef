//! A run: the system under load, one fault after the other, rest, and what came of it.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use service::manual::Dice;
use tokio::time::sleep;

use crate::calls::Caller;
use crate::faults::Kind;
use crate::history::{Event, Phase};
use crate::kept;
use crate::load::{HOLD_SECONDS, Load, Mix};
use crate::record::Recorder;
use crate::report::say;
use crate::schedule::Schedule;
use crate::system::{System, TTL};
use crate::tally::{Asked, Tally, longest_gap};

/// Orders are placed at all within this.
const WARM_UP_LIMIT: Duration = Duration::from_secs(30);
const WARM_UP_ORDERS: usize = 100;
/// A run of a minute or more has so many faults at least.
pub const FAULTS_MIN: usize = 8;
/// Between two steps, in milliseconds.
const CALM_MS: u64 = 1_000;
/// Everything adds up so soon after the last hold is due (I10).
const REST: Duration = Duration::from_secs(5);
/// Orders that do not come again within this never will: the run goes on, and has failed.
const GIVE_UP: Duration = Duration::from_secs(30);

/// One fault, or two at once, and how the clients fared.
#[derive(Debug, Clone)]
pub struct Step {
    /// What was done.
    pub kinds: Vec<Kind>,
    /// The longest time without an order, from its begin until orders of every item were placed again.
    pub gap: Duration,
    /// From its end until then. `None`: never.
    pub recovery: Option<Duration>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every step.
    pub steps: Vec<Step>,
    /// Every call.
    pub asked: Vec<Asked>,
    /// How long faults were begun.
    pub took: Duration,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// Begins faults for so long. The seed decides on them, and on what the clients want.
pub async fn run(caller: &Caller, length: Duration, seed: u64, system: &System) -> Outcome {
    let (recorder, tally) = (&caller.recorder, &caller.tally);
    let first = tally.mark();
    let load = Load::start(caller.clone(), Mix::Everything, seed).await;
    let mut outcome = Outcome::default();
    if !tally.orders(WARM_UP_ORDERS, WARM_UP_LIMIT).await {
        outcome.wrong.push(format!("no {WARM_UP_ORDERS} orders within {WARM_UP_LIMIT:?} before any fault"));
    }
    let (mut schedule, mut dice) = (Schedule::new(seed), Dice::new(!seed));
    let begin = Instant::now();
    // A busy machine may need longer for the least that there must be.
    let is_slow = |steps: &[Step]| steps.len() < FAULTS_MIN && begin.elapsed() < 2 * length;
    while begin.elapsed() < length || is_slow(&outcome.steps) {
        let step = step(&schedule.step(), system, recorder, tally, &mut dice, &mut outcome.wrong).await;
        outcome.steps.push(step);
        sleep(Duration::from_millis(CALM_MS / 2 + dice.below(CALM_MS))).await;
    }
    outcome.took = begin.elapsed();
    load.stop().await;
    outcome.asked = tally.since(first);
    outcome
}

/// Waits until everything must add up, and keeps what the judge reads.
pub async fn rest(recorder: &Recorder, system: &System, directory: &Path) -> std::io::Result<()> {
    system.replica_follows().await;
    sleep(TTL.max(Duration::from_secs(HOLD_SECONDS)) + REST).await;
    recorder.write(|at| Event::Rest { at });
    recorder.end()?;
    kept::keep(system, directory).await
}

async fn step(
    kinds: &[Kind],
    system: &System,
    recorder: &Recorder,
    tally: &Tally,
    dice: &mut Dice,
    wrong: &mut Vec<String>,
) -> Step {
    let (begin, mark) = (Instant::now(), tally.mark());
    let seeds: Vec<u64> = kinds.iter().map(|_| dice.below(u64::MAX)).collect();
    let faults = kinds.iter().zip(seeds).map(|(kind, seed)| async move {
        recorder.fault(kind.name, Phase::Begin);
        let hit = kind.inflict(system, &mut Dice::new(seed)).await;
        recorder.fault(kind.name, Phase::End);
        (format!("{} {}", kind.name, hit.what).trim_end().to_owned(), hit.leaves_orders_going)
    });
    let (hits, going): (Vec<_>, Vec<_>) = join_all(faults).await.into_iter().unzip();
    let end = Instant::now();
    let recovery = tally.orders_again(GIVE_UP).await;
    for kind in kinds.iter().filter(|_| recovery.is_some()) {
        recorder.fault(kind.name, Phase::Healed);
    }
    let gap = longest_gap(&tally.since(mark), begin, Instant::now());
    let told = hits.join(" and ");
    let at = recorder.begin().elapsed().as_secs_f64();
    say(&format!(
        "{at:8.1} s  {told}: lasted {:.1?}, no order for {gap:.2?}, orders again {}",
        end - begin,
        recovery.map_or_else(|| "never".to_owned(), |after| format!("after {after:.2?}"))
    ));
    let limit = kinds.iter().map(|kind| kind.recovery_limit()).max().expect("there is one");
    if recovery.is_none_or(|recovery| recovery > limit) {
        wrong.push(format!("{at:.1} s, {told}: orders again after {recovery:.2?}, and not within {limit:?}"));
    }
    if going == [true] && gap > limit {
        wrong.push(format!("{at:.1} s, {told}: no order for {gap:.2?}, although another one was there"));
    }
    Step { kinds: kinds.to_vec(), gap, recovery }
}
