//! Each service killed and started again under load.

use std::time::Duration;

use servers::Redis;
use system_tests::stack::{Stack, Stores, audit::at_rest, load::Load};

use crate::{DEFAULT_STOCK, DEMAND, REST_LIMIT, SETTINGS, only, repeat_keys, say, tell};

/// How long a service is away.
const AWAY: Duration = Duration::from_secs(1);
const SERVICES: [&str; 6] =
    ["edge-1", "order-service-1", "inventory-service-1", "edge-2", "order-service-2", "inventory-service-2"];

#[tokio::test]
async fn each_service_killed_in_turn_under_load_no_answer_is_worse_than_503_and_the_books_balance() {
    let mut stack = Stack::start(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    let load = Load::start(&stack, DEMAND);
    load.orders(100).await;
    for name in SERVICES {
        let mark = load.mark();
        stack.service(name).kill().await;
        tokio::time::sleep(AWAY).await;
        stack.service(name).start();
        stack.service(name).until_ready().await;
        load.orders(20).await;
        tell(&format!("{name} killed"), &load.since(mark), "");
    }
    balanced(&stack, load, &[201, 409, 503]).await;
}

pub async fn balanced(stack: &Stack, load: Load, allowed: &[u16]) {
    let mut known = load.stop().await;
    only(&known.asked, allowed);
    repeat_keys(stack, &mut known).await;
    let orders = at_rest(stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
    say(&format!("{} orders answered, {orders} in the ledger", known.created.len()));
}
