//! Whether ledger, stock store, broker and clients agree (ARCHITECTURE.md, "Invariants").

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use servers::Redis;

use super::{Stack, load::Known};

/// The ledger's numbers of every item: epoch, first stock, restocks, sold by settled sum and outbox, confirmed orders.
const ITEMS: &str = "SELECT item, epoch, initial, \
    (SELECT coalesce(sum(quantity), 0) FROM restocks WHERE restocks.item = lease.item), \
    settled + (SELECT coalesce(sum(quantity), 0) FROM outbox WHERE outbox.item = lease.item), \
    (SELECT coalesce(sum(quantity), 0) FROM orders WHERE orders.item = lease.item) FROM stock_leases lease";

/// The stock store's numbers of an item: whether it was loaded in this life of the server, then epoch, available, held,
/// sold, received, and how many holds and deadlines there are.
const COUNTS: &str = "local ledger = '{' .. KEYS[1] .. '}:ledger' \
    local life = redis.call('INFO', 'replication'):match('master_replid:(%x+)') \
    local n = redis.call('HMGET', ledger, 'incarnation', 'epoch', 'held', 'sold', 'received') \
    return table.concat({ n[1] == life and 'open' or 'closed', n[2] or '', redis.call('GET', KEYS[1]) or '', \
    n[3] or '', n[4] or '', n[5] or '', redis.call('HLEN', '{' .. KEYS[1] .. '}:holds'), \
    redis.call('ZCARD', '{' .. KEYS[1] .. '}:due') }, ' ')";

/// Waits until the system is at rest and everything adds up, and fails with what does not when that is not so within
/// `limit`. Every item that anybody bought had `initial` units at first. Gives how many orders there are.
pub async fn at_rest(stack: &Stack, redis: &Redis, known: &Known, initial: i64, limit: Duration) -> usize {
    let end = Instant::now() + limit;
    loop {
        let wrong = unbalanced(stack, redis, known, initial).await;
        if wrong.is_empty() {
            return every_answer_stands(stack, known).await;
        }
        assert!(Instant::now() < end, "not at rest within {limit:?}: {wrong:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is not as it shall be at rest: I1, I2, I3, I7 and I10.
async fn unbalanced(stack: &Stack, redis: &Redis, known: &Known, initial: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    let waiting = stack.sql("SELECT count(*) FROM outbox").await.concat();
    if waiting != "0" {
        wrong.push(format!("{waiting} events wait in the outbox"));
    }
    let rows = stack.sql(ITEMS).await;
    for row in &rows {
        let (item, numbers) = row.split_once('|').expect("columns");
        let numbers: Vec<i64> = numbers.split('|').map(|number| number.parse().expect("a number")).collect();
        let [epoch, first, restocked, sold, confirmed] = numbers[..] else { panic!("{row}") };
        let received = initial + known.restocked.get(item).copied().unwrap_or(0);
        if first + restocked != received || first != initial {
            wrong.push(format!("{item}: {first} + {restocked} received in the ledger, and not {received}"));
        }
        if sold != confirmed || sold > received {
            wrong.push(format!("{item}: {sold} sold and {confirmed} confirmed of {received}"));
        }
        let free = received - sold;
        let counts = redis.cli(&["EVAL", COUNTS, "1", item]).await;
        // One that is not open is opened when somebody wants it.
        if counts != format!("open {epoch} {free} 0 {sold} {received} 0 0") && !counts.starts_with("closed") {
            wrong
                .push(format!("{item}: {counts} in the stock store, {epoch} {free} 0 {sold} {received} in the ledger"));
        }
        let answer = stack.http.get(&format!("/inventory/{item}")).await;
        if answer.status != 200 || answer.json()["stock"] != free {
            wrong.push(format!("{item}: {free} free, and told are {answer:?}"));
        }
    }
    if wrong.is_empty() {
        let queues = stack.queues().await;
        if queues != ["order_created 0", "order_created.dead 0"] {
            wrong.push(format!("{queues:?}"));
        }
    }
    wrong
}

/// I9: what was answered with 201 is in the ledger as it was answered.
async fn every_answer_stands(stack: &Stack, known: &Known) -> usize {
    let rows = stack.sql("SELECT id, item, quantity FROM orders").await;
    let orders: HashMap<&str, &str> = rows.iter().map(|row| row.split_once('|').expect("columns")).collect();
    assert!(!known.created.is_empty(), "nothing was bought");
    for (id, (item, units)) in &known.created {
        assert_eq!(orders.get(id.as_str()), Some(&format!("{item}|{units}").as_str()), "order {id} was answered");
    }
    orders.len()
}
