//! The signals that end a process, SIGTERM and SIGINT: the first one asks it to end, the second one ends it at once.
//!
//! All others do what the kernel does by itself. SIGHUP ends a process without a word, as a kill would, because who ran
//! it under `nohup` has asked for SIGHUP to be ignored. SIGQUIT leaves a core dump. SIGPIPE is ignored.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What orchestrators send. The other one comes from a terminal.
pub const SIGTERM: &str = "SIGTERM";
const SIGINT: &str = "SIGINT";

/// Those that have come.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    name: Arc<OnceLock<&'static str>>,
    first: CancellationToken,
    second: CancellationToken,
}

impl Signals {
    /// Listens from now on. In a container, where the process is the first one, signals before that are ignored.
    #[expect(clippy::disallowed_methods, reason = "shutdown must not wait for it")]
    pub fn listen() -> io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let this = Self::default();
        let heard = this.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    biased;
                    _ = terminate.recv() => SIGTERM,
                    _ = interrupt.recv() => SIGINT,
                };
                heard.came(name);
            }
        });
        Ok(this)
    }

    /// One has come.
    pub(crate) fn came(&self, name: &'static str) {
        if self.name.set(name).is_ok() {
            self.first.cancel();
        } else if !self.second.is_cancelled() {
            tracing::warn!(signal = name, "second signal, ending at once");
            self.second.cancel();
        }
    }

    /// The name of the first one, once it has come.
    pub async fn first(&self) -> &'static str {
        self.first.cancelled().await;
        self.name.get().expect("it is set before")
    }

    /// Once a second one has come.
    pub async fn second(&self) {
        self.second.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_is_named_and_the_second_is_told_apart() {
        let signals = Signals::listen().expect("a runtime with signals");
        let send = || {
            let pid = std::process::id().to_string();
            std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs")
        };
        send();
        assert_eq!(signals.first().await, SIGTERM);
        assert!(!signals.second.is_cancelled());
        send();
        signals.second().await;
    }
}
