use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use tempfile::TempDir;

/// The user and the group `nobody` of Debian and Ubuntu.
const NOBODY: u32 = 65_534;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A server's directory, which belongs to the user that the server runs as.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // Removed with this value; a kept directory has none.
    _temporary: Option<TempDir>,
}

impl Directory {
    pub fn make(server: &str) -> Self {
        let made = tempfile::Builder::new().prefix(&format!("servers-{server}-")).tempdir();
        let made = made.unwrap_or_else(|error| panic!("no temporary directory for {server}: {error}"));
        hand_over(made.path());
        Self { path: made.path().to_owned(), _temporary: Some(made) }
    }

    /// One that stays, with what is in it.
    pub fn keep(path: PathBuf) -> Self {
        let made = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)));
        made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        hand_over(&path);
        Self { path, _temporary: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that its owner may write and nobody else may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        let written = std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        hand_over(&path);
        path
    }
}

fn hand_over(path: &Path) {
    if geteuid().is_root() {
        let done = chown(path, Some(NOBODY), Some(NOBODY));
        done.unwrap_or_else(|error| panic!("cannot give {} to nobody: {error}", path.display()));
    }
}

/// Finds the program in the folders where Debian and Ubuntu put it.
pub fn find(name: &str, package: &str) -> PathBuf {
    let beside = PATH.split(':').map(PathBuf::from);
    let folders = postgres_folders().into_iter().chain([PathBuf::from("/usr/lib/rabbitmq/bin")]).chain(beside);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("this machine lacks {name}, of the package {package}: run `just servers`"))
}

/// The folders of the installed Postgres versions, newest first.
fn postgres_folders() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> = versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

/// A command that runs as `nobody` when this process is root, in an environment of its own, and that is sent
/// `death_signal` when the thread that starts it ends.
pub fn unprivileged(program: &Path, directory: &Path, death_signal: &str) -> Command {
    let root = geteuid().is_root();
    let nobody = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
    mortal(program, directory, death_signal, if root { &nobody } else { &[] })
}

/// The same as the user of this process.
pub fn as_caller(program: &Path, directory: &Path, death_signal: &str) -> Command {
    mortal(program, directory, death_signal, &[])
}

fn mortal(program: &Path, directory: &Path, death_signal: &str, user: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", death_signal]).args(user);
    command.arg(program).current_dir(directory).stdin(Stdio::null()).env_clear();
    command.envs([("PATH", PATH), ("LC_ALL", "C.UTF-8")]).env("HOME", directory).env("TMPDIR", directory);
    command
}

/// Runs the command to its end and gives what it printed to standard output, without the last line's end.
pub async fn output(command: Command) -> String {
    let described = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("cannot run {described} (of util-linux?): {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{described}: {}\n{complaint}\n{printed}", output.status);
    printed
}
