//! What README.md shows is what happens: its shell commands are run, in order, against a fresh system, and print what it
//! says they print.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use system_tests::{System, system::signal};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// The fenced blocks of a Markdown text: language and content.
fn blocks(markdown: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push((language.to_owned(), content.join("\n")));
        }
    }
    blocks
}

/// What differs from run to run is replaced by its kind.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let is_id = |word: &str| uuid::Uuid::try_parse(word).is_ok() && word.len() == 36;
    let is_time = |word: &str| word.ends_with('Z') && word.contains('T') && word.starts_with("20");
    for line in text.trim().lines() {
        if line.to_ascii_lowercase().starts_with("date: ") {
            masked.push_str("date\n");
            continue;
        }
        let separators = |c: char| !(c.is_ascii_alphanumeric() || "-:.".contains(c));
        let mut rest = line.trim_end();
        while let Some(word) = rest.split(separators).next() {
            let kind = match word.trim_start_matches("urn:uuid:") {
                id if is_id(id) => "<id>",
                time if is_time(time) => "<time>",
                _ => word,
            };
            masked.push_str(kind);
            rest = &rest[word.len()..];
            let Some(separator) = rest.chars().next() else { break };
            masked.push(separator);
            rest = &rest[separator.len_utf8()..];
        }
        masked.push('\n');
    }
    masked
}

#[tokio::test]
async fn the_commands_print_what_the_readme_says() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let system = System::start(&[]).await;
    let ports = [("8080", "HTTP"), ("50051", "order gRPC"), ("50052", "inventory gRPC"), ("9464", "admin")];
    let path = format!("{}:{}", root().join(".tools/bin").display(), std::env::var("PATH").expect("a PATH"));
    let blocks = blocks(&readme);
    let (mut run, mut compared) = (0, 0);
    for (at, (language, script)) in blocks.iter().enumerate() {
        if language != "sh" {
            continue;
        }
        let mut local = script.clone();
        for (port, name) in ports {
            local = local.replace(&format!("127.0.0.1:{port}"), &system.addr(name).to_string());
        }
        let output = Command::new("sh").args(["-ec", &local]).env("PATH", &path).output().await.expect("sh runs");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{script}\n{stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!stdout.is_empty(), "{script} prints nothing");
        run += 1;
        if let Some((_, expected)) = blocks.get(at + 1).filter(|(language, _)| language == "text" || language == "json")
        {
            assert_eq!(masked(&stdout), masked(expected), "{script}");
            compared += 1;
        }
    }
    assert!(run >= 10 && compared >= 4, "{run} blocks were run, {compared} compared");
}

#[tokio::test]
async fn just_up_builds_and_runs_the_system() {
    let data = TempDir::new().expect("a temporary directory");
    let mut command = Command::new("./justw");
    command.arg("up").current_dir(root()).env("DATA_DIR", data.path()).stdout(Stdio::piped()).kill_on_drop(true);
    for name in ["HTTP_ADDR", "ORDER_GRPC_ADDR", "INVENTORY_GRPC_ADDR", "ADMIN_ADDR"] {
        command.env(name, "127.0.0.1:0");
    }
    // What cargo tells a test about its package. Build scripts look at some of it: with them, all would be built anew.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MAN"))
    {
        command.env_remove(name);
    }
    let mut child = command.process_group(0).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let announced = async {
        loop {
            let line = lines.next_line().await.expect("UTF-8").expect("a command to try");
            if let Some(command) = line.trim().strip_prefix("curl ") {
                break format!("curl -s {command}");
            }
        }
    };
    let command = tokio::time::timeout(Duration::from_mins(5), announced).await.expect("it is ready");
    let output = Command::new("sh").args(["-ec", &command]).output().await.expect("sh runs");
    let answer = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    // Ctrl-C goes to the whole group, as from a terminal.
    signal("INT", &format!("-{}", child.id().expect("it runs")));
    tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("it stops").expect("a status");
    assert!(data.path().join("ledger.db").exists());
}
