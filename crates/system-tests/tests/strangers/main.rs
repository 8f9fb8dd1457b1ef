//! Clients that are many, slow, or mean harm: what they cost, and what the others notice.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

mod attacks;
mod crowd;
mod honest;
mod overload;
mod server;

/// For who reads what a test has measured.
#[expect(clippy::print_stdout, reason = "the test runner shows it")]
fn say(text: &str) {
    println!("{text}");
}
