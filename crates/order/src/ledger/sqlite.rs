//! The ledger in a SQLite file, for the all-in-one process.
//!
//! There is one writing connection, and every write is one `BEGIN IMMEDIATE` transaction on it, so writes are serial:
//! what the protocol asks of locks holds by itself. Reads have connections of their own and see whole commits.
//! A batch goes to SQLite as one JSON document, so that a statement's cost does not grow with the batch.
//!
//! - `statements`: the statements of the transactions, whose algorithm is in [`steps`]
//! - `commit`: what is done when a batch cannot be committed as a whole
//! - `prune`: tombstones are deleted
//! - `reads`: orders by id and by page; verdicts
//! - `outbox`: events are taken and settled

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, ReservationId, Timestamp};
use serde_json::Value;
use service::environment::Env;
use sqlx::{
    Connection, Decode, Sqlite, SqlitePool, Transaction, Type,
    error::BoxDynError,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous, SqliteTypeInfo, SqliteValueRef,
    },
};

use super::{
    Books, BooksOf, CommitOutcome, ItemStock, KeyedOrder, Ledger, LedgerError, ListQuery, NewOrder, OpenOutcome, Order,
    OutboxBacklog, OutboxBatch, QUERY_BATCH_MAX, RequestKey, ResolveQuery, Restock, RestockOutcome, Verdict,
    judging::bounded,
    rows::{StoredId, StoredTime},
    steps,
};

mod books;
mod commit;
#[cfg(test)]
mod faults;
mod outbox;
#[cfg(test)]
mod plans;
mod prune;
mod reads;
mod statements;

/// Connections that read what the protocol asks for: keys, counts.
pub const READERS_MAX: u32 = 2;
/// Connections that read orders for clients. However many do, the protocol does not wait for them.
pub const CLIENT_READERS_MAX: u32 = 4;
/// Longest wait of the protocol for a connection, in milliseconds.
pub const CONNECTION_WAIT_MAX_MS: u64 = 5_000;
/// The same of a client that reads: it is told before its request's time is over.
pub const CLIENT_READER_WAIT_MAX_MS: u64 = 1_500;
/// Longest wait for a lock that another process holds on the file, in milliseconds.
pub const BUSY_WAIT_MAX_MS: u64 = 2_000;
/// The write-ahead log is copied into the file when it has so many pages of 4 KiB. Ids are random, so each batch touches
/// many pages; the longer the log, the more often a page is copied once for several batches.
pub const WAL_PAGES_MAX: u32 = 8_192;
/// Pages that the writing connection keeps in memory, in KiB.
pub const PAGE_CACHE_MAX_KIB: u32 = 32 * 1024;

/// A ledger in a SQLite file.
pub struct SqliteLedger {
    env: Env,
    writer: SqlitePool,
    readers: SqlitePool,
    client_readers: SqlitePool,
    in_hand: outbox::InHand,
    /// Whether the last commit failed. Then a ping has to write: reading goes on when the disk is full.
    failing: AtomicBool,
}

impl SqliteLedger {
    /// Opens the file, makes it and its directory (for the owner alone) if they are missing, and brings its schema up to
    /// date. One process at a time may have it open: which events are in hand is known in memory only.
    pub async fn open(path: &Path, env: Env) -> Result<Arc<Self>, LedgerError> {
        make_directory(path).map_err(|e| LedgerError::Store(Box::new(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_millis(BUSY_WAIT_MAX_MS))
            .pragma("wal_autocheckpoint", WAL_PAGES_MAX.to_string());
        // Negative: KiB, not pages.
        let cached = options.clone().pragma("cache_size", format!("-{PAGE_CACHE_MAX_KIB}"));
        let writer = pool(1, CONNECTION_WAIT_MAX_MS).connect_with(cached).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await.map_err(|e| LedgerError::Store(Box::new(e)))?;
        let options = options.read_only(true);
        let readers = pool(READERS_MAX, CONNECTION_WAIT_MAX_MS).connect_with(options.clone()).await?;
        let client_readers = pool(CLIENT_READERS_MAX, CLIENT_READER_WAIT_MAX_MS).connect_with(options).await?;
        let (in_hand, failing) = (outbox::InHand::default(), AtomicBool::new(false));
        Ok(Arc::new(Self { env, writer, readers, client_readers, in_hand, failing }))
    }

    /// Waits for what is under way, then closes the file. Everything after that fails.
    pub async fn close(&self) {
        self.readers.close().await;
        self.client_readers.close().await;
        self.writer.close().await;
    }

    /// The write lock. Dropped without a commit, everything is undone.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, LedgerError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn pool(connections: u32, wait_max_ms: u64) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(wait_max_ms))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // When the disk fails SQLite itself rolls back, and the ROLLBACK that follows fails, after which sqlx takes the
        // connection to be in a transaction for ever. Such a one is thrown away.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
}

/// Makes the file's directory, durably.
fn make_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().skip(1).take_while(|a| !a.as_os_str().is_empty() && !a.exists()).collect();
    for directory in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let parent = directory.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Texts as a JSON array, for `json_each`.
fn json_texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> String {
    texts.into_iter().map(|t| t.to_string()).collect::<Value>().to_string()
}

/// Numbers likewise.
fn json_numbers(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().collect::<Value>().to_string()
}

impl Type<Sqlite> for StoredId {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }
}

impl<'r> Decode<'r, Sqlite> for StoredId {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(ReservationId::parse(<&str as Decode<Sqlite>>::decode(value)?)?))
    }
}

impl Type<Sqlite> for StoredTime {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(other: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(other)
    }
}

impl<'r> Decode<'r, Sqlite> for StoredTime {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(Timestamp(<i64 as Decode<Sqlite>>::decode(value)?)))
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn commit(&self, orders: &[NewOrder]) -> Result<Vec<Result<CommitOutcome, LedgerError>>, LedgerError> {
        let committed = self.commit_batch(orders).await;
        self.failing.store(committed.is_err(), Ordering::Relaxed);
        committed
    }

    async fn order_by_key(&self, key: &RequestKey) -> Result<Option<KeyedOrder>, LedgerError> {
        Ok(statements::by_keys(&self.readers, &[key.as_str()]).await?.into_values().next())
    }

    async fn order_of_hold(&self, hold: ReservationId) -> Result<Option<Order>, LedgerError> {
        reads::order(&self.readers, hold).await
    }

    async fn order(&self, id: ReservationId) -> Result<Option<Order>, LedgerError> {
        reads::order(&self.client_readers, id).await
    }

    async fn orders(&self, query: &ListQuery) -> Result<Vec<Order>, LedgerError> {
        self.read_page(query).await
    }

    async fn open_stock(&self, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, LedgerError> {
        steps::lend(self.begin().await?, &self.env, item, initial, dead).await
    }

    async fn stock(&self, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, LedgerError> {
        bounded(items.len(), QUERY_BATCH_MAX)?;
        statements::count(&self.readers, items, initial).await
    }

    async fn resolve(&self, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, LedgerError> {
        self.judge(queries).await
    }

    async fn record_restock(&self, restock: &Restock, initial: i64) -> Result<RestockOutcome, LedgerError> {
        steps::journal(self.begin().await?, &self.env, restock, initial).await
    }

    async fn take_outbox(&self, limit: u32) -> Result<Box<dyn OutboxBatch>, LedgerError> {
        self.take_events(limit).await
    }

    async fn books(&self, of: &BooksOf) -> Result<Option<Books>, LedgerError> {
        self.read_books(of).await
    }

    async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        self.backlog().await
    }

    async fn prune_tombstones(&self, limit: u32) -> Result<u64, LedgerError> {
        self.prune(limit).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        // Both kinds of connection, and a page of the file.
        sqlx::query("SELECT item FROM stock_leases LIMIT 1").fetch_optional(&self.readers).await?;
        let mut transaction = self.begin().await?;
        if !self.failing.load(Ordering::Relaxed) {
            return Ok(transaction.rollback().await?);
        }
        for statement in ["INSERT INTO pulse (filler) VALUES (zeroblob(65536))", "DELETE FROM pulse"] {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.failing.store(false, Ordering::Relaxed);
        Ok(())
    }
}
