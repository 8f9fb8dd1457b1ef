//! What is kept of each target's input: `corpus/TARGET.txt`, one input a line, a line that begins with `#` says why.
//! `\xNN` stands for a byte and `\\` for a backslash; every other character stands for itself.

use std::{fmt::Write as _, fs, io::Write as _, path::PathBuf};

fn path(target: &str) -> PathBuf {
    // Read at run time, so that a test binary can be pointed at another copy of the repository.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(here).join("corpus").join(format!("{target}.txt"))
}

/// All of a target's kept inputs.
pub fn read(target: &str) -> Vec<Vec<u8>> {
    let path = path(target);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| decode(line).unwrap_or_else(|| panic!("{}: a bad escape in {line}", path.display()))).collect()
}

/// Keeps one more, and says where.
pub fn keep(target: &str, input: &[u8]) -> String {
    let path = path(target);
    let kept = fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| writeln!(file, "{}", encode(input)));
    match kept {
        Ok(()) => format!("kept in {}: commit it with the mend", path.display()),
        Err(e) => format!("not kept, add it to {}: {e}", path.display()),
    }
}

/// As a line.
pub fn encode(input: &[u8]) -> String {
    let mut line = String::with_capacity(input.len());
    for (index, byte) in input.iter().enumerate() {
        let at_an_end = index == 0 || index + 1 == input.len();
        match byte {
            b'\\' => line.push_str("\\\\"),
            b' ' | b'#' if at_an_end => hex(&mut line, *byte),
            b' '..=b'~' => line.push(char::from(*byte)),
            other => hex(&mut line, *other),
        }
    }
    line
}

fn hex(line: &mut String, byte: u8) {
    write!(line, "\\x{byte:02x}").expect("a String takes it");
}

fn decode(line: &str) -> Option<Vec<u8>> {
    let mut input = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                input.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                input.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                tail
            }
            (b'\\', _) => return None,
            (byte, tail) => {
                input.push(*byte);
                tail
            }
        };
    }
    Some(input)
}

#[test]
fn an_input_is_kept_as_it_is() {
    let all: Vec<u8> = (0..=255).collect();
    for input in [&all[..], b"", b" a ", b"# no comment", "caf\u{e9}".as_bytes(), b"\\x41"] {
        let line = encode(input);
        assert!(!line.starts_with('#') && !line.ends_with(' ') && line.is_ascii(), "{line}");
        assert_eq!(decode(&line).as_deref(), Some(input));
    }
    assert_eq!(decode("caf\u{e9} \\x41").as_deref(), Some("caf\u{e9} A".as_bytes()));
    assert_eq!([decode("\\"), decode("\\x4"), decode("\\n")], [None, None, None]);
}
