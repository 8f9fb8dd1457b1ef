//! The embedded stores, in one directory that one process at a time may use.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use broker::{Broker, BrokerError, in_process::InProcessBroker, queues};
use inventory::stock::{StockStore, memory::MemoryStock};
use order::ledger::{Ledger, LedgerError, sqlite::SqliteLedger};
use service::{environment::Env, readiness::Check};

/// The stores, open.
pub struct Stores {
    /// SQLite.
    pub ledger: Arc<SqliteLedger>,
    /// Memory: refilled from the ledger through leases.
    pub stock: Arc<dyn StockStore>,
    /// SQLite.
    pub broker: Arc<dyn Broker>,
    /// Held as long as the stores are used.
    _lock: File,
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
    /// Opens them, making what is missing.
    pub async fn open(data_dir: &Path, env: &Env) -> Result<Self, StoresError> {
        let path = || data_dir.display().to_string();
        let lock = make_and_lock(data_dir).map_err(|error| match error {
            TryLockError::WouldBlock => StoresError::InUse(path()),
            TryLockError::Error(error) => StoresError::Directory { path: path(), error },
        })?;
        Ok(Self {
            ledger: SqliteLedger::open(&data_dir.join("ledger.db"), env.clone()).await?,
            stock: MemoryStock::new(env.clone()),
            broker: InProcessBroker::open(&data_dir.join("broker.db"), env.clone()).await?,
            _lock: lock,
        })
    }

    /// Waits for what is under way in the ledger, and leaves one tidy file.
    pub async fn close(self) {
        self.ledger.close().await;
    }

    /// Whether the ledger answers.
    pub fn ledger_check(&self) -> Check {
        let ledger = self.ledger.clone();
        Box::new(move || {
            let ledger = ledger.clone();
            Box::pin(async move { ledger.ping().await.is_ok() })
        })
    }

    /// Whether the stock store answers.
    pub fn stock_check(&self) -> Check {
        let stock = self.stock.clone();
        Box::new(move || {
            let stock = stock.clone();
            Box::pin(async move { stock.ping().await.is_ok() })
        })
    }

    /// Whether the broker can write, and has the queue of events.
    pub fn broker_check(&self) -> Check {
        let broker = self.broker.clone();
        Box::new(move || {
            let broker = broker.clone();
            Box::pin(async move { broker.declare(&queues::order_created()).await.is_ok() })
        })
    }
}

/// Only its owner may read what is sold to whom.
fn make_and_lock(data_dir: &Path) -> Result<File, TryLockError> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(TryLockError::Error)?;
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join("lock"));
    let lock = lock.map_err(TryLockError::Error)?;
    lock.try_lock()?;
    Ok(lock)
}
