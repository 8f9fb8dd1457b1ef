//! The whole order system on real servers, two of each service behind NGINX, in the background and with data that stays.
//!
//! [`Stack::up`] starts a supervisor, a process of its own session that runs [`Stack::serve`]: it holds the lock in the
//! stack's directory as long as it lives, and everything that it started ends with it. [`Stack::down`] asks it to end.
//!
//! - `ports`: who listens where
//! - `system`: all servers and services, started and ended in order
//! - `service`: one process of ours, started again when it dies

mod ports;
mod service;
mod system;

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, getpid, kill_process, set_child_subreaper, setsid};
use tokio::time::sleep;

use crate::programs::unprivileged;
use crate::server::{end_children, log_end, say};
use ports::Ports;
use system::{System, database_url};

/// Above what the services, NGINX and the servers may take one after the other.
const DOWN_LIMIT: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(50);

/// Where a stack is; there may be one in each directory.
#[derive(Debug)]
pub struct Stack {
    directory: PathBuf,
    ports: Ports,
}

impl Stack {
    /// As `STACK_DIR` and `STACK_PORTS_FROM` say. An error is for the user, as all in this module.
    pub fn from_env() -> Result<Self, String> {
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let directory = Some(variable("STACK_DIR")).filter(|set| !set.is_empty()).unwrap_or("data/stack".into());
        let directory = std::path::absolute(directory).map_err(|error| format!("STACK_DIR: {error}"))?;
        // It stands in the servers' configurations and command lines.
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+@,=".contains(c);
        match directory.to_str() {
            Some(path) if path.chars().all(is_plain) => {}
            _ => return Err(format!("{}: set STACK_DIR to a path of letters, digits and /._-", directory.display())),
        }
        Ok(Self { directory, ports: Ports::read(&variable("STACK_PORTS_FROM").to_string_lossy())? })
    }

    /// Starts the stack unless it runs, and waits until it takes orders; gives what listens where. When `stop` is ready
    /// first, nothing runs on.
    pub async fn up(&self, stop: impl Future<Output = ()>) -> Result<String, String> {
        std::fs::create_dir_all(&self.directory).map_err(|error| self.failed(&error))?;
        self.check_reachable()?;
        let Some(lock) = self.take_lock()? else {
            let text = self.ready_elsewhere().await?;
            return Ok(format!("The stack is up already.\n{text}"));
        };
        // Whoever finds the lock taken from now on reads no number and no text of the last time.
        lock.set_len(0).map_err(|error| self.failed(&error))?;
        std::fs::remove_file(self.ready_file()).ok();
        self.ports.check_free()?;
        drop(lock);
        let mut supervisor = self.start_supervisor()?;
        tokio::select! {
            biased;
            () = stop => {
                kill_process(Pid::from_child(&supervisor), Signal::TERM).ok();
                drop(supervisor.wait());
                Err("stopped".to_owned())
            }
            text = self.ready(&mut supervisor) => text,
        }
    }

    /// Ends the stack if it runs. Its data stays.
    pub async fn down(&self) -> Result<String, String> {
        let data = format!("Its data stays in {}.\n", self.directory.display());
        if !self.directory.exists() || self.take_lock()?.is_some() {
            return Ok("The stack is down already.\n".to_owned());
        }
        let (since, mut told) = (Instant::now(), false);
        while self.take_lock()?.is_none() {
            // Who took the lock a moment ago has not written its number yet.
            if let (false, Some(supervisor)) = (told, self.supervisor()) {
                kill_process(supervisor, Signal::TERM).ok();
                told = true;
            }
            if since.elapsed() > DOWN_LIMIT {
                let log = self.log();
                return Err(format!("The stack does not end within {DOWN_LIMIT:?}. See {}.", log.display()));
            }
            sleep(POLL).await;
        }
        Ok(format!("The stack is down. {data}"))
    }

    /// What the supervisor does: runs the stack until `stop` is ready. Panics when the stack cannot be started or ended
    /// in order, and then everything has ended.
    pub async fn serve(&self, stop: impl Future<Output = ()>) -> Result<(), String> {
        // Fails only for who leads a session already.
        setsid().ok();
        let Some(lock) = self.take_lock()? else { return Err("another supervisor runs".to_owned()) };
        // Whatever loses its parent meanwhile becomes a child of this process, and ends with it.
        set_child_subreaper(Some(getpid())).map_err(|error| self.failed(&error.into()))?;
        let last = Children;
        std::fs::write(self.lock_file(), std::process::id().to_string()).map_err(|error| self.failed(&error))?;
        let mut stop = pin!(stop);
        let mut system = tokio::select! {
            biased;
            () = &mut stop => {
                say("asked to end before it was ready");
                return Ok(());
            }
            system = System::start(self) => system,
        };
        self.announce().map_err(|error| self.failed(&error))?;
        tokio::select! {
            biased;
            () = stop => {}
            () = system.keep() => {}
        }
        std::fs::remove_file(self.ready_file()).ok();
        system.stop().await;
        drop(last);
        drop(lock);
        Ok(())
    }

    /// Servers do not run as root, so root may choose a directory that they cannot reach.
    fn check_reachable(&self) -> Result<(), String> {
        let asked =
            unprivileged(Path::new("/usr/bin/test"), Path::new("/"), "KILL").arg("-x").arg(&self.directory).status();
        match asked {
            Ok(status) if status.success() => Ok(()),
            Ok(_) if geteuid().is_root() => Err(format!(
                "{} cannot be reached by nobody, the user that the servers run as when root starts them: set STACK_DIR, \
                 as in STACK_DIR=/var/tmp/order-stack",
                self.directory.display()
            )),
            Ok(_) => Err(format!("{} cannot be entered: set STACK_DIR", self.directory.display())),
            Err(error) => Err(format!("cannot run setpriv, of util-linux: {error}")),
        }
    }

    fn start_supervisor(&self) -> Result<Child, String> {
        let log = File::create(self.log()).map_err(|error| self.failed(&error))?;
        let errors = log.try_clone().map_err(|error| self.failed(&error))?;
        let own = std::env::current_exe().map_err(|error| self.failed(&error))?;
        let mut supervisor = Command::new(own);
        supervisor.args(["stack", "serve"]).stdin(Stdio::null()).stdout(log).stderr(errors);
        supervisor.env("STACK_DIR", &self.directory).spawn().map_err(|error| self.failed(&error))
    }

    /// The text of a stack that is ready, once it is; an error when its supervisor has ended instead.
    async fn ready(&self, supervisor: &mut Child) -> Result<String, String> {
        loop {
            let ended = supervisor.try_wait().map_err(|error| self.failed(&error))?.is_some();
            match std::fs::read_to_string(self.ready_file()) {
                Ok(text) if !ended => return Ok(text),
                _ if ended => return Err(self.not_started()),
                _ => sleep(POLL).await,
            }
        }
    }

    /// The same when somebody else started it, a moment ago perhaps.
    async fn ready_elsewhere(&self) -> Result<String, String> {
        loop {
            if let Ok(text) = std::fs::read_to_string(self.ready_file()) {
                return Ok(text);
            }
            if self.take_lock()?.is_some() {
                return Err(self.not_started());
            }
            sleep(POLL).await;
        }
    }

    fn not_started(&self) -> String {
        format!("The stack does not start, and nothing of it runs:\n{}", log_end(&self.log()))
    }

    /// Writes what listens where, whole or not at all.
    fn announce(&self) -> std::io::Result<()> {
        let begun = self.directory.join("ready.begun");
        std::fs::write(&begun, self.announcement())?;
        std::fs::rename(begun, self.ready_file())
    }

    fn announcement(&self) -> String {
        let at = |name: &str| format!("127.0.0.1:{}", self.ports.of(name));
        let both = |kind: &str, purpose: &str| [1, 2].map(|number| at(&format!("{kind}-{number}{purpose}"))).join("  ");
        let http = at("NGINX");
        format!(
            "order system on real servers
  HTTP             http://{http}, NGINX in front of the edges
  edges            {}
  order gRPC       {}
  inventory gRPC   {}
  edge admin       {}, each /metrics, /healthz, /readyz
  order admin      {}
  inventory admin  {}
  Postgres         {}
  Redis            {}
  RabbitMQ         {}
  data and logs    {}
No server asks for a password: whoever is on this machine is trusted.
try:
  curl -i http://{http}/orders -H 'Content-Type: application/json' -d '{{\"item\":\"widget\",\"quantity\":1}}'
look inside:
  psql {} -c 'SELECT * FROM orders;'
  redis-cli -p {} GET widget
break it, and see it come back:
  kill -9 $(pgrep -x -o order-service)
  redis-cli -p {} FLUSHALL
end it; the data stays:
  ./justw stack down
",
            both("edge", ""),
            both("order-service", ""),
            both("inventory-service", ""),
            both("edge", " admin"),
            both("order-service", " admin"),
            both("inventory-service", " admin"),
            at("Postgres"),
            at("Redis"),
            at("RabbitMQ"),
            self.directory.display(),
            database_url(&self.ports, "order_login"),
            self.ports.of("Redis"),
            self.ports.of("Redis"),
        )
    }

    /// The lock, for as long as the file is open; `None` when somebody else has it.
    fn take_lock(&self) -> Result<Option<File>, String> {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(self.lock_file());
        let file = opened.map_err(|error| self.failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(self.failed(&error)),
        }
    }

    /// Whoever has the lock, once it has written its number.
    fn supervisor(&self) -> Option<Pid> {
        let mut number = String::new();
        File::open(self.lock_file()).ok()?.read_to_string(&mut number).ok()?;
        Pid::from_raw(number.parse().ok()?)
    }

    fn lock_file(&self) -> PathBuf {
        self.directory.join("lock")
    }

    fn ready_file(&self) -> PathBuf {
        self.directory.join("ready")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("stack.log")
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("{}: {error}", self.directory.display())
    }
}

/// None of them outlives the supervisor, however it fails.
struct Children;

impl Drop for Children {
    fn drop(&mut self) {
        end_children();
    }
}
