//! Which awaits of the product a crash has hit. Every await ends in a call of a port, a sleep, a queue or another task's
//! answer, and by that and by its task it is known: its place. `tests/awaits.rs` compares [`AWAITS`] with the sources.

use crate::{
    executor::{Kind, Waits},
    faults::Disaster,
};

/// A pause.
pub const SLEEP: &str = "sleep";
/// An answer of another task.
pub const ANSWER: &str = "answer";
/// An item that another task opens.
pub const OPENING: &str = "opening";
/// The same, after a look at an item that does not settle its hold.
pub const MENDING: &str = "mending";
/// Orders that are to be committed.
pub const QUEUE: &str = "queue";
/// It was not polled yet.
pub const START: &str = "start";

/// Longest sleep that is no time-out, in microseconds.
const PAUSE_MICROS_MAX: u64 = 1_000_000;

/// A task of this kind, waiting there.
pub type Place = (Kind, &'static str);

/// What a task waits in. A time-out beside a port's call is none of it.
pub fn leaves(kind: Kind, waits: &Waits) -> Vec<&'static str> {
    if !waits.leaves.is_empty() {
        return waits.leaves.clone();
    }
    let sleep = waits.sleeps.iter().map(|(_, micros)| *micros).min();
    let leaf = match (kind, sleep) {
        (Kind::Committer, _) => QUEUE,
        (Kind::OrderCall | Kind::StockCall | Kind::Work, _) | (Kind::PlaceOrder, None) => ANSWER,
        (Kind::PlaceOrder | Kind::Relay | Kind::Janitor | Kind::Lease, Some(_))
        | (Kind::Reaper | Kind::Consumer, Some(..=PAUSE_MICROS_MAX)) => SLEEP,
        (Kind::Reaper, Some(_)) if waits.last == Some("store.probe") => MENDING,
        (Kind::Reaper | Kind::Consumer, Some(_)) => OPENING,
        (Kind::Relay | Kind::Janitor | Kind::Reaper | Kind::Consumer | Kind::Lease, None)
        | (Kind::Client | Kind::Network | Kind::Faults, _) => START,
    };
    vec![leaf]
}

/// An await: its function, what is awaited there, and the places that are in it. Without places it is a planted bug's.
pub type Await = (&'static str, &'static str, &'static [Place]);

const HANDED_OVER: Place = (Kind::OrderCall, ANSWER);
const OF_HOLD: Place = (Kind::PlaceOrder, "ledger.order_of_hold");
const OF_KEY: Place = (Kind::PlaceOrder, "ledger.order_by_key");
const RESERVE: Place = (Kind::PlaceOrder, "inventory.reserve");
const RELEASE: Place = (Kind::PlaceOrder, "inventory.release");
const COMMITTED: Place = (Kind::PlaceOrder, ANSWER);
const COMMIT_PAUSE: Place = (Kind::PlaceOrder, SLEEP);
const TO_COMMIT: Place = (Kind::Committer, QUEUE);
const COMMIT: Place = (Kind::Committer, "ledger.commit");
const RELAY_PAUSE: Place = (Kind::Relay, SLEEP);
const BACKLOG: Place = (Kind::Relay, "ledger.outbox_backlog");
const TAKE: Place = (Kind::Relay, "ledger.take_outbox");
const SETTLE: Place = (Kind::Relay, "ledger.settle");
const RELAY_DECLARE: Place = (Kind::Relay, "broker.declare");
const PUBLISH: Place = (Kind::Relay, "broker.publish");
const REAPER_PAUSE: Place = (Kind::Reaper, SLEEP);
const DUE: Place = (Kind::Reaper, "store.due");
const VERDICTS: Place = (Kind::Reaper, "ledger.resolve");
const REAP_RELEASE: Place = (Kind::Reaper, "store.release");
const REAP_CONFIRM: Place = (Kind::Reaper, "store.confirm");
const REAP_PROBE: Place = (Kind::Reaper, "store.probe");
const REAP_MEND: Place = (Kind::Reaper, MENDING);
const SWEEP: Place = (Kind::Reaper, "store.open_items");
const SWEEP_STOCK: Place = (Kind::Reaper, "ledger.stock");
const SWEEP_OPEN: Place = (Kind::Reaper, OPENING);
const CONSUMER_PAUSE: Place = (Kind::Consumer, SLEEP);
const CONSUMER_DECLARE: Place = (Kind::Consumer, "broker.declare");
const CONSUME: Place = (Kind::Consumer, "broker.consume");
const NEXT: Place = (Kind::Consumer, "consumer.next");
const SETTLE_EVENT: Place = (Kind::Consumer, "consumer.settle");
const CONFIRM: Place = (Kind::Consumer, "store.confirm");
const EVENT_STOCK: Place = (Kind::Consumer, "ledger.stock");
const EVENT_OPEN: Place = (Kind::Consumer, OPENING);
const LEASE_PAUSE: Place = (Kind::Lease, SLEEP);
const PROBE: Place = (Kind::Lease, "store.probe");
const GRANT: Place = (Kind::Lease, "ledger.open_stock");
const LOAD: Place = (Kind::Lease, "store.load");

/// All awaits of the crash-tested files, by file, as they stand there.
pub const AWAITS: [(&str, &[Await]); 6] = [
    (
        "order/src/place_order.rs",
        &[
            ("place", "run", &[OF_HOLD, OF_KEY, RESERVE, RELEASE, COMMITTED, COMMIT_PAUSE]),
            ("place", "work", &[]),
            ("place", "detached", &[HANDED_OVER]),
            ("run", "replay", &[OF_HOLD, OF_KEY]),
            ("run", "attempt", &[RESERVE, RELEASE, COMMITTED, COMMIT_PAUSE]),
            ("attempt", "reserve", &[RESERVE]),
            ("attempt", "commit", &[COMMITTED, COMMIT_PAUSE]),
            ("attempt", "replay", &[OF_HOLD, OF_KEY]),
            ("attempt", "sold_before", &[OF_HOLD, OF_KEY]),
            ("commit", "commit", &[COMMITTED, COMMIT_PAUSE]),
            ("commit", "give_back", &[]),
            ("commit", "sold_before", &[OF_HOLD, OF_KEY]),
            ("commit", "give_back", &[RELEASE]),
            ("commit", "give_back", &[RELEASE]),
            ("replay", "order_of_hold", &[OF_HOLD]),
            ("replay", "order_by_key", &[OF_KEY]),
            ("sold_before", "replay", &[OF_HOLD, OF_KEY]),
            ("reserve", "reserve", &[RESERVE]),
            ("give_back", "release", &[RELEASE]),
        ],
    ),
    (
        "order/src/committer.rs",
        &[
            ("commit", "commit_once", &[COMMITTED]),
            ("commit", "sleep", &[COMMIT_PAUSE]),
            ("commit", "commit_once", &[COMMITTED]),
            ("commit_once", "result", &[COMMITTED]),
            ("run", "select!", &[TO_COMMIT]),
            ("run", "commit", &[COMMIT]),
            ("commit", "timeout", &[COMMIT]),
        ],
    ),
    (
        "order/src/relay.rs",
        &[
            ("run", "round", &[BACKLOG, TAKE, RELAY_DECLARE, PUBLISH, SETTLE]),
            ("run", "notified", &[RELAY_PAUSE]),
            ("run", "pending", &[RELAY_PAUSE]),
            ("run", "select!", &[RELAY_PAUSE]),
            ("round", "measure", &[BACKLOG]),
            ("round", "take_outbox", &[TAKE]),
            ("round", "settle", &[]),
            ("round", "publish", &[]),
            ("round", "publish", &[RELAY_DECLARE, PUBLISH]),
            ("round", "settle", &[SETTLE]),
            ("measure", "outbox_backlog", &[BACKLOG]),
            ("publish", "declare", &[RELAY_DECLARE]),
            ("publish", "publish", &[PUBLISH]),
            ("publish", "timeout", &[RELAY_DECLARE, PUBLISH]),
        ],
    ),
    (
        "inventory/src/reaper.rs",
        &[
            ("run", "select!", &[REAPER_PAUSE]),
            ("run", "round", &[DUE, VERDICTS, REAP_RELEASE, REAP_CONFIRM, SWEEP, SWEEP_STOCK, SWEEP_OPEN]),
            ("round", "reap", &[DUE, VERDICTS, REAP_RELEASE, REAP_CONFIRM]),
            ("round", "sweep_once", &[SWEEP, SWEEP_STOCK, SWEEP_OPEN]),
            ("reap", "reap_once", &[DUE, VERDICTS, REAP_RELEASE, REAP_CONFIRM]),
            ("reap_once", "step", &[DUE]),
            ("reap_once", "verdicts", &[VERDICTS]),
            ("reap_once", "collect", &[REAP_RELEASE, REAP_CONFIRM]),
            ("settle", "step", &[REAP_RELEASE]),
            ("settle", "mend", &[REAP_PROBE, REAP_MEND]),
            ("settle", "step", &[REAP_CONFIRM]),
            ("settle", "mend", &[REAP_PROBE, REAP_MEND]),
            ("settle", "release", &[REAP_RELEASE]),
            ("settle", "release", &[REAP_RELEASE]),
            ("mend", "step", &[REAP_PROBE]),
            ("mend", "open", &[REAP_MEND]),
            ("sweep_once", "step", &[SWEEP]),
            ("sweep_once", "lent", &[SWEEP_STOCK]),
            ("sweep_once", "open", &[SWEEP_OPEN]),
            ("open", "open", &[SWEEP_OPEN]),
            ("open", "collect", &[SWEEP_OPEN]),
        ],
    ),
    (
        "inventory/src/consumer.rs",
        &[
            ("run", "session", &[CONSUMER_DECLARE, CONSUME, NEXT, SETTLE_EVENT, CONFIRM, EVENT_STOCK, EVENT_OPEN]),
            ("run", "select!", &[CONSUMER_PAUSE]),
            ("session", "in_time", &[CONSUMER_DECLARE]),
            ("session", "in_time", &[CONSUME]),
            ("session", "select!", &[NEXT]),
            ("session", "handle_all", &[CONFIRM, EVENT_STOCK, EVENT_OPEN]),
            ("session", "in_time", &[SETTLE_EVENT]),
            ("handle_all", "handle", &[CONFIRM, EVENT_STOCK, EVENT_OPEN]),
            ("handle_all", "collect", &[CONFIRM, EVENT_STOCK, EVENT_OPEN]),
            ("handle", "sell", &[CONFIRM, EVENT_STOCK, EVENT_OPEN]),
            ("handle", "instrument", &[CONFIRM, EVENT_STOCK, EVENT_OPEN]),
            ("sell", "step", &[CONFIRM]),
            ("sell", "lent_of", &[EVENT_STOCK]),
            ("sell", "open", &[EVENT_OPEN]),
            ("in_time", "timeout", &[CONSUMER_DECLARE, CONSUME, SETTLE_EVENT]),
        ],
    ),
    (
        "inventory/src/opener.rs",
        &[
            ("open", "bounded", &[SWEEP_OPEN, EVENT_OPEN]),
            ("join", "open", &[LEASE_PAUSE, PROBE, GRANT, LOAD]),
            ("open", "sleep", &[LEASE_PAUSE]),
            ("open", "step", &[PROBE]),
            ("open", "lease", &[GRANT]),
            ("open", "load", &[LOAD]),
            ("load", "timeout", &[LOAD]),
            ("load", "timeout", &[]),
        ],
    ),
];

/// Every place that a crash is to hit.
pub fn places() -> Vec<Place> {
    let mut places: Vec<Place> =
        AWAITS.iter().flat_map(|(_, awaits)| awaits.iter().flat_map(|(.., at)| *at)).copied().collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// What has to happen before a task waits there at all.
pub fn needs(place: Place) -> Option<Disaster> {
    [REAP_PROBE, REAP_MEND].contains(&place).then_some(Disaster::StockEdited)
}
