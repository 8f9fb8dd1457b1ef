//! `chaos`: breaks the real system under load for so long, and judges what the clients were told.
#![expect(clippy::disallowed_methods, reason = "a seed of its own for each run")]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaos::calls::Caller;
use chaos::campaign::{self, Outcome};
use chaos::checker::check;
use chaos::figures::{self, Extent};
use chaos::kept;
use chaos::record::Recorder;
use chaos::report::{self, say};
use chaos::system::System;

/// The exit code for arguments that are not understood (`EX_USAGE` of sysexits.h).
const MISUSED: u8 = 64;
const USAGE: &str = "\
usage: chaos [--minutes N] [--figures long|short] [--seed S] [--directory D]
       chaos --check DIRECTORY…    judge runs that were kept

  --minutes N             begin faults for so long, 0.1..1440              [default: 1, beside --figures none]
  --figures long|short    measure what is promised, before any other fault
  --seed S                which faults, and what the clients want          [default: another one each time]
  --directory D           for history, stores and logs, kept when something was wrong
                                                                           [default: among the temporary files]

Exit codes: 0 nothing was wrong, 1 something was, 64 called wrongly.";
const MINUTES: std::ops::RangeInclusive<f64> = 0.1..=1_440.0;
/// The run of a night has
const NIGHT: Duration = Duration::from_hours(1);
/// so many in all,
const NIGHT_FAULTS_MIN: usize = 400;
/// so many of each kind,
const NIGHT_FAULTS_OF_KIND_MIN: usize = 10;
/// and so many orders.
const NIGHT_ORDERS_MIN: usize = 500_000;

struct Plan {
    length: Option<Duration>,
    figures: Option<Extent>,
    seed: u64,
    directory: PathBuf,
}

// The servers end with the thread that started them: the main one.
#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_well = match &*arguments {
        [first, directories @ ..] if first == "--check" && !directories.is_empty() => {
            let judged = directories.iter().map(|directory| judge(Path::new(directory)));
            judged.reduce(|all, one| Ok(all? & one?)).unwrap_or(Ok(true))
        }
        _ => {
            let Some(plan) = plan(&arguments) else {
                say(USAGE);
                return ExitCode::from(MISUSED);
            };
            run(&plan).await
        }
    };
    match is_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let (mut length, mut figures, mut directory) = (None, None, None);
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match (name.as_str(), value.as_str()) {
            ("--minutes", value) => {
                let minutes: f64 = value.parse().ok().filter(|minutes| MINUTES.contains(minutes))?;
                length = Some(Duration::from_secs_f64(60.0 * minutes));
            }
            ("--figures", "long") => figures = Some(Extent::LONG),
            ("--figures", "short") => figures = Some(Extent::SHORT),
            ("--seed", value) => seed = value.parse().ok()?,
            ("--directory", value) => directory = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    if figures.is_none() {
        length.get_or_insert(Duration::from_mins(1));
    }
    let named = || std::env::temp_dir().join(format!("chaos-{seed}-{}", std::process::id()));
    Some(Plan { length, figures, seed, directory: directory.unwrap_or_else(named) })
}

async fn run(plan: &Plan) -> io::Result<bool> {
    fs::create_dir_all(&plan.directory)?;
    fs::set_permissions(&plan.directory, Permissions::from_mode(0o700))?;
    let kept = plan.directory.display();
    say(&format!("seed {}, history in {kept}", plan.seed));
    service::open_files::raise_limit();
    let system = System::start(&plan.directory).await;
    let recorder = Arc::new(Recorder::create(&kept::history(&plan.directory))?);
    let caller = Caller::new(system.http(), system.edges, Arc::clone(&recorder));
    let mut wrong = Vec::new();
    let mut measured = Vec::new();
    if let Some(extent) = plan.figures {
        // Other wishes than the campaign's.
        measured = figures::measure(&caller, extent, &system, !plan.seed).await;
        wrong.extend(measured.iter().filter(|figure| !figure.is_met).map(|figure| format!("{figure:?}")));
    }
    let mut outcome = None;
    if let Some(length) = plan.length {
        let begun = campaign::run(&caller, length, plan.seed, &system).await;
        wrong.extend(begun.wrong.iter().cloned().chain(too_few(length, &begun)));
        outcome = Some(begun);
    }
    campaign::rest(&recorder, &system, &plan.directory).await?;

    say("");
    report::figures(&measured);
    if let Some(outcome) = &outcome {
        report::faults(outcome);
        report::answers(outcome);
    }
    let is_well = judge(&plan.directory)? && wrong.is_empty();
    for wrong in &wrong {
        say(&format!("WRONG: {wrong}"));
    }
    if is_well {
        fs::remove_dir_all(&plan.directory)?;
        say(&format!("nothing was wrong with seed {}", plan.seed));
    } else {
        system.keep_logs();
        say(&format!("something was wrong with seed {}: history, stores and logs are kept in {kept}", plan.seed));
    }
    Ok(is_well)
}

/// Judges the run that is kept in this directory.
fn judge(directory: &Path) -> io::Result<bool> {
    let report = check(&kept::read(directory)?);
    say(report.to_string().trim_end());
    let blind = report.0.iter().filter(|(_, found)| found.looked_at == 0);
    let blind: Vec<_> = blind.map(|(rule, _)| rule.name()).collect();
    for rule in &blind {
        say(&format!("WRONG: nothing to judge by: {rule}"));
    }
    Ok(report.is_clean() && blind.is_empty())
}

/// A run that did too little proves nothing.
fn too_few(length: Duration, outcome: &Outcome) -> Vec<String> {
    let counts = report::count(outcome);
    let mut limits = Vec::new();
    if length >= Duration::from_mins(1) {
        limits.push(("faults", counts.values().sum(), campaign::FAULTS_MIN));
    }
    if length >= NIGHT {
        limits.push(("faults", counts.values().sum(), NIGHT_FAULTS_MIN));
        limits.push(("orders", report::orders(outcome), NIGHT_ORDERS_MIN));
        limits.extend(counts.into_iter().map(|(kind, count)| (kind, count, NIGHT_FAULTS_OF_KIND_MIN)));
    }
    let missed = limits.into_iter().filter(|(_, count, least)| count < least);
    missed.map(|(what, count, least)| format!("{count} {what}, and not {least}")).collect()
}
