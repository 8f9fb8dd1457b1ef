//! Services that stand still with their connections open.

use std::time::{Duration, Instant};

use servers::Redis;
use system_tests::{
    eventually,
    stack::{
        Stack, Stores,
        load::{Load, slowest},
    },
};

use crate::{DEMAND, SETTINGS, kills::balanced, only, summary, tell};

/// How long they stand still.
const FROZEN: Duration = Duration::from_secs(6);
/// What that costs a request at most, on two cores that everything shares.
const COST_MAX: Duration = Duration::from_millis(2_500);
/// Everybody has found out within this.
const DISCOVERY: Duration = Duration::from_secs(2);
/// They are used again so soon after.
const RECOVERY_LIMIT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_order_service_and_an_inventory_service_frozen_under_load_cost_a_request_two_seconds_and_fail_none() {
    let mut stack = Stack::start(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    let load = Load::start(&stack, DEMAND);
    load.orders(100).await;
    for names in [["order-service-1", "inventory-service-1"], ["order-service-2", "inventory-service-1"]] {
        let mark = load.mark();
        for name in names {
            stack.service(name).freeze();
        }
        let frozen = Instant::now();
        tokio::time::sleep(FROZEN).await;
        let asked = load.since(mark);
        for name in names {
            stack.service(name).thaw();
        }
        let found_out: Vec<_> = asked.iter().filter(|one| one.sent >= frozen + DISCOVERY).copied().collect();
        tell(&names.join(" and "), &asked, &format!("found out: {}", summary(&found_out)));
        load.orders(100).await;
        // Those that were under way too.
        let asked = load.since(mark);
        only(&asked, &[201, 409]);
        assert!(slowest(&asked) <= COST_MAX, "a request took {:?}", slowest(&asked));
        // Else it would be every other one.
        let slow = found_out.iter().filter(|one| one.took() >= Duration::from_millis(500)).count();
        assert!(!found_out.is_empty() && slow * 20 <= found_out.len(), "{slow} of {} were slow", found_out.len());
        let back = async || (stack.count("rpc_client_addresses_down").await == 0).then_some(());
        eventually(RECOVERY_LIMIT, "they are used again", back).await;
    }
    balanced(&stack, load, &[201, 409]).await;
}
