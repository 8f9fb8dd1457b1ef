//! A ledger in the test's hands: honest, in memory, and able to fail.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contracts::{
    Failure, Reason,
    values::{Epoch, Item, Lease, ReservationId, Stamp},
};
use inventory::ledger::{ItemStock, OpenOutcome, ResolveQuery, Restock, StockLedger, Verdict};
use service::{call::Call, environment::Env};
use uuid::Uuid;

use crate::store::Pauses;

/// How long a fresh lease is left alone, in milliseconds.
const GRACE_MS: u64 = 250;

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    Created,
    Existing,
    Aborted,
    Fenced,
}

#[derive(Clone, Copy)]
struct LeaseRow {
    epoch: Epoch,
    initial: i64,
    opened: Duration,
}

#[derive(Default)]
struct Tables {
    leases: HashMap<Item, LeaseRow>,
    /// The stamp and the units of an order; `None` is a tombstone.
    verdicts: HashMap<ReservationId, Option<(Stamp, i64)>>,
    restocks: HashMap<Uuid, (Restock, Epoch)>,
}

impl Tables {
    fn epoch(&self, item: &Item) -> Epoch {
        self.leases.get(item).map_or(Epoch::NONE, |row| row.epoch)
    }

    fn stock(&self, item: &Item, initial: i64) -> ItemStock {
        let initial = self.leases.get(item).map_or(initial, |row| row.initial);
        let restocks = self.restocks.values().filter(|(restock, _)| restock.item == *item);
        let restocked: i64 = restocks.map(|(restock, _)| restock.quantity.get()).sum();
        let orders = self.verdicts.values().flatten().filter(|(stamp, _)| stamp.item == *item);
        let sold = orders.map(|(_, units)| units).sum();
        ItemStock { epoch: self.epoch(item), received: initial + restocked, sold }
    }
}

pub struct TestLedger {
    env: Env,
    tables: Mutex<Tables>,
    /// Every call fails.
    pub down: AtomicBool,
    /// No call is answered.
    pub silent: AtomicBool,
    /// Calls that the test counts.
    pub opens: AtomicUsize,
    pub asked: AtomicUsize,
    /// Before each answer others may go on.
    pub pauses: Pauses,
    /// Happens while the next lease is granted.
    meanwhile: Mutex<Option<Meanwhile>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl TestLedger {
    pub fn new(env: Env) -> Arc<Self> {
        Arc::new(Self {
            env,
            tables: Mutex::default(),
            down: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            opens: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            pauses: Pauses::default(),
            meanwhile: Mutex::default(),
        })
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no test panics in it")
    }

    async fn answering(&self) -> Result<(), Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.pauses.pause().await;
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(Ordering::SeqCst) { Err(Failure::unavailable("the test took it down")) } else { Ok(()) }
    }

    /// An order on this hold.
    pub fn commit(&self, id: ReservationId, stamp: &Stamp, units: i64) {
        assert_eq!(self.try_commit(id, stamp, units), Committed::Created);
    }

    /// An order on this hold, unless something is against it.
    pub fn try_commit(&self, id: ReservationId, stamp: &Stamp, units: i64) -> Committed {
        let mut tables = self.tables();
        match tables.verdicts.get(&id) {
            Some(Some(_)) => Committed::Existing,
            Some(None) => Committed::Aborted,
            None if tables.epoch(&stamp.item) != stamp.epoch => Committed::Fenced,
            None => {
                tables.verdicts.insert(id, Some((stamp.clone(), units)));
                Committed::Created
            }
        }
    }

    /// Whether there is an order of this id; `None` without a verdict.
    pub fn is_order(&self, id: ReservationId) -> Option<bool> {
        self.tables().verdicts.get(&id).map(Option::is_some)
    }

    /// Units of the item in orders.
    pub fn sold(&self, item: &Item) -> i64 {
        self.tables().stock(item, 0).sold
    }

    /// A lease that another instance was granted.
    pub fn lend(&self, item: &Item, initial: i64) -> Lease {
        let now = self.env.uptime();
        let mut tables = self.tables();
        let row = tables.leases.entry(item.clone()).or_insert(LeaseRow { epoch: Epoch::NONE, initial, opened: now });
        row.epoch = row.epoch.next();
        row.opened = now;
        let stock = tables.stock(item, initial);
        Lease { item: item.clone(), epoch: stock.epoch, received: stock.received, sold: stock.sold }
    }

    /// Goes back to an older state: leases as if none had been granted after this one.
    pub fn restore(&self, item: &Item, epoch: Epoch) {
        self.tables().leases.get_mut(item).expect("was lent").epoch = epoch;
    }

    /// (leases, verdicts, restocks) that are written down.
    pub fn rows(&self) -> (usize, usize, usize) {
        let tables = self.tables();
        (tables.leases.len(), tables.verdicts.len(), tables.restocks.len())
    }

    pub fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn while_granting(&self, happens: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().expect("whole") = Some(Box::new(happens));
    }

    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }
}

#[async_trait]
impl StockLedger for TestLedger {
    async fn open_stock(&self, _: &Call, item: &Item, initial: i64, dead: Epoch) -> Result<OpenOutcome, Failure> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        self.answering().await?;
        // Long enough for a hundred requests to come together.
        self.env.sleep(Duration::from_millis(5)).await;
        if let Some(happens) = self.meanwhile.lock().expect("whole").take() {
            happens();
        }
        let now = self.env.uptime();
        let mut tables = self.tables();
        let row = tables.leases.entry(item.clone()).or_insert(LeaseRow { epoch: Epoch::NONE, initial, opened: now });
        if row.epoch > dead && now.saturating_sub(row.opened) < Duration::from_millis(GRACE_MS) {
            return Ok(OpenOutcome::Wait);
        }
        *row = LeaseRow { epoch: row.epoch.max(dead).next(), opened: now, ..*row };
        let stock = tables.stock(item, initial);
        let lease = Lease { item: item.clone(), epoch: stock.epoch, received: stock.received, sold: stock.sold };
        Ok(OpenOutcome::Lease(lease))
    }

    async fn stock(&self, _: &Call, items: &[Item], initial: i64) -> Result<Vec<ItemStock>, Failure> {
        self.answering().await?;
        let tables = self.tables();
        Ok(items.iter().map(|item| tables.stock(item, initial)).collect())
    }

    async fn resolve(&self, _: &Call, queries: &[ResolveQuery]) -> Result<Vec<Verdict>, Failure> {
        self.answering().await?;
        let mut tables = self.tables();
        let verdict = |query: &ResolveQuery| match (tables.verdicts.get(&query.id), &query.stamp) {
            (Some(None), _) => Verdict::Aborted,
            (Some(Some((confirmed, _))), Some(asked)) if confirmed != asked => Verdict::ConfirmedElsewhere,
            (Some(Some(_)), _) => Verdict::Confirmed,
            (None, None) => Verdict::Unknown,
            (None, Some(_)) => {
                tables.verdicts.insert(query.id, None);
                Verdict::Aborted
            }
        };
        Ok(queries.iter().map(verdict).collect())
    }

    async fn record_restock(&self, _: &Call, restock: &Restock, initial: i64) -> Result<Epoch, Failure> {
        self.answering().await?;
        let now = self.env.uptime();
        let mut tables = self.tables();
        let item = restock.item.clone();
        let epoch = tables.leases.entry(item).or_insert(LeaseRow { epoch: Epoch::NONE, initial, opened: now }).epoch;
        let (journalled, epoch) = tables.restocks.entry(restock.id).or_insert((restock.clone(), epoch));
        if journalled == restock { Ok(*epoch) } else { Err(Failure::of(Reason::RestockMismatch)) }
    }
}
