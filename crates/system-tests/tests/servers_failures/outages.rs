//! Redis and Postgres gone or hung under load, and a Postgres whose disk is full.

use std::time::{Duration, Instant};

use servers::{Postgres, RabbitMq, Redis};
use system_tests::stack::{
    Stack, Stores,
    audit::at_rest,
    load::{Asked, Load, slowest, statuses},
};

use crate::{DEFAULT_STOCK, DEMAND, REST_LIMIT, SETTINGS, only, repeat_keys, say, summary, tell, told_soon};

/// Orders are placed again so soon after Redis is back, empty as it may be (I11).
const REDIS_RECOVERY_LIMIT: Duration = Duration::from_secs(2);
/// The same of Postgres.
const POSTGRES_RECOVERY_LIMIT: Duration = Duration::from_secs(3);
/// How long a store is away.
const OUTAGE: Duration = Duration::from_secs(3);
/// How long it hangs.
const HANG: Duration = Duration::from_secs(7);
/// What was under way when a store died may take so long.
const FIRST_MOMENTS: Duration = Duration::from_millis(500);
/// So long after a store has stopped to answer, whoever waited for it has given up, and it counts as down.
const PATIENCE: Duration = Duration::from_secs(5);
/// Orders that cannot be written are refused within this.
const FULL_DISK_LIMIT: Duration = Duration::from_secs(2);
/// Clients wait no longer, whatever hangs: the edge's deadline, and a little for its answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(5_500);

/// What an order, or a look at whether one could be placed, is written to.
const TABLES: [&str; 3] = ["order_verdicts", "outbox", "pulse"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Redis,
    Postgres,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Hung,
}

#[tokio::test]
async fn redis_and_postgres_killed_or_hung_under_load_are_told_at_once_and_recover_with_nothing_lost() {
    let mut stack = stack().await;
    let load = Load::start(&stack, DEMAND);
    load.orders(100).await;
    for (store, fault) in [
        (Store::Redis, Fault::Killed),
        (Store::Postgres, Fault::Killed),
        (Store::Redis, Fault::Hung),
        (Store::Postgres, Fault::Hung),
    ] {
        outage(&stack, &load, store, fault).await;
        load.orders(50).await;
    }
    // Postgres dies at more moments: what it answered it keeps.
    for _ in 0..3 {
        stack.stores.postgres.kill().await;
        stack.stores.postgres.start_again().await;
        load.orders(50).await;
    }
    let mut known = load.stop().await;
    repeat_keys(&stack, &mut known).await;
    let orders = at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
    say(&format!("{} orders answered, {orders} in the ledger", known.created.len()));
    for process in stack.services() {
        process.assert_runs();
    }
}

async fn stack() -> Stack {
    let redis = Redis::start().await;
    let (postgres, rabbitmq) = tokio::join!(Postgres::start(), RabbitMq::shared());
    Stack::start(Stores { redis_url: redis.url(), postgres, redis, rabbitmq }, &SETTINGS).await
}

async fn outage(stack: &Stack, load: &Load, store: Store, fault: Fault) {
    let (redis, postgres) = (&stack.stores.redis, &stack.stores.postgres);
    let mark = load.mark();
    match (store, fault) {
        (Store::Redis, Fault::Killed) => redis.kill().await,
        (Store::Redis, Fault::Hung) => redis.pause(),
        (Store::Postgres, Fault::Killed) => postgres.kill().await,
        (Store::Postgres, Fault::Hung) => postgres.pause(),
    }
    let gone = Instant::now();
    let (first_moments, end) = match fault {
        Fault::Killed => (FIRST_MOMENTS, OUTAGE),
        Fault::Hung => (PATIENCE, HANG),
    };
    tokio::time::sleep(end).await;
    match (store, fault) {
        (Store::Redis, Fault::Killed) => redis.start_again().await,
        (Store::Redis, Fault::Hung) => redis.resume(),
        (Store::Postgres, Fault::Killed) => postgres.start_again().await,
        (Store::Postgres, Fault::Hung) => postgres.resume(),
    }
    let healed = Instant::now();
    let recovery = load.next_order(healed).await;

    let asked = load.since(mark);
    let away = gone + first_moments..gone + end;
    let meanwhile: Vec<_> = asked.iter().filter(|one| away.contains(&one.sent)).copied().collect();
    let told = format!("meanwhile {}; order {recovery:.0?} after it was back", summary(&meanwhile));
    tell(&format!("{store:?} {fault:?}"), &asked, &told);
    assert!(statuses(&meanwhile).contains_key(&503), "it was not missed: {}", summary(&meanwhile));
    told_soon(&meanwhile);
    match fault {
        Fault::Killed => only(&asked, &[201, 409, 503]),
        Fault::Hung => only(&asked, &[201, 409, 503, 504]),
    }
    assert!(slowest(&asked) <= ANSWER_LIMIT, "told after {:?}", slowest(&asked));
    let limit = if store == Store::Redis { REDIS_RECOVERY_LIMIT } else { POSTGRES_RECOVERY_LIMIT };
    assert!(recovery <= limit, "{store:?} {fault:?}: an order after {recovery:?} only");
}

#[tokio::test]
async fn a_ledger_whose_disk_is_full_refuses_orders_and_takes_them_once_it_can() {
    let stack = stack().await;
    let load = Load::start(&stack, DEMAND);
    load.orders(50).await;
    // What a full disk does to a statement that writes, while what reads goes on.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$";
    stack.sql(refuse).await;
    let fills = TABLES.map(|table| format!("CREATE TRIGGER refuse BEFORE INSERT ON {table} EXECUTE FUNCTION refuse()"));
    let is_cleared = TABLES.map(|table| format!("DROP TRIGGER refuse ON {table}"));
    let mark = load.mark();
    stack.sql(&fills.join("; ")).await;
    tokio::time::sleep(FIRST_MOMENTS).await;
    let full = load.mark();
    tokio::time::sleep(OUTAGE).await;
    let meanwhile = load.since(full);
    let ready = stack.http.get("/readyz").await;
    stack.sql(&is_cleared.join("; ")).await;
    let recovery = load.next_order(Instant::now()).await;
    let told = format!("meanwhile {}; order {recovery:.0?} after", summary(&meanwhile));
    tell("Postgres full", &load.since(mark), &told);
    only(&load.since(mark), &[201, 409, 503]);
    assert!(!meanwhile.iter().any(Asked::placed), "an order was placed in a ledger that cannot write");
    // It answers: each order is tried again, alone too.
    assert!(slowest(&meanwhile) <= FULL_DISK_LIMIT, "told after {:?}", slowest(&meanwhile));
    ready.problem(503, "UNAVAILABLE");
    assert!(recovery <= POSTGRES_RECOVERY_LIMIT, "an order after {recovery:?} only");
    let mut known = load.stop().await;
    repeat_keys(&stack, &mut known).await;
    at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
}
