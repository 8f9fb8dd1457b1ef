//! What every binary does with its arguments: settings come from the environment, so there are few of them.

use std::{fmt::Display, io::Write, process::ExitCode};

/// Exit code for arguments that are not understood (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_ARGUMENTS: u8 = 64;

/// What a binary is asked to do: one of its `commands`, or `None`, to serve. An exit code when there is nothing left to
/// do, because `--help` or `--version` was answered or something else was refused.
pub fn command(name: &str, help: &str, commands: &[&'static str]) -> Result<Option<&'static str>, ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(argument) = arguments.next() else { return Ok(None) };
    let text = match argument.to_str() {
        Some("--help" | "-h") => help.to_owned(),
        Some("--version" | "-V") => format!("{name} {}\n", env!("CARGO_PKG_VERSION")),
        known => {
            let command = commands.iter().find(|command| Some(**command) == known);
            if let (Some(command), None) = (command, arguments.next()) {
                return Ok(Some(command));
            }
            let taken = [commands, &["--help", "--version"]].concat().join(", ");
            return Err(fail(EXIT_BAD_ARGUMENTS, &format!("{name} takes one argument at most: {taken}")));
        }
    };
    Err(say(&text))
}

/// Says what was asked for.
pub fn succeed(what: &dyn Display) -> ExitCode {
    say(&format!("{what}\n"))
}

fn say(text: &str) -> ExitCode {
    // Nobody reading is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Says on stderr why the process ends. For failures before logging starts and those that a person should see plainly.
pub fn fail(code: u8, why: &dyn Display) -> ExitCode {
    // Nobody reading changes nothing about the exit code.
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::from(code)
}
