//! Dependencies that are not there when the services start.

use std::time::{Duration, Instant};

use servers::Redis;
use system_tests::{
    eventually,
    stack::{Stack, Stores, audit::at_rest, load::Known},
};

use crate::{DEFAULT_STOCK, REST_LIMIT, SETTINGS, ask, only, say, summary, told_soon};

/// Orders are placed again so soon after the last thing that they need is back.
const RECOVERY_LIMIT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn whatever_is_down_at_the_start_services_stay_up_refuse_at_once_and_recover() {
    let stores = Stores::own(Redis::start().await).await;
    let mut stack = Stack::prepare(stores, &SETTINGS).await;
    let mut known = Known::default();

    stack.stores.redis.kill().await;
    start(&mut stack, &[]).await;
    refused(&stack, &mut known, "Redis").await;
    stack.stores.redis.start_again().await;
    recovers(&stack, &mut known, "Redis").await;

    stack.kill_services().await;
    stack.stores.postgres.kill().await;
    start(&mut stack, &[]).await;
    refused(&stack, &mut known, "Postgres").await;
    stack.stores.postgres.start_again().await;
    recovers(&stack, &mut known, "Postgres").await;

    for kind in ["inventory-service", "order-service"] {
        stack.kill_services().await;
        let names = [format!("{kind}-1"), format!("{kind}-2")];
        start(&mut stack, &names).await;
        refused(&stack, &mut known, kind).await;
        for name in &names {
            stack.service(name).start();
        }
        for name in &names {
            stack.service(name).until_ready().await;
        }
        recovers(&stack, &mut known, kind).await;
    }

    stack.kill_services().await;
    tokio::join!(stack.stores.redis.kill(), stack.stores.postgres.kill(), stack.stores.rabbitmq.kill());
    start(&mut stack, &[]).await;
    refused(&stack, &mut known, "all stores").await;
    stack.stores.redis.start_again().await;
    refused(&stack, &mut known, "Postgres and RabbitMQ").await;
    stack.stores.postgres.start_again().await;
    recovers(&stack, &mut known, "all stores but RabbitMQ").await;
    let asked = ask(&stack, &mut known, 20).await;
    only(&asked, &[201]);
    say(&format!("RabbitMQ down at the start: {}", summary(&asked)));
    stack.stores.rabbitmq.start_again().await;
    at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
    for process in stack.services() {
        process.assert_runs();
    }
}

/// Starts the services but those of these names, and waits until each answers that it lives.
async fn start(stack: &mut Stack, without: &[String]) {
    for process in stack.services().filter(|process| !without.contains(&process.name)) {
        process.start();
        let name = process.name.clone();
        let lives = async || (process.health("/healthz").await == 200).then_some(());
        eventually(Duration::from_secs(10), &format!("{name} lives"), lives).await;
    }
}

/// Orders are refused, at once, by services that go on.
async fn refused(stack: &Stack, known: &mut Known, down: &str) {
    let asked = ask(stack, known, 20).await;
    only(&asked, &[503]);
    say(&format!("{down} down at the start: {}", summary(&asked)));
    told_soon(&asked);
}

/// Orders are placed again, by the same processes.
async fn recovers(stack: &Stack, known: &mut Known, back: &str) {
    let since = Instant::now();
    while ask(stack, known, 1).await[0].status != 201 {
        assert!(since.elapsed() < RECOVERY_LIMIT, "{back} is back, and no order is placed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say(&format!("{back} back: order after {:.0?}", since.elapsed()));
}
