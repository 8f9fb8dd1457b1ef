//! `simulation [SEEDS]`, `simulation --seed N`, `simulation --planted [BUG] [SEEDS]`: see [`HELP`].

use std::{io::Write, process::ExitCode, time::Instant};

use service::planted::Bug;
use simulation::{
    awaits,
    campaign::{self, Found},
    planted, report, run,
};

/// What CI runs.
const SEEDS_DEFAULT: u64 = 2_000;
/// From so many on the goals are asserted: fewer say little.
const GOALS_FROM: u64 = 2_000;
/// Fewest faults of a seed, on average.
const FAULTS_MIN: f64 = 10.0;
/// Lines of a failed seed's trace that a campaign prints.
const LINES_MAX: usize = 60;
/// A line is printed after so many seeds.
const PROGRESS_SEEDS: u64 = 10_000;

/// What `simulation --help` says.
const HELP: &str = "\
Runs the real services over simulated stores, network and clock, and breaks everything it can.

Usage: simulation [SEEDS] [--first N]   this many seeds, on all cores; 2,000 if none is named
       simulation --seed N [BUG]        one seed, with all that happens, and with a planted bug
       simulation --planted [BUG] [SEEDS]  searches the first seed, of 1,000 or so many, that finds each bug, or this one

Exit codes: 0 all is well, 1 what must never happen has happened, 2 what must happen has not, 3 a seed did something else
the second time, 4 too few faults or awaits hit, 64 called wrongly.
";

enum Command {
    Campaign { first: u64, seeds: u64 },
    Seed(u64, Option<Bug>),
    Planted { bugs: Vec<Bug>, seeds: u64 },
    Help,
}

fn parse(arguments: &[String]) -> Option<Command> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.replace([',', '_'], "").parse::<u64>().ok();
    Some(match &*words {
        [] => Command::Campaign { first: 0, seeds: SEEDS_DEFAULT },
        ["--help" | "-h"] => Command::Help,
        ["--seed", seed] => Command::Seed(number(seed)?, None),
        ["--seed", seed, bug] => Command::Seed(number(seed)?, Some(planted::named(bug)?)),
        ["--first", first] => Command::Campaign { first: number(first)?, seeds: SEEDS_DEFAULT },
        [seeds, "--first", first] => Command::Campaign { first: number(first)?, seeds: number(seeds)? },
        ["--planted", rest @ ..] => {
            let all = planted::all;
            let (bugs, rest) = match rest {
                [name, rest @ ..] if number(name).is_none() => (vec![planted::named(name)?], rest),
                rest => (all(), rest),
            };
            let seeds = match rest {
                [] => planted::SEEDS_MAX,
                [seeds] => number(seeds)?,
                _ => return None,
            };
            Command::Planted { bugs, seeds }
        }
        [seeds] => Command::Campaign { first: 0, seeds: number(seeds)? },
        _ => return None,
    })
}

fn say(text: &str) {
    // Whoever does not read on has seen enough.
    let _ = write!(std::io::stdout(), "{text}");
}

fn main() -> ExitCode {
    // An assertion of the product that breaks is told with its seed, once.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Some(Command::Help) => {
            say(HELP);
            ExitCode::SUCCESS
        }
        Some(Command::Campaign { first, seeds }) => run_campaign(first, seeds),
        Some(Command::Seed(seed, bug)) => one(seed, bug, usize::MAX),
        Some(Command::Planted { bugs, seeds }) => search(&bugs, seeds),
        None => {
            let _ = write!(std::io::stderr(), "{HELP}");
            ExitCode::from(64)
        }
    }
}

/// A seed, with all that happens or, if it fails, with the end of it.
fn one(seed: u64, bug: Option<Bug>, lines_max: usize) -> ExitCode {
    let outcome = planted::run(bug, seed, true);
    for line in &outcome.lines[outcome.lines.len().saturating_sub(lines_max)..] {
        say(&format!("  {line}\n"));
    }
    let Some(failed) = &outcome.failed else {
        let (steps, seconds) = (outcome.steps, outcome.lasted.as_secs_f64());
        say(&format!(
            "seed {seed} is well: {steps} steps, {seconds:.1} virtual seconds, trace {:032x}\n",
            outcome.hash
        ));
        return ExitCode::SUCCESS;
    };
    say(&report::failure(&outcome, failed));
    ExitCode::from(outcome.code())
}

fn run_campaign(first: u64, seeds: u64) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "of the machine's time, not the simulated one")]
    let started = Instant::now();
    let run = |seed| run::run(seed, false);
    let found = campaign::run(first, seeds, run, |done| {
        if done % PROGRESS_SEEDS == 0 {
            say(&format!("{done} of {seeds} seeds, {:.0} s\n", started.elapsed().as_secs_f64()));
        }
    });
    let code = found.code();
    let Found { report, failed, differed } = found;
    if let Some(outcome) = failed {
        // Once more, to tell what happened.
        return one(outcome.seed, None, LINES_MAX);
    }
    if let Some(seed) = differed {
        say(&format!("seed {seed} did something else the second time\nagain: just simulate --seed {seed}\n"));
        return ExitCode::from(code);
    }
    say(&format!("{report}{:<32} {:>12.1}\n", "seconds", started.elapsed().as_secs_f64()));
    let mut missed = Vec::new();
    if report.faults_per_seed() < FAULTS_MIN {
        missed.push(format!("fewer than {FAULTS_MIN} faults in a seed"));
    }
    for (kind, place) in report.never_crashed(&awaits::places()) {
        missed.push(format!("{kind:?} was never crashed in {place}"));
    }
    if seeds < GOALS_FROM || missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("missed: {}\n", missed.join("; ")));
    ExitCode::from(4)
}

fn search(bugs: &[Bug], seeds: u64) -> ExitCode {
    let mut missed = false;
    for bug in bugs {
        if let Some((seed, violation)) = planted::search(*bug, seeds) {
            say(&format!("{bug:<24} seed {seed:>5}  {violation}\n", bug = format!("{bug:?}")));
        } else {
            missed = true;
            say(&format!("{bug:?} is not found within {seeds} seeds\n"));
        }
    }
    if missed { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
