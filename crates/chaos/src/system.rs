//! The system under fire: two edges behind NGINX, two order services, two inventory services, Postgres, Redis with a
//! replica and RabbitMQ, with a [`Link`] of its own between any two that talk.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use servers::{Nginx, Port, Postgres, Process, READY_TIMEOUT, RabbitMq, Redis, eventually, gateway_config, get, local};
use tokio::sync::{Mutex, MutexGuard};

use crate::proxy::Link;

/// Life of the holds of orders under way.
pub const TTL: Duration = Duration::from_secs(5);
/// Every item begins with one unit; of the others more is received.
pub const FIRST_STOCK: i64 = 1;
/// A replica has what its primary has within this.
const REPLICA_LIMIT: Duration = Duration::from_secs(20);
/// Who links lead from and to, beside the services.
const GATEWAY: &str = "nginx";
/// See [`Link::to`].
pub const POSTGRES: &str = "postgres";
/// See [`Link::to`].
pub const REDIS: &str = "redis";
/// See [`Link::to`].
pub const RABBITMQ: &str = "rabbitmq";

/// The kinds of services, as their binaries are named.
pub const KINDS: [&str; 3] = ["edge", "order-service", "inventory-service"];

/// All of it. It ends with this value.
pub struct System {
    /// Before what they ask.
    services: Vec<(String, Mutex<Process>)>,
    /// Every link but the replica's.
    pub links: Vec<Link>,
    /// From the replica to its primary.
    pub replication: Link,
    /// In front of the edges.
    pub nginx: Nginx,
    gateway: String,
    /// The ledger.
    pub postgres: Postgres,
    /// The stock store and its replica.
    pub redis: [Redis; 2],
    /// The broker.
    pub rabbitmq: RabbitMq,
    /// The ledger's database.
    pub database: String,
    /// The broker's virtual host.
    pub vhost: String,
    /// Where the edges listen, past NGINX and links.
    pub edges: [SocketAddr; 2],
    logs: PathBuf,
}

impl System {
    /// Starts all of it, with the services' logs in the directory, and waits until it takes orders.
    pub async fn start(logs: &Path) -> Self {
        let aof = ["--appendonly", "yes"];
        let (postgres, primary, rabbitmq) = tokio::join!(Postgres::start(), Redis::start_with(&aof), RabbitMq::start());
        let (database_url, broker_url) = tokio::join!(postgres.database(), rabbitmq.vhost());
        let last = |url: &str| url.rsplit_once('/').expect("a URL with a path").1.to_owned();
        let (database, vhost) = (last(&database_url), last(&broker_url));
        let replication = Link::start("replica", REDIS, at(primary.port())).await;
        let port = replication.addr().port().to_string();
        let replica = Redis::start_with(&[&aof[..], &["--replicaof", "127.0.0.1", &port]].concat()).await;

        let stores = Stores {
            ledger: (at(postgres.port()), format!("/{database}")),
            stock: at(primary.port()),
            broker: (at(rabbitmq.port()), format!("/{vhost}")),
        };
        let mut services: Vec<(&str, Process)> = KINDS.into_iter().flat_map(|kind| pair(kind, logs)).collect();
        let mut links = link(&mut services, &stores).await;
        let fronts = links.iter().filter(|link| link.from == GATEWAY).map(Link::addr).collect::<Vec<_>>();
        let edges = services.iter().filter(|(kind, _)| *kind == "edge").map(|(_, process)| process.addr());
        let edges = edges.collect::<Vec<_>>().try_into().expect("there are two edges");
        links.sort_by(|one, other| (&one.to, &one.from).cmp(&(&other.to, &other.from)));

        let port = Port::claim();
        let gateway = gateway_config(local(&port), &fronts);
        for (_, process) in &mut services {
            process.start();
        }
        join_all(services.iter_mut().map(|(_, process)| process.until_ready())).await;
        let nginx = Nginx::start(port, &gateway).await;
        let system = Self {
            services: services.into_iter().map(|(_, process)| (process.name.clone(), Mutex::new(process))).collect(),
            links,
            replication,
            nginx,
            gateway,
            postgres,
            redis: [primary, replica],
            rabbitmq,
            database,
            vhost,
            edges,
            logs: logs.to_owned(),
        };
        system.replica_follows().await;
        let ready = async || get(system.http(), "/readyz").await.filter(|(status, _)| *status == 200);
        eventually(READY_TIMEOUT, "the gateway is ready", ready).await;
        system
    }

    /// Where clients connect: NGINX.
    pub fn http(&self) -> SocketAddr {
        at(self.nginx.port())
    }

    /// One service of ours.
    pub async fn service(&self, name: &str) -> MutexGuard<'_, Process> {
        let found = self.services.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no service {name}")).1.lock().await
    }

    /// The links by which a server or service is reached.
    pub fn links_to<'a>(&'a self, to: &'a str) -> impl Iterator<Item = &'a Link> {
        self.links.iter().filter(move |link| link.to == to)
    }

    /// Nobody listens for this server or service any more, or somebody does again.
    pub fn set_dead(&self, to: &str, is_dead: bool) {
        for link in self.links_to(to) {
            link.set_dead(is_dead);
        }
    }

    /// Has NGINX read its configuration anew, under new workers.
    pub fn reload_gateway(&self) {
        self.nginx.reload(&self.gateway);
    }

    /// Waits until the second Redis has what the first one has.
    pub async fn replica_follows(&self) {
        let [primary, replica] = &self.redis;
        let follows = async || {
            let (of, own) = (primary.cli(&["INFO", "replication"]).await, replica.cli(&["INFO", "replication"]).await);
            let replid =
                |info: &str| info.lines().find_map(|line| Some(line.strip_prefix("master_replid:")?.to_owned()));
            (own.contains("master_link_status:up") && replid(&of) == replid(&own)).then_some(())
        };
        eventually(REPLICA_LIMIT, "the replica follows its primary", follows).await;
    }

    /// Runs statements in the ledger's database.
    pub async fn sql(&self, statements: &str) -> String {
        self.postgres.sql(&self.database, statements).await
    }

    /// Adds the servers' logs to those of the services.
    pub fn keep_logs(&self) {
        let [primary, replica] = self.redis.each_ref().map(|redis| redis.directory().join("server.log"));
        let logs = [
            ("redis-1", primary),
            ("redis-2", replica),
            ("postgres", self.postgres.data_dir().with_file_name("server.log")),
            ("rabbitmq", self.rabbitmq.directory().join("server.log")),
            ("nginx-error", self.nginx.file("error.log")),
            ("nginx-access", self.nginx.file("access.log")),
        ];
        for (name, log) in logs {
            // One that is missing is no reason to lose the others.
            std::fs::copy(log, self.logs.join(format!("{name}.log"))).ok();
        }
    }
}

/// Where the servers are, and what of theirs is used.
struct Stores {
    ledger: (SocketAddr, String),
    stock: SocketAddr,
    broker: (SocketAddr, String),
}

fn pair(kind: &'static str, logs: &Path) -> [(&'static str, Process); 2] {
    [1, 2].map(|number| {
        let name = format!("{kind}-{number}");
        let log = logs.join(format!("{name}.log"));
        (kind, Process::new(name, kind, log))
    })
}

/// Gives each service a link to whatever it asks, and the gateway one to each edge.
async fn link(services: &mut [(&str, Process)], stores: &Stores) -> Vec<Link> {
    let mut links = Vec::new();
    let addrs: Vec<(&str, String, SocketAddr)> =
        services.iter().map(|(kind, process)| (*kind, process.name.clone(), process.addr())).collect();
    for (kind, process) in services {
        let (name, own) = (process.name.clone(), process.addr().to_string());
        let mut to = async |to: &str, target: SocketAddr| {
            let link = Link::start(&name, to, target).await;
            let addr = link.addr();
            links.push(link);
            addr
        };
        for (asked, setting) in [("order-service", "ORDER_URL"), ("inventory-service", "INVENTORY_URL")] {
            let mut urls = Vec::new();
            for (_, other, addr) in addrs.iter().filter(|(other, ..)| *other == asked && asked != *kind) {
                urls.push(format!("http://{}", to(other, *addr).await));
            }
            process.set(setting, &urls.join(","));
        }
        if *kind == "edge" {
            process.set("HTTP_ADDR", &own);
            links.push(Link::start(GATEWAY, &name, process.addr()).await);
        } else {
            let broker = to(RABBITMQ, stores.broker.0).await;
            process.set("BROKER_URL", &format!("amqp://guest:guest@{broker}{}", stores.broker.1));
            if *kind == "order-service" {
                let ledger = to(POSTGRES, stores.ledger.0).await;
                process.set("DB_URL", &format!("postgres://postgres@{ledger}{}", stores.ledger.1));
                process.set("ORDER_GRPC_ADDR", &own);
            } else {
                process.set("REDIS_URL", &format!("redis://{}", to(REDIS, stores.stock).await));
                process.set("INVENTORY_GRPC_ADDR", &own);
                // What outlives a killed process, and says which events were handled.
                process.set("RUST_LOG", "info,inventory::consumer=debug");
            }
        }
        process.set("RESERVATION_TTL_SECONDS", &TTL.as_secs().to_string());
        process.set("DEFAULT_STOCK", &FIRST_STOCK.to_string());
    }
    links
}

/// The port of 127.0.0.1.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
