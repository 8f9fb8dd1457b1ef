//! RabbitMQ down, hung, short of memory or full: no order fails for it, and every event is handled in the end.

use std::time::{Duration, Instant};

use order::relay::RELAY_BATCH_MAX;
use servers::{Postgres, RabbitMq, Redis};
use system_tests::{
    eventually,
    stack::{
        Stack, Stores,
        audit::at_rest,
        load::{Demand, Load},
    },
};

use crate::{DEFAULT_STOCK, SETTINGS, only, say, tell};

/// Less than the machine can take: RabbitMQ's start alone keeps a core busy, and nobody may wait for long.
const DEMAND: Demand = Demand { pause: Duration::from_millis(40), ..crate::DEMAND };
/// How long it is away.
const OUTAGE: Duration = Duration::from_secs(10);
/// How long it hangs, is short of memory or is full.
const TROUBLE: Duration = Duration::from_secs(4);
/// So many events are placed within this that they cannot be on their way.
const PILE_LIMIT: Duration = Duration::from_secs(20);
/// The backlog is gone so soon after the broker is back, which takes seconds itself to find its queues again.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn without_rabbitmq_or_with_a_full_one_orders_are_placed_and_every_event_is_handled_afterwards() {
    let stack = stack().await;
    let rabbitmq = &stack.stores.rabbitmq;
    let load = Load::start(&stack, DEMAND);
    load.orders(50).await;

    // RabbitMQ 3.10 notes the name of a new queue behind its back. One that is killed before comes back with a queue that
    // is empty and has no leader until an operator triggers an election.
    rabbitmq.ctl(&["eval", "ok = dets:sync(ra_directory_reverse)."]).await;
    let mark = load.mark();
    rabbitmq.kill().await;
    let backlog = piled_up(&stack, OUTAGE).await;
    rabbitmq.start_again().await;
    drained(&stack, "RabbitMQ killed", &load, mark, backlog).await;

    let mark = load.mark();
    rabbitmq.pause();
    let backlog = piled_up(&stack, TROUBLE).await;
    rabbitmq.resume();
    drained(&stack, "RabbitMQ hung", &load, mark, backlog).await;

    // It stops reading from connections that publish.
    let mark = load.mark();
    rabbitmq.ctl(&["set_vm_memory_high_watermark", "absolute", "1MiB"]).await;
    let backlog = piled_up(&stack, TROUBLE).await;
    rabbitmq.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    drained(&stack, "RabbitMQ short of memory", &load, mark, backlog).await;

    // Nobody may read, so the queue fills.
    let mark = load.mark();
    let vhost = ["--vhost", &stack.vhost];
    let limit = r#"{"max-length":50}"#;
    rabbitmq.ctl(&[&["set_policy"], &vhost[..], &["full", "^order_created$", limit]].concat()).await;
    rabbitmq.ctl(&[&["set_permissions"], &vhost[..], &["guest", ".*", ".*", "^$"]].concat()).await;
    rabbitmq.ctl(&[&["close_all_connections"], &vhost[..], &["nobody may read"]].concat()).await;
    let backlog = piled_up(&stack, TROUBLE).await;
    rabbitmq.ctl(&[&["clear_policy"], &vhost[..], &["full"]].concat()).await;
    rabbitmq.ctl(&[&["set_permissions"], &vhost[..], &["guest", ".*", ".*", ".*"]].concat()).await;
    drained(&stack, "RabbitMQ full", &load, mark, backlog).await;
    every_event_is_handled(&stack, load).await;
}

async fn stack() -> Stack {
    let redis = Redis::start().await;
    let (postgres, rabbitmq) = tokio::join!(Postgres::shared(), RabbitMq::start());
    Stack::start(Stores { redis_url: redis.url(), postgres, redis, rabbitmq }, &SETTINGS).await
}

/// Lets the trouble last, and waits until more events wait than are ever on their way. Gives how many.
async fn piled_up(stack: &Stack, trouble: Duration) -> usize {
    tokio::time::sleep(trouble).await;
    let many = async || {
        let waiting: usize = stack.sql("SELECT count(*) FROM outbox").await.concat().parse().expect("a number");
        (waiting > 2 * RELAY_BATCH_MAX as usize).then_some(waiting)
    };
    eventually(PILE_LIMIT, "events wait in the outbox", many).await
}

/// Waits until nothing waits that waited before, although orders go on.
async fn drained(stack: &Stack, fault: &str, load: &Load, mark: usize, backlog: usize) {
    let newest = stack.sql("SELECT coalesce(max(seq), 0) FROM outbox").await.concat();
    let since = Instant::now();
    let left = format!("SELECT count(*) FROM outbox WHERE seq <= {newest}");
    let gone = async || (stack.sql(&left).await == ["0"]).then_some(());
    eventually(DRAIN_LIMIT, "the backlog is gone", gone).await;
    let asked = load.since(mark);
    tell(fault, &asked, &format!("{backlog} events waited, gone {:.1?} after", since.elapsed()));
    only(&asked, &[201]);
}

/// I7 and I8: nothing was lost, nothing had its effect twice.
async fn every_event_is_handled(stack: &Stack, load: Load) {
    let known = load.stop().await;
    only(&known.asked, &[201]);
    let orders = at_rest(stack, &stack.stores.redis, &known, DEFAULT_STOCK, DRAIN_LIMIT).await as u64;
    let (processed, events) = (stack.count("orders_processed_total").await, stack.count("order_events_total").await);
    say(&format!("{orders} orders, {processed} processed, {events} events handled"));
    assert_eq!(processed, orders, "holds that became sales");
    assert!(events >= orders, "{events} events handled of {orders}");
}
