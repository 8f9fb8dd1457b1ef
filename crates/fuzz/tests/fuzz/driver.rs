//! Runs a target: first over its corpus, then over made-up input.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use crate::corpus;

/// Inputs made in a run without `FUZZ_SECONDS`: always the same ones, for a check must not fail by luck.
const CASES_DEFAULT: u32 = 1_000;
/// Inputs made from one seed.
const BATCH_CASES: u32 = 250;
/// Most steps that make a bad input smaller.
const SHRINK_STEPS_MAX: u32 = 5_000;
/// Most edits of one input.
const EDITS_MAX: usize = 6;

/// What a target says of an input.
pub type Verdict = Result<(), TestCaseError>;
/// Makes inputs.
pub type Inputs = BoxedStrategy<Vec<u8>>;

/// Tries every kept input and then new ones: `made`, kept ones, and both of them edited. What fails is made small and
/// kept.
#[expect(clippy::print_stdout, reason = "whoever asked for so many seconds is told what they were used for")]
pub fn run(target: &str, made: impl Strategy<Value = Vec<u8>> + 'static, check: impl Fn(&[u8]) -> Verdict) {
    let kept = corpus::read(target);
    replay(target, &kept, &check);
    let inputs = edited(prop_oneof![4 => made.boxed(), 1 => select(kept).boxed()].boxed());

    let number = |name| env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")));
    let time: Option<Duration> = number("FUZZ_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    let first = number("FUZZ_SEED").unwrap_or(if time.is_some() { new_seed() } else { 0 });
    let (mut seed, mut cases) = (first, 0);
    while time.map_or(cases < CASES_DEFAULT, |time| start.elapsed() < time) {
        batch(target, seed, &inputs, &check);
        seed = seed.wrapping_add(1);
        cases += BATCH_CASES;
    }
    let rate = f64::from(cases) / start.elapsed().as_secs_f64();
    println!("{target}: {cases} inputs from seed {first} on, {rate:.0} a second, all good");
}

fn replay(target: &str, kept: &[Vec<u8>], check: &impl Fn(&[u8]) -> Verdict) {
    assert!(!kept.is_empty(), "{target} has a corpus");
    let mut bad = Vec::new();
    for input in kept {
        let verdict = catch_unwind(AssertUnwindSafe(|| check(input)));
        match verdict {
            Ok(Ok(())) => {}
            Ok(Err(e)) => bad.push(format!("{}\n  {e}", corpus::encode(input))),
            Err(_) => bad.push(format!("{}\n  it panicked", corpus::encode(input))),
        }
    }
    assert!(bad.is_empty(), "of the corpus of {target}:\n{}", bad.join("\n"));
}

fn batch(target: &str, seed: u64, inputs: &Inputs, check: &impl Fn(&[u8]) -> Verdict) {
    let config = Config {
        cases: BATCH_CASES,
        max_shrink_iters: SHRINK_STEPS_MAX,
        failure_persistence: None, // the corpus keeps the input itself, which stays when the strategies change
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    match runner.run(inputs, |input| check(&input)) {
        Ok(()) => {}
        Err(TestError::Fail(why, input)) => {
            let (line, kept) = (corpus::encode(&input), corpus::keep(target, &input));
            panic!("{target} fails: {why}\n  input: {line}\n  {kept}\n  found from FUZZ_SEED={seed}");
        }
        Err(TestError::Abort(why)) => panic!("{target}: {why}"),
    }
}

/// One of these.
pub fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(str::to_owned)
}

/// Another one each time; the run tells it.
fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Half of them as they are, half with a few edits.
fn edited(inputs: Inputs) -> Inputs {
    prop_oneof![
        inputs.clone(),
        (inputs, vec(edit(), 1..=EDITS_MAX))
            .prop_map(|(input, edits)| { edits.into_iter().fold(input, |input, edit| edit.apply(input)) })
    ]
    .boxed()
}

/// A small change at some place.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, Vec<u8>),
    Replace(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
}

impl Edit {
    fn apply(self, mut input: Vec<u8>) -> Vec<u8> {
        let range = |at: Index, length: usize| {
            let from = at.index(input.len() + 1);
            from..(from + length).min(input.len())
        };
        match self {
            Self::Insert(at, bytes) => drop(input.splice(range(at, 0), bytes)),
            Self::Replace(at, bytes) => drop(input.splice(range(at, bytes.len()), bytes)),
            Self::Remove(at, length) => drop(input.drain(range(at, length))),
            Self::Repeat(at, length, times) => {
                let range = range(at, length);
                let again = input[range.clone()].repeat(times);
                drop(input.splice(range.end..range.end, again));
            }
        }
        input
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), piece()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), piece()).prop_map(|(at, bytes)| Edit::Replace(at, bytes)),
        (at(), 1..8_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (at(), 1..24_usize, 1..20_usize).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
    ]
}

/// Bytes that mean something to some parser.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known: &[&str] = &[
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "/",
        "%",
        "%2f",
        "%2F",
        "%25",
        "%2e",
        "%00",
        "%c3%a9",
        "%C0%AF",
        "%ed%a0%80",
        "+",
        "&",
        "=",
        "?",
        "#",
        ".",
        "..",
        ";",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "\u{7f}",
        "\u{e9}",
        "\u{301}",
        "\u{1fbe}",
        "\u{2028}",
        "\u{202e}",
        "\u{feff}",
        "\u{1f600}",
        "\\u0000",
        "\\ud800",
        "\\u0041",
        "-",
        "-0",
        "0",
        "1",
        "1.0",
        "1e0",
        "1e999",
        "9223372036854775808",
        "null",
        "true",
        "\"item\":",
        "\"x\":",
        "http://",
        "@",
        "~1",
        "~0",
    ];
    prop_oneof![
        3 => select(known).prop_map(|text| text.as_bytes().to_vec()),
        2 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
    ]
}
