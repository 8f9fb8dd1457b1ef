//! `chaos`: breaks the real system under load for so long, and judges what the clients were told.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaos::campaign::{Outcome, Plan, run};
use chaos::checker::check;
use chaos::kept;
use chaos::report::{self, say};
use chaos::system::System;

/// The exit code for arguments that are not understood (`EX_USAGE` of sysexits.h).
const MISUSED: u8 = 64;
const USAGE: &str = "\
usage: chaos [--minutes N] [--seed S] [--directory D]
       chaos --check DIRECTORY…    judge runs that were kept

  --minutes N     how long faults are begun, 0.1..1440                     [default: 1]
  --seed S        which faults, and what the clients want                  [default: another one each time]
  --directory D   for history and logs, kept when something was wrong      [default: in the folder for temporary files]

Exit codes: 0 nothing was wrong, 1 something was, 64 called wrongly.";
const MINUTES: std::ops::RangeInclusive<f64> = 0.1..=1_440.0;
/// A minute has so many faults at least,
const FAULTS_A_MINUTE_MIN: usize = 8;
/// and the run of a night
const NIGHT: Duration = Duration::from_mins(60);
/// so many in all,
const NIGHT_FAULTS_MIN: usize = 400;
/// so many of each kind,
const NIGHT_FAULTS_OF_KIND_MIN: usize = 10;
/// and so many orders.
const NIGHT_ORDERS_MIN: usize = 500_000;

// The servers end with the thread that started them: the main one.
#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, directories @ ..] = &*arguments
        && first == "--check"
        && !directories.is_empty()
    {
        let judged = directories.iter().map(|directory| judge(Path::new(directory)));
        return exit_code(judged.reduce(|all, one| Ok(all? & one?)).unwrap_or(Ok(true)));
    }
    let Some(plan) = plan(&arguments) else {
        say(USAGE);
        return ExitCode::from(MISUSED);
    };
    service::open_files::raise_limit();
    exit_code(campaign(&plan).await)
}

fn exit_code(is_well: io::Result<bool>) -> ExitCode {
    match is_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Judges the run that is kept in this directory.
fn judge(directory: &Path) -> io::Result<bool> {
    let report = check(&kept::read(directory)?);
    say(report.to_string().trim_end());
    Ok(report.is_clean())
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let mut length = Duration::from_mins(1);
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let mut directory = None;
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--minutes" => {
                let minutes = value.parse().ok().filter(|minutes| MINUTES.contains(minutes))?;
                length = Duration::from_secs_f64(60.0 * minutes);
            }
            "--seed" => seed = value.parse().ok()?,
            "--directory" => directory = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    let directory =
        directory.unwrap_or_else(|| std::env::temp_dir().join(format!("chaos-{seed}-{}", std::process::id())));
    Some(Plan { length, seed, directory })
}

async fn campaign(plan: &Plan) -> io::Result<bool> {
    fs::create_dir_all(&plan.directory)?;
    fs::set_permissions(&plan.directory, Permissions::from_mode(0o700))?;
    say(&format!("seed {}, history in {}", plan.seed, plan.directory.display()));
    let system = System::start(&plan.directory).await;
    let mut outcome = run(plan, &system).await?;
    too_few(plan, &mut outcome);
    say("");
    report::faults(&outcome);
    report::answers(&outcome);
    say("");
    let is_well = judge(&plan.directory)? && outcome.wrong.is_empty();
    for wrong in &outcome.wrong {
        say(&format!("WRONG: {wrong}"));
    }
    if is_well {
        fs::remove_dir_all(&plan.directory)?;
        say("nothing was wrong");
    } else {
        system.keep_logs();
        say(&format!(
            "{} things were wrong with seed {}: see {}",
            outcome.wrong.len(),
            plan.seed,
            plan.directory.display()
        ));
    }
    Ok(is_well)
}

/// A run that did too little proves nothing.
fn too_few(plan: &Plan, outcome: &mut Outcome) {
    let counts = report::count(outcome);
    let (faults, orders) = (counts.values().sum::<usize>(), report::orders(outcome));
    let mut least = |what: &str, got: usize, least: usize| {
        if got < least {
            outcome.wrong.push(format!("{got} {what}, and not {least}"));
        }
    };
    if plan.length >= Duration::from_mins(1) {
        least("faults", faults, FAULTS_A_MINUTE_MIN);
    }
    if plan.length >= NIGHT {
        least("faults", faults, NIGHT_FAULTS_MIN);
        least("orders", orders, NIGHT_ORDERS_MIN);
        for (kind, count) in counts {
            least(kind, count, NIGHT_FAULTS_OF_KIND_MIN);
        }
    }
}
