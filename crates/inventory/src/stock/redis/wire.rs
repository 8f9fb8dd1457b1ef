//! What the store asks of whatever carries its commands: the servers, or a simulation of them.

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Value, cmd};

use super::scripts::Script;
use crate::stock::StockError;

/// One command, and the slot that its keys are in.
#[derive(Debug, Clone)]
pub struct Request {
    /// See [`super::keys`].
    pub slot: u16,
    /// What to do.
    pub what: What,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum What {
    /// Run a script.
    Run {
        /// The script.
        script: &'static Script,
        /// `KEYS`.
        keys: Vec<String>,
        /// `ARGV`.
        args: Vec<String>,
    },
    /// A command of Redis with its arguments.
    Command(Vec<String>),
}

impl Request {
    /// A script's run.
    pub fn run(script: &'static Script, slot: u16, keys: Vec<String>, args: Vec<String>) -> Self {
        Self { slot, what: What::Run { script, keys, args } }
    }

    /// A command of Redis.
    pub fn command_of<const N: usize>(slot: u16, words: [&str; N]) -> Self {
        Self { slot, what: What::Command(words.map(str::to_owned).to_vec()) }
    }

    /// As it is sent to a server that knows the scripts.
    pub fn command(&self) -> Cmd {
        self.built(|script| ("EVALSHA", &script.sha))
    }

    /// As it is sent to a server that may not know the script.
    pub fn whole_command(&self) -> Cmd {
        self.built(|script| ("EVAL", &script.text))
    }

    fn built(&self, named: impl Fn(&'static Script) -> (&'static str, &'static String)) -> Cmd {
        match &self.what {
            What::Run { script, keys, args } => {
                let (word, name) = named(script);
                cmd(word).arg(name).arg(keys.len()).arg(keys).arg(args).take()
            }
            What::Command(words) => words.iter().fold(Cmd::new(), |mut command, word| command.arg(word).take()),
        }
    }
}

/// Carries requests. Nothing is ever done twice: a request is sent again only if it is certain that it was not done.
#[async_trait]
pub trait Wire: Send + Sync + 'static {
    /// The answer to a request.
    async fn ask(&self, request: &Request) -> Result<Value, StockError>;

    /// The same, but nothing is sent again, whatever the answer.
    async fn ask_once(&self, request: &Request) -> Result<Value, StockError>;

    /// The answers to many, in their order: an error where the server does not answer, [`Value::ServerError`] where it
    /// refuses.
    async fn ask_all(&self, requests: &[Request]) -> Vec<Result<Value, StockError>>;

    /// A slot of each run of slots: together they reach every server.
    async fn servers(&self) -> Result<Vec<u16>, StockError>;

    /// Whether at least one server answers, is fit and takes writes: the others cost their own slots only.
    async fn check(&self) -> Result<(), StockError>;

    /// The server of this slot turned out to be no master.
    fn doubt(&self, slot: u16);
}
