//! The three stores: each embedded, in one directory that one process at a time may use, or a real server.

use std::{
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use broker::{Broker, BrokerError, in_process::InProcessBroker, rabbitmq::RabbitMqBroker};
use inventory::stock::{StockStore, memory::MemoryStock, redis::RedisStock};
use order::ledger::{Ledger, LedgerError, postgres::PostgresLedger, sqlite::SqliteLedger};
use service::environment::Env;

use crate::settings::StandaloneSettings;

/// The stores, open.
pub struct Stores {
    /// SQLite, or Postgres.
    pub ledger: Arc<dyn Ledger>,
    /// Memory, refilled from the ledger through leases, or Redis.
    pub stock: Arc<dyn StockStore>,
    /// SQLite, or RabbitMQ.
    pub broker: Arc<dyn Broker>,
    /// The ledger again if it is on Postgres, whose schema has to be prepared.
    pub postgres: Option<Arc<PostgresLedger>>,
    /// The ledger again if it is embedded, to be closed.
    sqlite: Option<Arc<SqliteLedger>>,
    /// Held as long as the directory is used; none if nothing is embedded that has files.
    _lock: Option<File>,
}

/// Why the stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The directory cannot be used.
    #[error("DATA_DIR {path}: {error}")]
    Directory {
        /// The directory.
        path: String,
        /// What is wrong with it.
        #[source]
        error: io::Error,
    },
    /// Another process has it.
    #[error("DATA_DIR {0} is in use by another process")]
    InUse(String),
    /// The ledger's file is not usable.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The broker's file is not usable.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Stores {
    /// Opens those that are embedded, making what is missing. A real server need not be there yet.
    pub async fn open(settings: &StandaloneSettings, env: &Env) -> Result<Self, StoresError> {
        let data_dir = &*settings.data_dir;
        let has_files = settings.ledger.is_none() || settings.broker.is_none();
        let lock = has_files.then(|| lock(data_dir)).transpose()?;
        let (mut postgres, mut sqlite) = (None, None);
        let ledger: Arc<dyn Ledger> = match &settings.ledger {
            Some(url) => postgres.insert(PostgresLedger::new(url, env.clone())).clone(),
            None => sqlite.insert(SqliteLedger::open(&data_dir.join("ledger.db"), env.clone()).await?).clone(),
        };
        let stock: Arc<dyn StockStore> = match &settings.stock {
            Some(target) => RedisStock::new(target.clone(), env.clone()),
            None => MemoryStock::new(env.clone()),
        };
        let broker: Arc<dyn Broker> = match &settings.broker {
            Some(url) => RabbitMqBroker::new(url, env.clone()),
            None => InProcessBroker::open(&data_dir.join("broker.db"), env.clone()).await?,
        };
        Ok(Self { ledger, stock, broker, postgres, sqlite, _lock: lock })
    }

    /// What they are, for people, each with its name.
    pub fn described(settings: &StandaloneSettings) -> [(&'static str, String); 3] {
        let server = |server: &dyn fmt::Display| server.to_string();
        let file = |name| settings.data_dir.join(name).display().to_string();
        [
            ("ledger", settings.ledger.as_ref().map_or_else(|| file("ledger.db"), |url| server(url))),
            ("stock", settings.stock.as_ref().map_or_else(|| "memory".to_owned(), |target| server(target))),
            ("broker", settings.broker.as_ref().map_or_else(|| file("broker.db"), |url| server(url))),
        ]
    }

    /// Waits for what is under way in an embedded ledger, and leaves one tidy file.
    pub async fn close(self) {
        if let Some(ledger) = self.sqlite {
            ledger.close().await;
        }
    }
}

fn lock(data_dir: &Path) -> Result<File, StoresError> {
    let path = || data_dir.display().to_string();
    make_and_lock(data_dir).map_err(|error| match error {
        TryLockError::WouldBlock => StoresError::InUse(path()),
        TryLockError::Error(error) => StoresError::Directory { path: path(), error },
    })
}

/// Only its owner may read what is sold to whom.
fn make_and_lock(data_dir: &Path) -> Result<File, TryLockError> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(TryLockError::Error)?;
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join("lock"));
    let lock = lock.map_err(TryLockError::Error)?;
    lock.try_lock()?;
    Ok(lock)
}
