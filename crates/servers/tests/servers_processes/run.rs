//! `servers run` gives its command the servers and its exit code back, and however it ends, nothing outlives it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crate::leftovers::{SharedMemory, processes_in, shared_memory_of, until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// A run whose command tells its environment, waits for a line and fails with code 3.
struct Run {
    runner: Child,
    /// Kept from the runner, which would be waited for with its input closed: then the command ends by itself.
    input: ChildStdin,
    /// Holds the servers' directories, and is the command's working directory.
    folder: TempDir,
    memory: SharedMemory,
    told: String,
}

impl Run {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The servers run as another user, who must be able to pass.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut runner = Command::new(env!("CARGO_BIN_EXE_servers"));
        let command = "echo $TEST_POSTGRES_URL $TEST_RABBITMQ_URL $TEST_RABBITMQ_DIRECTORY; read line; exit 3";
        runner.args(["run", "--", "sh", "-c", command]).current_dir(folder.path()).env("TMPDIR", folder.path());
        let mut runner = runner.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let input = runner.stdin.take().unwrap();
        let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
        let told = timeout(Duration::from_mins(3), lines.next_line()).await.expect("it starts").unwrap().unwrap();
        let named = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("servers-postgres-");
        let postgres = std::fs::read_dir(folder.path()).unwrap().flatten().find(named).unwrap().path();
        let memory = shared_memory_of(&postgres.join("data"));
        assert!(memory.is_there());
        Self { runner, input, folder, memory, told }
    }

    fn send(&self, signal: Signal) {
        let process = Pid::from_raw(self.runner.id().unwrap().cast_signed()).unwrap();
        kill_process(process, signal).unwrap();
    }

    async fn end(&mut self) -> ExitStatus {
        timeout(Duration::from_secs(30), self.runner.wait()).await.expect("it ends").unwrap()
    }

    async fn nothing_runs(&self) {
        until(async || processes_in(self.folder.path()).is_empty()).await;
        assert!(!self.memory.is_there());
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.path()).collect()
    }
}

#[tokio::test]
async fn the_command_has_the_servers_and_gives_its_exit_code() {
    let mut run = Run::start().await;
    let told: Vec<&str> = run.told.split(' ').collect();
    let [postgres, rabbitmq, directory] = told[..] else { panic!("{told:?}") };
    assert!(postgres.starts_with("postgres://postgres@127.0.0.1:"), "{postgres}");
    assert!(rabbitmq.starts_with("amqp://guest:guest@127.0.0.1:"), "{rabbitmq}");
    assert!(PathBuf::from(directory).is_dir());
    run.input.write_all(b"\n").await.unwrap();
    assert_eq!(run.end().await.code(), Some(3));
    run.nothing_runs().await;
    assert_eq!(run.files(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_stopped_run_leaves_nothing() {
    let mut run = Run::start().await;
    run.send(Signal::TERM);
    assert_eq!(run.end().await.code(), Some(130));
    run.nothing_runs().await;
    assert_eq!(run.files(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_killed_run_leaves_no_process() {
    let mut run = Run::start().await;
    run.send(Signal::KILL);
    run.end().await;
    run.nothing_runs().await;
}
