//! All services and both edges are ended by SIGTERM and started again in turn, round after round, under load: nobody is
//! told anything but that an order was placed or that too little is left, at the first try.
//!
//! `RESTART_SECONDS` says how long.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::time::{Duration, Instant};

use futures::future::join;
use servers::Redis;
use system_tests::stack::{
    Process, Stack, Stores,
    audit::at_rest,
    load::{Asked, Demand, Load, slowest, statuses, within},
};

const SECONDS_DEFAULT: u64 = 45;
const DEFAULT_STOCK: i64 = 1_000_000;
const SETTINGS: [(&str, &str); 3] =
    [("DEFAULT_STOCK", "1000000"), ("RESERVATION_TTL_SECONDS", "2"), ("RUST_LOG", "warn")];
/// Everything adds up within the life of a hold and 5 s (I10).
const REST_LIMIT: Duration = Duration::from_secs(2 + 5);
/// Thousand orders of the scarce item, and it is sold out.
const DEMAND: Demand = Demand {
    items: &[("widget", 1), ("gadget", 2), ("gizmo", 3), ("scarce", 1_000), ("doodad", 1)],
    restocked: Some("widget"),
    clients: 16,
    pause: Duration::from_millis(5),
};
const ROUND: [&str; 6] =
    ["edge-1", "order-service-1", "inventory-service-1", "edge-2", "order-service-2", "inventory-service-2"];

#[tokio::test]
async fn everything_restarted_in_turn_under_load_fails_nobody() {
    let seconds = std::env::var("RESTART_SECONDS").map_or(SECONDS_DEFAULT, |text| text.parse().expect("a number"));
    let mut stack = Stack::start(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    let load = Load::start(&stack, DEMAND);
    load.orders(100).await;
    let (since, mut restarts, mut longest) = (Instant::now(), 0, Duration::ZERO);
    for name in ROUND.into_iter().cycle() {
        let process = stack.service(name);
        let (begin, mark) = (Instant::now(), load.mark());
        end_and_start(process).await;
        longest = longest.max(begin.elapsed());
        let asked = load.since(mark);
        assert!(only_expected(&asked), "while {name} was restarted: {:?}", statuses(&asked));
        restarts += 1;
        if since.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    assert!(restarts >= ROUND.len(), "each at least once in {seconds} s, and not only {restarts}");
    let known = load.stop().await;
    let asked = &known.asked;
    let times = format!(
        "p50 {:.1?}, p99 {:.1?}, slowest {:.1?}; longest restart {longest:.1?}",
        within(asked, 50),
        within(asked, 99),
        slowest(asked)
    );
    say(&format!("{restarts} restarts in {:.0?}: {:?}, {times}", since.elapsed(), statuses(asked)));
    assert!(only_expected(asked), "{:?}", statuses(asked));
    assert!(statuses(asked).contains_key(&409), "the scarce item is sold out");
    at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
}

/// Both replicas of a service at once: there is nobody to answer for a while, which is told, and no order is lost.
#[tokio::test]
async fn both_of_a_service_restarted_at_once_under_load_are_503_at_worst() {
    let mut stack = Stack::start(Stores::shared(Redis::start().await).await, &SETTINGS).await;
    let load = Load::start(&stack, DEMAND);
    load.orders(100).await;
    for pair in ["orders", "inventories", "edges"] {
        let mark = load.mark();
        let [first, second] = match pair {
            "orders" => &mut stack.orders,
            "inventories" => &mut stack.inventories,
            _ => &mut stack.edges,
        };
        join(end_and_start(first), end_and_start(second)).await;
        load.orders(20).await;
        say(&format!("both {pair}: {:?}", statuses(&load.since(mark))));
    }
    let known = load.stop().await;
    let statuses = statuses(&known.asked);
    assert!(statuses.keys().all(|status| [201, 409, 503].contains(status)), "{statuses:?}");
    at_rest(&stack, &stack.stores.redis, &known, DEFAULT_STOCK, REST_LIMIT).await;
}

/// It drains, ends without a failure, and is back.
async fn end_and_start(process: &mut Process) {
    process.signal("TERM");
    let left = async || (process.health("/readyz").await == 503).then_some(());
    system_tests::eventually(Duration::from_secs(5), "it is not ready any more", left).await;
    let status = process.wait().await;
    assert!(status.success(), "{}: {status}\n{}", process.name, process.log_end());
    process.start();
    process.until_ready().await;
}

fn only_expected(asked: &[Asked]) -> bool {
    asked.iter().all(|asked| [201, 409].contains(&asked.status))
}

/// For who reads what a test has measured.
#[expect(clippy::print_stdout, reason = "the test runner shows it")]
fn say(text: &str) {
    println!("{text}");
}
