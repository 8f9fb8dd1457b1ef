//! The system as separate processes on real servers: NGINX, two edges, two order services, two inventory services,
//! Postgres, Redis and RabbitMQ, all on free ports. A test that fails shows the end of every service's log.
//!
//! - [`Stores`]: the servers that keep something, the test's own or shared with other tests
//! - [`Stack`]: all of it; [`Process`]: one service of it
//! - [`load`]: clients that buy, and what they were answered
//! - [`audit`]: whether ledger, stock store, broker and clients agree once everything is at rest

pub mod audit;
pub mod load;

use std::{array, net::SocketAddr};

use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use futures::future::join_all;
pub use servers::Process;
use servers::{Postgres, READY_TIMEOUT, RabbitMq, Redis};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{Client, eventually, gateway::Gateway};

/// The servers that keep something.
pub struct Stores {
    /// Of the ledger.
    pub postgres: Postgres,
    /// The stock store, or its first server.
    pub redis: Redis,
    /// The broker.
    pub rabbitmq: RabbitMq,
    /// `REDIS_URL`: that of `redis`, unless the test sets another.
    pub redis_url: String,
}

impl Stores {
    /// The test's own, which it may kill. `redis` is always its own.
    pub async fn own(redis: Redis) -> Self {
        let (postgres, rabbitmq) = tokio::join!(Postgres::start(), RabbitMq::start());
        Self { redis_url: redis.url(), postgres, redis, rabbitmq }
    }

    /// Postgres and RabbitMQ of the test run.
    pub async fn shared(redis: Redis) -> Self {
        let (postgres, rabbitmq) = tokio::join!(Postgres::shared(), RabbitMq::shared());
        Self { redis_url: redis.url(), postgres, redis, rabbitmq }
    }
}

/// The running system. All of it ends when it is dropped.
pub struct Stack {
    /// Through NGINX.
    pub http: Client,
    _gateway: Gateway,
    /// The edges, which NGINX asks in turn.
    pub edges: [Process; 2],
    /// The order services.
    pub orders: [Process; 2],
    /// The inventory services.
    pub inventories: [Process; 2],
    /// The same by gRPC, past NGINX and edges.
    pub inventory_clients: [InventoryServiceClient<Channel>; 2],
    /// What they stand on.
    pub stores: Stores,
    /// The ledger's database.
    pub database: String,
    /// The broker's virtual host.
    pub vhost: String,
    _logs: TempDir,
}

impl Stack {
    /// Starts all of it and waits until it is ready. `settings` come on top of every service's own.
    pub async fn start(stores: Stores, settings: &[(&str, &str)]) -> Self {
        let mut stack = Self::prepare(stores, settings).await;
        stack.start_services();
        stack.until_ready().await;
        stack
    }

    /// NGINX in front of services that do not run yet.
    pub async fn prepare(stores: Stores, settings: &[(&str, &str)]) -> Self {
        // The test's clients have as many connections as the system.
        service::open_files::raise_limit();
        let (database_url, broker_url) = tokio::join!(stores.postgres.database(), stores.rabbitmq.vhost());
        let logs = TempDir::new().expect("a temporary directory");
        let pair = |kind: &str| -> [Process; 2] {
            array::from_fn(|n| {
                let name = format!("{kind}-{}", n + 1);
                let log = logs.path().join(format!("{name}.log"));
                Process::new(name, kind, log)
            })
        };
        let [mut edges, mut orders, mut inventories] = ["edge", "order-service", "inventory-service"].map(pair);
        let urls = |pair: &[Process; 2]| pair.each_ref().map(|process| format!("http://{}", process.addr())).join(",");
        let (order_url, inventory_url) = (urls(&orders), urls(&inventories));
        for (pair, listen) in
            [(&mut edges, "HTTP_ADDR"), (&mut orders, "ORDER_GRPC_ADDR"), (&mut inventories, "INVENTORY_GRPC_ADDR")]
        {
            for process in pair {
                process.set(listen, &process.addr().to_string());
                process.set("ORDER_URL", &order_url);
                process.set("INVENTORY_URL", &inventory_url);
                process.set("DB_URL", &database_url);
                process.set("REDIS_URL", &stores.redis_url);
                process.set("BROKER_URL", &broker_url);
                for (name, value) in settings {
                    process.set(name, value);
                }
            }
        }
        let gateway = Gateway::start(&edges.each_ref().map(Process::addr)).await;
        let inventory_clients = inventories.each_ref().map(|process| client(process.addr()));
        let last = |url: &str| url.rsplit_once('/').expect("a URL with a path").1.to_owned();
        Self {
            http: gateway.http.clone(),
            _gateway: gateway,
            edges,
            orders,
            inventories,
            inventory_clients,
            stores,
            database: last(&database_url),
            vhost: last(&broker_url),
            _logs: logs,
        }
    }

    /// Every service, edges first.
    pub fn services(&mut self) -> impl Iterator<Item = &mut Process> {
        self.edges.iter_mut().chain(&mut self.orders).chain(&mut self.inventories)
    }

    /// The services by name.
    pub fn service(&mut self, name: &str) -> &mut Process {
        self.services().find(|process| process.name == name).unwrap_or_else(|| panic!("no service {name}"))
    }

    /// Starts all services, without waiting for anything.
    pub fn start_services(&mut self) {
        for process in self.services() {
            process.start();
        }
    }

    /// SIGKILL to all services.
    pub async fn kill_services(&mut self) {
        join_all(self.services().map(Process::kill)).await;
    }

    /// Waits until every service is ready.
    pub async fn until_ready(&mut self) {
        join_all(self.services().map(Process::until_ready)).await;
        // What services tell each other is a second old at most. Four questions reach both edges, and from each both
        // order services.
        let ready = async || {
            for _ in 0..4 {
                if self.http.get("/readyz").await.status != 200 {
                    return None;
                }
            }
            Some(())
        };
        eventually(READY_TIMEOUT, "the gateway is ready", ready).await;
    }

    /// The sum of a counter over the processes that have it, since their last start.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are small whole numbers")]
    pub async fn count(&self, name: &str) -> u64 {
        let processes = self.edges.iter().chain(&self.orders).chain(&self.inventories);
        join_all(processes.map(|process| process.metric(name))).await.iter().sum::<f64>() as u64
    }

    /// Rows that a query in the ledger's database gives, columns parted by `|`.
    pub async fn sql(&self, query: &str) -> Vec<String> {
        let rows = self.stores.postgres.sql(&self.database, query).await;
        rows.lines().map(str::to_owned).collect()
    }

    /// How many messages each queue has, as `name messages`.
    pub async fn queues(&self) -> Vec<String> {
        let listed = self.stores.rabbitmq.ctl(&["list_queues", "--vhost", &self.vhost, "name", "messages"]).await;
        let lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut queues: Vec<String> = lines.filter(|line| line != "name messages").collect();
        queues.sort();
        queues
    }
}

impl Drop for Stack {
    #[expect(clippy::print_stdout, reason = "the test runner shows it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in self.services() {
                println!("--- {} ---\n{}", process.name, process.log_end());
            }
        }
    }
}

fn client(addr: SocketAddr) -> InventoryServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address makes a URL");
    InventoryServiceClient::new(endpoint.connect_lazy())
}
