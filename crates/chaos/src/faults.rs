//! What is done to the system, each kind from its begin to its end.

use std::time::Duration;

use service::manual::Dice;
use tokio::time::sleep;

use crate::one_of;
use crate::proxy::{Direction, Link, Mode};
use crate::system::System;

mod stock_store;

/// What a fault hits. Two faults at once hit different parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One of two of this kind.
    Service(&'static str),
    /// NGINX.
    Gateway,
    /// The stock store.
    Redis,
    /// The ledger.
    Postgres,
    /// The broker.
    RabbitMq,
    /// One link of all.
    Link,
}

/// How something is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL, and started again.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// SIGTERM, waited for, and started again; of Postgres its immediate stop.
    Stop,
    /// New workers take over.
    Reload,
    /// Killed, and started with the end of what it kept cut off.
    Truncate,
    /// All is deleted.
    Flush,
    /// All keys of an item are deleted.
    DeleteItem,
    /// An item's keys are changed, as by hand.
    Edit,
    /// A lagging replica takes over, and gives back.
    FailOver,
    /// A lagging replica takes over for one inventory service, while the other one still asks the old primary.
    SplitBrain,
    /// Sessions are ended in the middle of their statements, again and again.
    TerminateSessions,
    /// The events' queue is deleted, once nothing is left in it.
    DeleteQueue,
    /// All connections are closed.
    CloseConnections,
    /// Bytes arrive later.
    Delay,
    /// Bytes arrive later, now more and now less.
    Jitter,
    /// Connections are reset.
    Reset,
    /// Nothing arrives.
    BlackHole,
    /// Nothing arrives in one direction.
    Silence,
    /// Connections are reset after some bytes.
    Cut,
    /// Nobody listens.
    Refuse,
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// In the history and in the report.
    pub name: &'static str,
    /// What is hit.
    pub part: Part,
    /// How.
    pub blow: Blow,
}

const EDGE: Part = Part::Service("edge");
const ORDER: Part = Part::Service("order-service");
const INVENTORY: Part = Part::Service("inventory-service");

const fn kind(name: &'static str, part: Part, blow: Blow) -> Kind {
    Kind { name, part, blow }
}

/// All there are.
pub const KINDS: [Kind; 34] = [
    kind("edge_killed", EDGE, Blow::Kill),
    kind("edge_frozen", EDGE, Blow::Freeze),
    kind("edge_stopped", EDGE, Blow::Stop),
    kind("order_killed", ORDER, Blow::Kill),
    kind("order_frozen", ORDER, Blow::Freeze),
    kind("order_stopped", ORDER, Blow::Stop),
    kind("inventory_killed", INVENTORY, Blow::Kill),
    kind("inventory_frozen", INVENTORY, Blow::Freeze),
    kind("inventory_stopped", INVENTORY, Blow::Stop),
    kind("gateway_killed", Part::Gateway, Blow::Kill),
    kind("gateway_reloaded", Part::Gateway, Blow::Reload),
    kind("redis_killed", Part::Redis, Blow::Kill),
    kind("redis_frozen", Part::Redis, Blow::Freeze),
    kind("redis_truncated", Part::Redis, Blow::Truncate),
    kind("redis_wiped", Part::Redis, Blow::Flush),
    kind("redis_item_deleted", Part::Redis, Blow::DeleteItem),
    kind("redis_edited", Part::Redis, Blow::Edit),
    kind("redis_failed_over", Part::Redis, Blow::FailOver),
    kind("redis_split", Part::Redis, Blow::SplitBrain),
    kind("postgres_killed", Part::Postgres, Blow::Kill),
    kind("postgres_frozen", Part::Postgres, Blow::Freeze),
    kind("postgres_stopped", Part::Postgres, Blow::Stop),
    kind("postgres_sessions_ended", Part::Postgres, Blow::TerminateSessions),
    kind("rabbitmq_killed", Part::RabbitMq, Blow::Kill),
    kind("rabbitmq_frozen", Part::RabbitMq, Blow::Freeze),
    kind("rabbitmq_topology_lost", Part::RabbitMq, Blow::DeleteQueue),
    kind("rabbitmq_connections_closed", Part::RabbitMq, Blow::CloseConnections),
    kind("link_slow", Part::Link, Blow::Delay),
    kind("link_jittery", Part::Link, Blow::Jitter),
    kind("link_reset", Part::Link, Blow::Reset),
    kind("link_black_hole", Part::Link, Blow::BlackHole),
    kind("link_half_open", Part::Link, Blow::Silence),
    kind("link_cut", Part::Link, Blow::Cut),
    kind("link_refused", Part::Link, Blow::Refuse),
];

/// Everything that went into the queue has been handled within this, once nothing more goes in.
const QUEUE_EMPTY_LIMIT: Duration = Duration::from_secs(30);
const RESETS: u32 = 6;

/// What a fault has hit.
#[derive(Debug)]
pub struct Hit {
    /// For whoever reads.
    pub what: String,
    /// Orders had to go on: there was another of what was hit, or orders do not need it.
    pub leaves_orders_going: bool,
}

impl Kind {
    /// May meet another fault that hits another part.
    pub fn may_overlap(self) -> bool {
        // The queue does not empty while its consumers are in trouble.
        self.blow != Blow::DeleteQueue
    }

    /// Orders are to be placed again so soon after its end.
    pub fn recovery_limit(self) -> Duration {
        Duration::from_secs(if self.part == Part::Postgres { 3 } else { 2 })
    }

    /// Does it to the system, and ends it: everything runs again.
    pub async fn inflict(self, system: &System, dice: &mut Dice) -> Hit {
        // An edge that says nothing keeps whoever is sent to it waiting, and in the end that is every client.
        let is_mute = matches!(self.blow, Blow::Freeze | Blow::BlackHole | Blow::Silence);
        let (what, leaves_orders_going) = match self.part {
            Part::Service(kind) => {
                let name = format!("{kind}-{}", 1 + dice.below(2));
                hit_service(self.blow, system, &name, dice).await;
                (name, !(is_mute && self.part == EDGE))
            }
            Part::Gateway => {
                hit_gateway(self.blow, system, dice).await;
                (String::new(), self.blow == Blow::Reload)
            }
            Part::Redis => (stock_store::hit(self.blow, system, dice).await, false),
            Part::Postgres => {
                hit_ledger(self.blow, system, dice).await;
                (String::new(), false)
            }
            Part::RabbitMq => {
                hit_broker(self.blow, system, dice).await;
                (String::new(), true)
            }
            Part::Link => {
                let link = one_of(dice, &system.links);
                hit_link(self.blow, link, dice).await;
                (format!("{} to {}", link.from, link.to), !(is_mute && link.to.starts_with("edge")))
            }
        };
        Hit { what, leaves_orders_going }
    }
}

/// Some time between these, in milliseconds.
async fn pass(dice: &mut Dice, from: u64, to: u64) {
    sleep(Duration::from_millis(from + dice.below(to - from))).await;
}

async fn hit_service(blow: Blow, system: &System, name: &str, dice: &mut Dice) {
    let mut process = system.service(name).await;
    match blow {
        Blow::Freeze => {
            process.freeze();
            pass(dice, 1_000, 5_000).await;
            process.thaw();
            return;
        }
        Blow::Kill => process.kill().await,
        Blow::Stop => drop(process.end().await),
        other => panic!("{other:?} does not hit a service"),
    }
    system.set_dead(name, true);
    pass(dice, 200, 1_500).await;
    process.start();
    system.set_dead(name, false);
    process.until_ready().await;
}

async fn hit_gateway(blow: Blow, system: &System, dice: &mut Dice) {
    match blow {
        Blow::Kill => {
            system.nginx.kill().await;
            pass(dice, 100, 800).await;
            system.nginx.start_again().await;
        }
        Blow::Reload => system.reload_gateway(),
        other => panic!("{other:?} does not hit the gateway"),
    }
}

async fn hit_ledger(blow: Blow, system: &System, dice: &mut Dice) {
    let postgres = &system.postgres;
    match blow {
        Blow::Freeze => {
            postgres.pause();
            pass(dice, 800, 3_000).await;
            postgres.resume();
        }
        Blow::TerminateSessions => {
            let database = &system.database;
            let terminate = format!(
                "DO $$ BEGIN FOR i IN 1..60 LOOP PERFORM pg_stat_clear_snapshot(); \
                 PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' \
                 AND state <> 'idle' AND pid <> pg_backend_pid(); PERFORM pg_sleep(0.02); END LOOP; END $$"
            );
            system.postgres.sql("postgres", &terminate).await;
        }
        Blow::Kill | Blow::Stop => {
            match blow {
                Blow::Kill => postgres.kill().await,
                _ => postgres.stop_at_once().await,
            }
            system.set_dead(crate::system::POSTGRES, true);
            pass(dice, 100, 1_500).await;
            postgres.start_again().await;
            system.set_dead(crate::system::POSTGRES, false);
        }
        other => panic!("{other:?} does not hit the ledger"),
    }
}

async fn hit_broker(blow: Blow, system: &System, dice: &mut Dice) {
    let rabbitmq = &system.rabbitmq;
    let vhost = ["--vhost", &system.vhost];
    match blow {
        Blow::Freeze => {
            rabbitmq.pause();
            pass(dice, 1_000, 5_000).await;
            rabbitmq.resume();
        }
        Blow::Kill => {
            rabbitmq.kill().await;
            system.set_dead(crate::system::RABBITMQ, true);
            pass(dice, 200, 2_000).await;
            rabbitmq.start_again().await;
            system.set_dead(crate::system::RABBITMQ, false);
        }
        Blow::CloseConnections => {
            rabbitmq.ctl(&[&["close_all_connections"], &vhost[..], &["by hand"]].concat()).await;
        }
        Blow::DeleteQueue => delete_queue(system, &vhost).await,
        other => panic!("{other:?} does not hit the broker"),
    }
}

/// Nobody may publish meanwhile: what is deleted with the queue is lost, and that is the operator's doing.
async fn delete_queue(system: &System, vhost: &[&str]) {
    let publishers = || system.links_to(crate::system::RABBITMQ).filter(|link| link.from.starts_with("order"));
    publishers().for_each(|link| link.set(Mode::Refuse));
    let empty = async || {
        let listed = system.rabbitmq.ctl(&[&["list_queues"], vhost, &["name", "messages"]].concat()).await;
        listed.lines().any(|line| line.split_whitespace().eq(["order_created", "0"])).then_some(())
    };
    servers::eventually(QUEUE_EMPTY_LIMIT, "the queue is empty", empty).await;
    system.rabbitmq.ctl(&[&["delete_queue"], vhost, &["order_created"]].concat()).await;
    publishers().for_each(|link| link.set(Mode::Pass));
}

async fn hit_link(blow: Blow, link: &Link, dice: &mut Dice) {
    let mut millis = |from, to: u64| Duration::from_millis(from + dice.below(to - from));
    let mode = match blow {
        Blow::Delay => Mode::Delay { least: millis(20, 200), jitter: Duration::ZERO },
        Blow::Jitter => Mode::Delay { least: Duration::ZERO, jitter: millis(50, 300) },
        Blow::BlackHole => Mode::BlackHole,
        Blow::Silence if dice.below(2) == 0 => Mode::Silent(Direction::ToServer),
        Blow::Silence => Mode::Silent(Direction::ToClient),
        Blow::Cut => Mode::CutAfter(100 + dice.below(20_000)),
        Blow::Refuse => Mode::Refuse,
        Blow::Reset => {
            for _ in 0..RESETS {
                link.reset();
                pass(dice, 50, 400).await;
            }
            return;
        }
        other => panic!("{other:?} does not hit a link"),
    };
    link.set(mode);
    pass(dice, 1_000, 4_000).await;
    link.set(Mode::Pass);
}
