use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::process::Command;
use tokio::time::sleep;

use super::Stack;
use super::ports::Ports;
use super::service::{Service, ServicePlan, is_ready};
use crate::programs::{Directory, as_caller};
use crate::server::say;
use crate::{Nginx, Port, Postgres, RabbitMq, Redis, binary, gateway_config};

/// From the caller's environment to every service.
const HANDED_THROUGH: [&str; 6] = [
    "DEFAULT_STOCK",
    "RESERVATION_TTL_SECONDS",
    "DRAIN_DELAY_SECONDS",
    "RUST_LOG",
    "LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// How long the gateway may take to be ready once every service is.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Three roles. The owner migrates. What the application may do is granted to a role without a login, by the migration;
/// the services log in as its member, which owns nothing.
const ROLES_AND_DATABASE: [(&str, &str); 4] = [
    ("pg_roles WHERE rolname = 'order_owner'", "CREATE ROLE order_owner LOGIN"),
    ("pg_roles WHERE rolname = 'order_service'", "CREATE ROLE order_service NOLOGIN"),
    ("pg_roles WHERE rolname = 'order_login'", "CREATE ROLE order_login LOGIN IN ROLE order_service"),
    ("pg_database WHERE datname = 'orders'", "CREATE DATABASE orders OWNER order_owner"),
];

/// The running system.
pub struct System {
    // In the order in which they end: what asks before what is asked.
    gateway: Nginx,
    edges: Vec<Service>,
    orders: Vec<Service>,
    inventories: Vec<Service>,
    rabbitmq: RabbitMq,
    redis: Redis,
    postgres: Postgres,
}

impl System {
    /// Starts all of it, and waits until it takes orders.
    pub async fn start(stack: &Stack) -> Self {
        say("Postgres, Redis and RabbitMQ start");
        let (postgres, redis, rabbitmq) = tokio::join!(postgres(stack), redis(stack), rabbitmq(stack));
        say("the services start");
        let mut inventories = start(stack, ["inventory-service-1", "inventory-service-2"]);
        let mut orders = start(stack, ["order-service-1", "order-service-2"]);
        let mut edges = start(stack, ["edge-1", "edge-2"]);
        let services = inventories.iter_mut().chain(&mut orders).chain(&mut edges);
        join_all(services.map(Service::until_ready)).await;
        say("NGINX starts");
        let gateway = gateway(stack).await;
        let since = Instant::now();
        while !is_ready(gateway.port()).await {
            assert!(since.elapsed() < READY_LIMIT, "the gateway is not ready after {READY_LIMIT:?}");
            sleep(Duration::from_millis(50)).await;
        }
        Self { gateway, edges, orders, inventories, rabbitmq, redis, postgres }
    }

    /// Starts everything again that has ended. Does not return.
    pub async fn keep(&mut self) {
        let services = self.edges.iter_mut().chain(&mut self.orders).chain(&mut self.inventories);
        let services = join_all(services.map(Service::keep));
        tokio::join!(services, self.gateway.keep(), self.rabbitmq.keep(), self.redis.keep(), self.postgres.keep());
    }

    /// Ends all of it: no order under way is cut off, and no process stays.
    pub async fn stop(mut self) {
        say("NGINX ends");
        self.gateway.drain().await;
        for pair in [&mut self.edges, &mut self.orders, &mut self.inventories] {
            join_all(pair.iter_mut().map(Service::stop)).await;
        }
        say("RabbitMQ, Redis and Postgres end");
        tokio::join!(self.rabbitmq.stop(), self.redis.stop(), self.postgres.stop());
    }
}

async fn postgres(stack: &Stack) -> Postgres {
    let port = Port::fixed(stack.ports.of("Postgres"));
    let postgres = Postgres::start_in(directory(stack, "postgres"), port, true).await;
    for (wanted, create) in ROLES_AND_DATABASE {
        if postgres.sql("postgres", &format!("SELECT count(*) FROM {wanted}")).await == "0" {
            postgres.sql("postgres", create).await;
        }
    }
    let mut migrate = as_caller(&binary("order-service"), &stack.directory, "KILL");
    migrate.arg("migrate").env("DB_URL", database_url(&stack.ports, "order_owner")).envs(handed_through());
    let migrated = Command::from(migrate).kill_on_drop(true).output().await;
    let migrated = migrated.unwrap_or_else(|error| panic!("cannot run setpriv, of util-linux: {error}"));
    let said = String::from_utf8_lossy(&migrated.stderr).trim_end().to_owned();
    assert!(migrated.status.success(), "order-service migrate has failed, {}:\n{said}", migrated.status);
    postgres
}

async fn redis(stack: &Stack) -> Redis {
    let port = Port::fixed(stack.ports.of("Redis"));
    let flags = ["--appendonly", "yes", "--maxmemory-policy", "noeviction"];
    Redis::start_in(directory(stack, "redis"), port, None, &flags).await
}

async fn rabbitmq(stack: &Stack) -> RabbitMq {
    let ports = ["RabbitMQ", "RabbitMQ nodes", "RabbitMQ names"].map(|name| Port::fixed(stack.ports.of(name)));
    let directories = ["rabbitmq", "epmd"].map(|name| directory(stack, name));
    RabbitMq::start_in(directories, ports, "stack@localhost".to_owned()).await
}

async fn gateway(stack: &Stack) -> Nginx {
    let addr = |name| SocketAddr::from((Ipv4Addr::LOCALHOST, stack.ports.of(name)));
    let configuration = gateway_config(addr("NGINX"), &[addr("edge-1"), addr("edge-2")]);
    Nginx::start_in(directory(stack, "nginx"), Port::fixed(stack.ports.of("NGINX")), &configuration).await
}

/// The server's own, with what it kept, but for the logs of the last time.
fn directory(stack: &Stack, server: &str) -> Directory {
    let directory = Directory::keep(stack.directory.join(server));
    for log in ["server.log", "access.log", "error.log"] {
        std::fs::remove_file(directory.join(log)).ok();
    }
    directory
}

/// At 127.0.0.1 nobody is asked for a password.
pub fn database_url(ports: &Ports, role: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{}/orders", ports.of("Postgres"))
}

fn start(stack: &Stack, pair: [&'static str; 2]) -> Vec<Service> {
    pair.map(|name| Service::start(plan(stack, name))).into()
}

fn handed_through() -> impl Iterator<Item = (&'static str, String)> {
    HANDED_THROUGH.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
}

fn plan(stack: &Stack, name: &'static str) -> ServicePlan {
    let kind = name.trim_end_matches(char::is_numeric).trim_end_matches('-');
    let ports = &stack.ports;
    let addr = |name: &str| format!("127.0.0.1:{}", ports.of(name));
    let urls = |kind: &str| [1, 2].map(|number| format!("http://{}", addr(&format!("{kind}-{number}")))).join(",");
    let orders = ("ORDER_URL", urls("order-service"));
    let inventories = ("INVENTORY_URL", urls("inventory-service"));
    let broker = ("BROKER_URL", format!("amqp://guest:guest@{}/%2f", addr("RabbitMQ")));
    let mut environment = match kind {
        "edge" => vec![("HTTP_ADDR", addr(name)), orders, inventories],
        "order-service" => {
            let ledger = ("DB_URL", database_url(ports, "order_login"));
            vec![("ORDER_GRPC_ADDR", addr(name)), inventories, ledger, ("MIGRATE", "false".to_owned()), broker]
        }
        "inventory-service" => {
            let redis = ("REDIS_URL", format!("redis://{}", addr("Redis")));
            vec![("INVENTORY_GRPC_ADDR", addr(name)), orders, redis, broker]
        }
        other => panic!("{other} is no service"),
    };
    environment.push(("ADMIN_ADDR", addr(&format!("{name} admin"))));
    environment.extend(handed_through());
    let admin_port = ports.of(&format!("{name} admin"));
    ServicePlan { name, program: binary(kind), environment, directory: stack.directory.clone(), admin_port }
}
