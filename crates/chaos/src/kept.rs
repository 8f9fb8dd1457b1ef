//! What is stored at the end of a run, in a file beside its history: so that a run can be judged again, later and alone.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checker::collect;
use crate::checker::evidence::{
    Events, Evidence, History, ItemKeys, Lease, Ledger, Outbox, Restock, Setup, Stock, Verdict,
};
use crate::load::HOLD_SECONDS;
use crate::system::{FIRST_STOCK, System, TTL};

type Row = (Uuid, bool, String, i64, i64, i64, Option<String>, i64);

/// Rows and keys, column by column as [`Ledger`] and [`Stock`] name them.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    initial: i64,
    hold_micros: u64,
    verdicts: Vec<Row>,
    leases: Vec<(String, i64, i64, i64)>,
    restocks: Vec<(Uuid, String, i64, i64)>,
    outbox: Vec<(Uuid, String, i64)>,
    items: Vec<(String, bool, [i64; 9])>,
    stray: Vec<String>,
    waiting: u64,
    dead_letters: u64,
    handled: Option<Vec<Uuid>>,
}

/// The history of a run, in its directory.
pub fn history(directory: &Path) -> PathBuf {
    directory.join("history.jsonl")
}

fn stores(directory: &Path) -> PathBuf {
    directory.join("stores.json")
}

/// Reads the stores of a system at rest, and keeps what they have in the directory.
pub async fn keep(system: &System, directory: &Path) -> io::Result<()> {
    let queues = system.rabbitmq.ctl(&["list_queues", "--vhost", &system.vhost, "name", "messages"]).await;
    let logs = [1, 2].map(|number| directory.join(format!("inventory-service-{number}.log")));
    let logs = logs.into_iter().map(|log| File::open(log).map(BufReader::new)).collect::<io::Result<_>>()?;
    let evidence = Evidence {
        setup: Setup {
            initial: FIRST_STOCK,
            hold_micros: 1_000_000 * TTL.as_secs().max(HOLD_SECONDS),
            ..Setup::default()
        },
        history: History::default(),
        ledger: collect::ledger(&system.postgres.url(&system.database)).await.map_err(io::Error::other)?,
        stock: collect::stock(&system.redis[0].url()).await.map_err(io::Error::other)?,
        events: collect::events(&queues, Some(logs))?,
    };
    let file = BufWriter::new(File::create_new(stores(directory))?);
    Ok(serde_json::to_writer(file, &Kept::from(evidence))?)
}

/// All that is known of a run that was kept in the directory.
pub fn read(directory: &Path) -> io::Result<Evidence> {
    let kept: Kept = serde_json::from_reader(BufReader::new(File::open(stores(directory))?))?;
    let lines = BufReader::new(File::open(history(directory))?);
    let history = History::read(lines).map_err(io::Error::other)?;
    Ok(Evidence { history, ..kept.into() })
}

impl From<Evidence> for Kept {
    fn from(Evidence { setup, ledger, stock, events, .. }: Evidence) -> Self {
        let verdicts = ledger.verdicts.iter().map(|row| {
            let key = row.key.as_deref().map(str::to_owned);
            (row.id, row.confirmed, row.item.to_string(), row.quantity, row.epoch, row.number, key, row.created_at)
        });
        let leases = ledger.leases.iter().map(|(item, row)| (item.to_string(), row.epoch, row.initial, row.settled));
        let restocks = ledger.restocks.iter().map(|row| (row.id, row.item.to_string(), row.quantity, row.created_at));
        let outbox = ledger.outbox.iter().map(|row| (row.order, row.item.to_string(), row.quantity));
        let items = stock.items.iter().map(|(item, keys)| {
            let ItemKeys { open, epoch, received, available, held, sold, holds, entries, deadlines, units } = *keys;
            (item.to_string(), open, [epoch, received, available, held, sold, holds, entries, deadlines, units])
        });
        Self {
            initial: setup.initial,
            hold_micros: setup.hold_micros,
            verdicts: verdicts.collect(),
            leases: leases.collect(),
            restocks: restocks.collect(),
            outbox: outbox.collect(),
            items: items.collect(),
            stray: stock.stray,
            waiting: events.waiting,
            dead_letters: events.dead_letters,
            handled: events.handled.map(|handled| handled.into_iter().collect()),
        }
    }
}

impl From<Kept> for Evidence {
    fn from(kept: Kept) -> Self {
        let verdicts =
            kept.verdicts.into_iter().map(|(id, confirmed, item, quantity, epoch, number, key, created_at)| {
                let (item, key) = (item.into(), key.map(Into::into));
                Verdict { id, confirmed, item, quantity, epoch, number, key, created_at }
            });
        let leases = kept.leases.into_iter();
        let leases = leases.map(|(item, epoch, initial, settled)| (item.into(), Lease { epoch, initial, settled }));
        let restocks = kept.restocks.into_iter();
        let restocks =
            restocks.map(|(id, item, quantity, created_at)| Restock { id, item: item.into(), quantity, created_at });
        let outbox = kept.outbox.into_iter();
        let outbox = outbox.map(|(order, item, quantity)| Outbox { order, item: item.into(), quantity });
        let items = kept.items.into_iter().map(|(item, open, numbers)| {
            let [epoch, received, available, held, sold, holds, entries, deadlines, units] = numbers;
            (item.into(), ItemKeys { open, epoch, received, available, held, sold, holds, entries, deadlines, units })
        });
        Self {
            setup: Setup { initial: kept.initial, hold_micros: kept.hold_micros, ..Setup::default() },
            history: History::default(),
            ledger: Ledger {
                verdicts: verdicts.collect(),
                leases: leases.collect(),
                restocks: restocks.collect(),
                outbox: outbox.collect(),
            },
            stock: Stock { items: items.collect(), stray: kept.stray },
            events: Events {
                waiting: kept.waiting,
                dead_letters: kept.dead_letters,
                handled: kept.handled.map(|handled| handled.into_iter().collect()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn what_is_kept_is_what_is_read() {
        let id = Uuid::from_u128;
        let verdict = Verdict {
            id: id(1),
            confirmed: true,
            item: "widget".into(),
            quantity: 2,
            epoch: 3,
            number: 4,
            key: Some("key:5".into()),
            created_at: 6,
        };
        let tombstone = Verdict { id: id(2), confirmed: false, key: None, ..verdict.clone() };
        let keys = ItemKeys {
            open: true,
            epoch: 1,
            received: 2,
            available: 3,
            held: 4,
            sold: 5,
            holds: 6,
            entries: 7,
            deadlines: 8,
            units: 9,
        };
        let evidence = Evidence {
            setup: Setup { initial: 7, hold_micros: 8, ..Setup::default() },
            history: History::default(),
            ledger: Ledger {
                verdicts: vec![verdict, tombstone],
                leases: BTreeMap::from([("widget".into(), Lease { epoch: 1, initial: 2, settled: 3 })]),
                restocks: vec![Restock { id: id(3), item: "widget".into(), quantity: 4, created_at: 5 }],
                outbox: vec![Outbox { order: id(4), item: "widget".into(), quantity: 5 }],
            },
            stock: Stock { items: BTreeMap::from([("widget".into(), keys)]), stray: vec!["nobody's".to_owned()] },
            events: Events { waiting: 1, dead_letters: 2, handled: Some(HashSet::from([id(5)])) },
        };
        let told = format!("{evidence:?}");
        let text = serde_json::to_string(&Kept::from(evidence)).expect("JSON");
        let read: Kept = serde_json::from_str(&text).expect("the same");
        assert_eq!(format!("{:?}", Evidence::from(read)), told);
    }
}
