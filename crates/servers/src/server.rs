use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, wait};

use crate::programs::{Directory, unprivileged};

/// How often a server that starts or ends is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long a server may take to end; one that was killed needs a moment only.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long a server may take that first finishes what it has begun.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// How soon a server that ended is looked for, and started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How much of the log's end a panic shows.
const LOG_LINES_SHOWN: usize = 40;

/// How a server ends together with its value, and with the thread that started it.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// Killed: it leaves nothing that its directory does not hold.
    Kill,
    /// By Postgres's immediate shutdown, which frees the shared memory.
    Quit,
    /// By NGINX's fast shutdown, which ends the workers too.
    Terminate,
}

impl End {
    fn signal(self) -> (Signal, &'static str) {
        match self {
            Self::Kill => (Signal::KILL, "KILL"),
            Self::Quit => (Signal::QUIT, "QUIT"),
            Self::Terminate => (Signal::TERM, "TERM"),
        }
    }
}

/// What to start.
#[derive(Debug)]
pub struct Plan {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    pub end: End,
    pub ready_limit: Duration,
}

/// One server: its plan, its directory, and its process while it runs.
#[derive(Debug)]
pub struct Server {
    // Before the directory, so that the process ends before its files go.
    running: Mutex<Option<Running>>,
    plan: Plan,
    directory: Directory,
}

impl Server {
    pub fn new(plan: Plan, directory: Directory) -> Self {
        Self { running: Mutex::new(None), plan, directory }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// A command in the server's directory and environment, as the user that the server runs as.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = unprivileged(program, self.directory.path(), self.plan.end.signal().1);
        command.envs(self.plan.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the process and waits until `ready` says that the server answers.
    pub async fn start<R: Future<Output = bool>>(&self, ready: impl Fn() -> R) {
        self.try_start(&ready).await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Starts the process again whenever it has ended by itself. Does not return.
    pub async fn keep<R: Future<Output = bool>>(&self, ready: impl Fn() -> R) {
        loop {
            tokio::time::sleep(RESTART_PAUSE).await;
            let Some(status) = self.exited() else { continue };
            say(&format!("{} has ended, {status}: it is started again", self.plan.name));
            if let Some(ended) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // Its children, which may have its port.
                kill_process_group(ended.pid(), Signal::KILL).ok();
            }
            // Those of another group have its data for a moment more: then it ends again.
            self.try_start(&ready).await.unwrap_or_else(|why| say(&why));
        }
    }

    async fn try_start<R: Future<Output = bool>>(&self, ready: &impl Fn() -> R) -> Result<(), String> {
        let name = self.plan.name;
        assert!(self.process().is_none(), "{name} runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", self.log().display()));
        let errors = log.try_clone().unwrap_or_else(|error| panic!("{}: {error}", self.log().display()));
        let mut command = self.command(&self.plan.program);
        // A process group of its own, so that Ctrl-C on a test run reaches the test and not the server.
        command.args(&self.plan.arguments).stdout(log).stderr(errors).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run setpriv, of util-linux: {error}"));
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { child, end: self.plan.end });
        let since = Instant::now();
        loop {
            // What answers must be this process and not another at its port: so the process is looked at last.
            let answered = ready().await;
            if let Some(status) = self.exited() {
                return Err(format!("{name} ended at its start, {status}:\n{}", self.log_end()));
            }
            if answered {
                return Ok(());
            }
            let limit = self.plan.ready_limit;
            if since.elapsed() >= limit {
                return Err(format!("{name} does not answer after {limit:?}:\n{}", self.log_end()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills the process and all its children, and waits until they are gone.
    pub async fn kill(&self) {
        let Some(mut running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            panic!("{} does not run", self.plan.name)
        };
        let since = Instant::now();
        for process in running.kill() {
            while is_alive(process) {
                assert!(since.elapsed() < END_LIMIT, "{} survives its end", self.plan.name);
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// Sends the signal to the first process, unless it has ended by itself, and waits until it has ended.
    pub async fn end(&self, signal: Signal) {
        if self.runs() {
            self.signal_first(signal);
        }
        let since = Instant::now();
        while self.runs() {
            assert!(since.elapsed() < DRAIN_LIMIT, "{} does not end:\n{}", self.plan.name, self.log_end());
            tokio::time::sleep(POLL).await;
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn signal_first(&self, signal: Signal) {
        send(self.process().unwrap_or_else(|| panic!("{} does not run", self.plan.name)), signal);
    }

    /// Stops the process and its children where they are: connections stay open, and nothing answers.
    pub fn pause(&self) {
        let first = self.process().unwrap_or_else(|| panic!("{} does not run", self.plan.name));
        stop_tree(first);
    }

    pub fn resume(&self) {
        let first = self.process().unwrap_or_else(|| panic!("{} does not run", self.plan.name));
        send_all(tree(first), Signal::CONT);
    }

    pub fn runs(&self) -> bool {
        self.process().is_some() && self.exited().is_none()
    }

    fn process(&self) -> Option<Pid> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Running::pid)
    }

    /// How the process ended, if it did.
    fn exited(&self) -> Option<std::process::ExitStatus> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_mut()?.child.try_wait().expect("the child is waited for")
    }

    fn log_end(&self) -> String {
        log_end(&self.log())
    }
}

/// Kills what is left of this process's children, also those that their parents left to it, and waits for their end.
pub fn end_children() {
    let since = Instant::now();
    while since.elapsed() < END_LIMIT {
        let left: Vec<Pid> = tree(getpid()).into_iter().skip(1).collect();
        if left.is_empty() {
            return;
        }
        send_all(left, Signal::KILL);
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        // The process is about to end: nothing else is to run meanwhile.
        std::thread::sleep(POLL);
    }
}

/// What happened to a server or a service, for whoever reads the stack's log.
#[expect(clippy::print_stderr, reason = "the stack's standard error is its log")]
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// The last lines of a log; nothing when there is none.
pub fn log_end(log: &Path) -> String {
    let log = std::fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

#[derive(Debug)]
struct Running {
    child: Child,
    end: End,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills the process and its children. Gives the children, which may need a moment longer.
    fn kill(&mut self) -> Vec<Pid> {
        let tree = stop_tree(self.pid());
        send_all(tree.clone(), Signal::KILL);
        // Waited for, which takes the time of a kill, so that its number cannot mean another process before.
        drop(self.child.wait());
        tree.into_iter().skip(1).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if !matches!(self.end, End::Kill) {
            // A paused process handles no signal.
            send_all(tree(self.pid()), Signal::CONT);
            send(self.pid(), self.end.signal().0);
            let since = Instant::now();
            while since.elapsed() < END_LIMIT {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                // A drop cannot await; the time is bounded by END_LIMIT.
                std::thread::sleep(POLL / 4);
            }
        }
        self.kill();
    }
}

/// Stops the process and its children, the parents first, so that none starts another meanwhile; gives them all.
fn stop_tree(first: Pid) -> Vec<Pid> {
    let mut stopped = Vec::new();
    let mut open = vec![first];
    while let Some(process) = open.pop() {
        send(process, Signal::STOP);
        open.extend(children(process));
        stopped.push(process);
    }
    stopped
}

fn tree(first: Pid) -> Vec<Pid> {
    let mut found = vec![first];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children(*process));
        next += 1;
    }
    found
}

fn children(process: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(parsed).collect::<Vec<_>>()).collect()
}

fn parsed(number: &str) -> Option<Pid> {
    Pid::from_raw(number.parse().ok()?)
}

/// A process that ended in between needs no signal.
fn send(process: Pid, signal: Signal) {
    kill_process(process, signal).ok();
}

fn send_all(processes: Vec<Pid>, signal: Signal) {
    for process in processes {
        send(process, signal);
    }
}

/// A zombie is dead: who waits for it is its new parent's matter.
fn is_alive(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
