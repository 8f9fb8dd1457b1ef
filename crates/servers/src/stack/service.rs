use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::http::get;
use crate::programs::as_caller;
use crate::server::{log_end, say};

/// How long a service may take to be ready once its stores are.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Above the services' own limit for what they finish before they end, 25 s.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// Long enough to see that a service is gone, and that the other one works on.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// One of the order system's services, run by the caller. Its logs go to a file.
#[derive(Debug)]
pub struct Service {
    plan: ServicePlan,
    child: Child,
}

#[derive(Debug)]
pub struct ServicePlan {
    pub name: &'static str,
    pub program: PathBuf,
    pub environment: Vec<(&'static str, String)>,
    /// Its working directory, where its log is.
    pub directory: PathBuf,
    /// Where it tells whether it is ready.
    pub admin_port: u16,
}

impl ServicePlan {
    fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> Child {
        let log = File::options().append(true).create(true).open(self.log());
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", self.log().display()));
        let mut command = as_caller(&self.program, &self.directory, "TERM");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).process_group(0);
        let child = Command::from(command).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn();
        child.unwrap_or_else(|error| panic!("cannot run setpriv, of util-linux: {error}"))
    }
}

impl Service {
    /// Starts it with an empty log.
    pub fn start(plan: ServicePlan) -> Self {
        std::fs::remove_file(plan.log()).ok();
        let child = plan.spawn();
        Self { plan, child }
    }

    /// Waits until it is ready, and panics when it has ended instead.
    pub async fn until_ready(&mut self) {
        let since = Instant::now();
        let name = self.plan.name;
        while !is_ready(self.plan.admin_port).await {
            let ended = self.child.try_wait().expect("the child is waited for");
            assert!(ended.is_none(), "{name} has ended at its start, {}:\n{}", shown(ended), log_end(&self.plan.log()));
            assert!(
                since.elapsed() < READY_LIMIT,
                "{name} is not ready after {READY_LIMIT:?}:\n{}",
                log_end(&self.plan.log())
            );
            sleep(POLL).await;
        }
    }

    /// Starts it again whenever it has ended. Does not return.
    pub async fn keep(&mut self) {
        loop {
            let ended = self.child.wait().await.ok();
            say(&format!("{} has ended, {}: it is started again", self.plan.name, shown(ended)));
            sleep(RESTART_PAUSE).await;
            self.child = self.plan.spawn();
        }
    }

    /// Lets it finish what it has begun, and waits for its end. As by Ctrl-C: no balancer is left that it would wait for.
    pub async fn stop(&mut self) {
        // None: it has ended by itself.
        if let Some(process) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(process, Signal::INT).ok();
        }
        if timeout(DRAIN_LIMIT, self.child.wait()).await.is_err() {
            say(&format!("{} does not end within {DRAIN_LIMIT:?}, and is killed", self.plan.name));
            self.child.kill().await.ok();
        }
    }
}

fn shown(ended: Option<ExitStatus>) -> String {
    ended.map_or_else(String::new, |status| status.to_string())
}

/// Whether `GET /readyz` at the port of 127.0.0.1 is answered with 200.
pub async fn is_ready(port: u16) -> bool {
    get((Ipv4Addr::LOCALHOST, port).into(), "/readyz").await.is_some_and(|(status, _)| status == 200)
}
