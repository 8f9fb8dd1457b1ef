//! Reads the evidence of a real run, at rest, over plain connections.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::{self, BufRead},
};

use deadpool_redis::redis::{self, RedisError, aio::MultiplexedConnection};
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::evidence::{Events, ItemKeys, Lease, Ledger, Name, Outbox, Restock, Stock, Verdict};

const VERDICTS: &str = "SELECT id, state = 'confirmed', item, coalesce(quantity, 0), epoch, coalesce(number, 0), request_key, \
    (extract(epoch FROM created_at) * 1000000)::bigint FROM order_verdicts ORDER BY created_at, id";
const LEASES: &str = "SELECT item, epoch, initial, settled FROM stock_leases";
const RESTOCKS: &str = "SELECT id, item, quantity, (extract(epoch FROM created_at) * 1000000)::bigint \
    FROM restocks ORDER BY created_at, id";
const OUTBOX: &str = "SELECT order_id, item, quantity FROM outbox ORDER BY seq";

/// The queue of events and that of the dead ones.
const QUEUES: [&str; 2] = ["order_created", "order_created.dead"];
/// What a consumer logs before it acknowledges an event; the order's id follows.
const HANDLED: &str = "event handled";
/// Keys that Redis gives at a time.
const SCAN_KEYS: usize = 1_000;

/// Reads the ledger's tables.
pub async fn ledger(url: &str) -> Result<Ledger, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let mut names = BTreeSet::new();
    let mut ledger = Ledger::default();
    let mut rows = sqlx::query_as(AssertSqlSafe(VERDICTS)).fetch(&mut connection);
    while let Some(row) = rows.try_next().await? {
        let (id, confirmed, item, quantity, epoch, number, key, created_at): VerdictRow = row;
        let (item, key) = (shared(&mut names, &item), key.map(Name::from));
        ledger.verdicts.push(Verdict { id, confirmed, item, quantity, epoch, number, key, created_at });
    }
    drop(rows);
    let leases: Vec<(String, i64, i64, i64)> = sqlx::query_as(LEASES).fetch_all(&mut connection).await?;
    for (item, epoch, initial, settled) in leases {
        ledger.leases.insert(shared(&mut names, &item), Lease { epoch, initial, settled });
    }
    let restocks: Vec<(Uuid, String, i64, i64)> = sqlx::query_as(RESTOCKS).fetch_all(&mut connection).await?;
    for (id, item, quantity, created_at) in restocks {
        ledger.restocks.push(Restock { id, item: shared(&mut names, &item), quantity, created_at });
    }
    let outbox: Vec<(Uuid, String, i64)> = sqlx::query_as(OUTBOX).fetch_all(&mut connection).await?;
    for (order, item, quantity) in outbox {
        ledger.outbox.push(Outbox { order, item: shared(&mut names, &item), quantity });
    }
    connection.close().await?;
    Ok(ledger)
}

type VerdictRow = (Uuid, bool, String, i64, i64, i64, Option<String>, i64);

fn shared(names: &mut BTreeSet<Name>, text: &str) -> Name {
    if let Some(name) = names.get(text) {
        return name.clone();
    }
    let name: Name = text.into();
    names.insert(name.clone());
    name
}

/// Reads every key of one Redis server, the primary.
pub async fn stock(url: &str) -> Result<Stock, RedisError> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let replication: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
    let life = replication.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap_or("").trim().to_owned();
    let keys = every_key(&mut connection).await?;
    let mut stock = Stock::default();
    for (item, stray) in items(&keys) {
        match item {
            Some(item) => {
                let numbers = item_keys(&mut connection, &item, &life).await?;
                stock.items.insert(item.into(), numbers);
            }
            None => stock.stray.push(stray),
        }
    }
    Ok(stock)
}

async fn every_key(connection: &mut MultiplexedConnection) -> Result<BTreeSet<String>, RedisError> {
    let (mut keys, mut cursor) = (BTreeSet::new(), 0_u64);
    loop {
        let (next, page): (u64, Vec<String>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(SCAN_KEYS).query_async(connection).await?;
        keys.extend(page);
        if next == 0 {
            return Ok(keys);
        }
        cursor = next;
    }
}

/// The items that have numbers, and the keys that are of no kind that there is. A marker and a hint expire by themselves.
fn items(keys: &BTreeSet<String>) -> BTreeMap<Option<String>, String> {
    let mut items = BTreeMap::new();
    for key in keys {
        let (tag, kind) = match key.strip_prefix('{').and_then(|rest| rest.split_once("}:")) {
            None => (key.as_str(), ""),
            Some(parts) => parts,
        };
        let item = match kind {
            "" | "ledger" | "holds" | "due" | "restocks" => Some(tag.to_owned()),
            "items" | "heads" => continue,
            "item" if Uuid::try_parse(tag).is_ok() => continue,
            _ if kind.strip_prefix("marker:").is_some_and(|id| Uuid::try_parse(id).is_ok()) => continue,
            _ => None,
        };
        items.insert(item, key.clone());
    }
    items
}

/// Units available, the item's numbers, its holds, and how many deadlines and restocks it has.
type ItemAnswer = (Option<String>, BTreeMap<String, String>, Vec<String>, i64, i64);

async fn item_keys(connection: &mut MultiplexedConnection, item: &str, life: &str) -> Result<ItemKeys, RedisError> {
    let key = |name: &str| format!("{{{item}}}:{name}");
    let mut asked = redis::pipe();
    asked.get(item).hgetall(key("ledger")).hvals(key("holds")).zcard(key("due")).scard(key("restocks"));
    let (available, fields, holds, deadlines, restocks): ItemAnswer = asked.query_async(connection).await?;
    let number = |name: &str| fields.get(name).and_then(|text| text.parse::<i64>().ok());
    let available = available.and_then(|text| text.parse().ok());
    let named = ["epoch", "received", "held", "sold", "holds"].map(number);
    let complete = available.is_some() && named.iter().all(Option::is_some);
    let [epoch, received, held, sold, counted] = named.map(Option::unwrap_or_default);
    Ok(ItemKeys {
        open: complete
            && fields.get("incarnation").is_some_and(|loaded_in| loaded_in == life)
            && number("lease") == Some(epoch)
            && number("restocks") == Some(restocks),
        epoch,
        received,
        available: available.unwrap_or_default(),
        held,
        sold,
        holds: counted,
        entries: i64::try_from(holds.len()).unwrap_or(i64::MAX),
        deadlines,
        units: holds.iter().filter_map(|hold| hold.split(':').next()?.parse::<i64>().ok()).sum(),
    })
}

/// What became of the events: from `rabbitmqctl list_queues name messages`, and from the logs of all consumers, if they
/// logged what they handled.
pub fn events<R: BufRead>(queues: &str, logs: Option<Vec<R>>) -> io::Result<Events> {
    let messages = QUEUES.map(|queue| {
        let counts = queues.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(queue)).then(|| words.next()?.parse::<u64>().ok())?
        });
        counts.sum()
    });
    let handled = match logs {
        None => None,
        Some(logs) => {
            let mut handled = HashSet::new();
            for log in logs {
                for line in log.split(b'\n') {
                    handled.extend(handled_in(&String::from_utf8_lossy(&line?)));
                }
            }
            Some(handled)
        }
    };
    let [waiting, dead_letters] = messages;
    Ok(Events { waiting, dead_letters, handled })
}

/// The order whose event a line says was handled, in text or in JSON.
fn handled_in(line: &str) -> Option<Uuid> {
    let (_, after) = line.split_once(HANDLED)?;
    after.split(|c: char| !c.is_ascii_hexdigit() && c != '-').find_map(|word| Uuid::try_parse(word).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_4cde_8fff_0011_2233_4455);

    #[test]
    fn logs_and_lists_are_read() {
        let text = format!(
            "DEBUG process{{messaging.message.id=\"x\"}}: event handled message_id=\"{ID}\" outcome=Processed\n"
        );
        let json = format!("{{\"message\":\"event handled\",\"message_id\":\"{ID}\"}}\nINFO ready\n");
        for log in [text, json] {
            let events =
                events("name\tmessages\norder_created\t3\norder_created.dead\t1\n", Some(vec![log.as_bytes()]));
            let events = events.expect("read");
            assert_eq!((events.waiting, events.dead_letters), (3, 1));
            assert_eq!(events.handled, Some(HashSet::from([ID])));
        }
        let without = events("order_created 0", None::<Vec<&[u8]>>).expect("read");
        assert_eq!((without.waiting, without.handled), (0, None));
    }

    #[test]
    fn every_kind_of_key_is_known_and_no_other() {
        let keys = ["widget", "{widget}:holds", "{registry}:items", "{gadget}:due", "{widget}:other"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{{{ID}}}:item"), format!("{{widget}}:marker:{ID}")]);
        let found: Vec<_> = items(&keys.collect()).into_iter().collect();
        let names: Vec<_> = found.iter().map(|(item, _)| item.as_deref()).collect();
        assert_eq!(names, [None, Some("gadget"), Some("widget")]);
        assert_eq!(found[0].1, "{widget}:other");
    }
}
