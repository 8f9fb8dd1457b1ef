//! What every binary does with its arguments: settings come from the environment, so there are only two of them.

use std::{fmt::Display, io::Write, process::ExitCode};

/// Exit code for arguments that are not understood (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_ARGUMENTS: u8 = 64;

/// Answers `--help` and `--version`, and refuses everything else. `None` when there are no arguments: go on.
pub fn answer(name: &str, help: &str) -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    let text = match argument.to_str() {
        Some("--help" | "-h") => help.to_owned(),
        Some("--version" | "-V") => format!("{name} {}\n", env!("CARGO_PKG_VERSION")),
        _ => {
            let why = format!("{name} takes no arguments but --help and --version");
            return Some(fail(EXIT_BAD_ARGUMENTS, &why));
        }
    };
    // Nobody reading is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Some(ExitCode::SUCCESS)
}

/// Says on stderr why the process ends. For failures before logging starts and those that a person should see plainly.
pub fn fail(code: u8, why: &dyn Display) -> ExitCode {
    // Nobody reading changes nothing about the exit code.
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::from(code)
}
