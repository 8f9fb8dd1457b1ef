//! The command, as far as it starts no server.

use std::process::Command;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos")).args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_it_does_not_understand_it_does_not_do() {
    let wrong: [&[&str]; 7] = [
        &["--help"],
        &["--minutes"],
        &["--minutes", "0"],
        &["--minutes", "x"],
        &["--figures", "some"],
        &["--seed", "-1"],
        &["--check"],
    ];
    for arguments in wrong {
        let (code, told) = run(arguments);
        assert_eq!(code, Some(64), "{arguments:?}");
        assert!(told.starts_with("usage: chaos "), "{arguments:?}: {told}");
    }
}

/// One order of two units was answered, and the ledger has another one, of three.
const HISTORY: &str = r#"{"kind":"invoke","at":1,"client":0,"call":0,"op":"order","item":"widget","quantity":2}
{"kind":"ok","at":2,"call":0,"status":201,"order":"00000000-0000-8000-8000-000000000001","item":"widget","quantity":2,"replayed":false}
{"kind":"rest","at":3}
"#;
const STORES: &str = r#"{"initial":1,"hold_micros":1,"restocks":[],"outbox":[],"items":[],"stray":[],"waiting":0,
    "dead_letters":0,"handled":null,"leases":[["widget",1,1,3]],"verdicts":[["00000000-0000-8000-8000-000000000002",
    true,"widget",3,1,1,"attempt:1",0]]}"#;

#[test]
fn a_kept_run_is_judged_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    assert_eq!(run(&["--check", path]).0, Some(1), "there is nothing");
    std::fs::write(directory.path().join("history.jsonl"), HISTORY).expect("written");
    std::fs::write(directory.path().join("stores.json"), STORES).expect("written");
    let (code, told) = run(&["--check", path]);
    assert_eq!(code, Some(1), "{told}");
    for broken in ["I3: never sold more than received: BROKEN", "I9: what was answered stands: BROKEN"] {
        assert!(told.contains(broken), "{broken}: {told}");
    }
    assert!(told.contains("nothing to judge by: I12"), "{told}");
}
