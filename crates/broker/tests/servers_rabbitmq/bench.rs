//! A server with a queue, and what the tests ask of it.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement, rabbitmq::RabbitMqBroker};
use lapin::{Channel, Connection, ConnectionProperties};
use servers::RabbitMq;
use service::environment::{Env, RealEnvironment};
use tokio_util::task::TaskTracker;

/// Longest wait for anything that must happen.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// A virtual host of a server, with a queue.
pub struct Bench {
    pub env: Env,
    pub server: RabbitMq,
    pub url: String,
    pub broker: Arc<RabbitMqBroker>,
    pub queue: QueueSpec,
}

impl Bench {
    pub async fn of(server: RabbitMq) -> Self {
        let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
        let url = server.vhost().await;
        let broker = RabbitMqBroker::new(&url.parse().expect("a URL"), env.clone());
        let queue = QueueSpec { name: "q".into(), length_max: 100_000, redeliveries_max: 20 };
        broker.declare(&queue).await.expect("declared");
        Self { env, server, url, broker, queue }
    }

    pub async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        self.broker.consume("q", prefetch).await.expect("consuming")
    }

    pub async fn publish(&self, ids: &[&str]) {
        let messages: Vec<Message> = ids.iter().map(|id| message(id)).collect();
        let outcomes = self.broker.publish(&messages).await.expect("published");
        assert_eq!(outcomes, vec![PublishOutcome::Confirmed; ids.len()]);
    }

    /// The next `count` deliveries, acknowledged.
    pub async fn take(&self, consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = self.within(consumer.next(count - taken.len())).await.expect("delivered");
            let all: Vec<_> = next.iter().map(|delivery| (delivery.tag, Settlement::Acknowledge)).collect();
            consumer.settle(&all).await.expect("settled");
            taken.extend(next);
        }
        taken
    }

    pub async fn expect_depth(&self, queue: &str, expected: u64) {
        let look = async {
            while self.broker.depth(queue).await.expect("depth") != expected {
                self.env.sleep(Duration::from_millis(10)).await;
            }
        };
        self.within(look).await;
    }

    /// Until `work` succeeds; how long that took.
    pub async fn until_it_works<T, E>(&self, work: impl AsyncFn() -> Result<T, E>) -> (T, Duration) {
        let since = self.env.uptime();
        let tries = async {
            loop {
                if let Ok(done) = work().await {
                    return done;
                }
                self.env.sleep(Duration::from_millis(20)).await;
            }
        };
        let done = self.within(tries).await;
        (done, self.env.uptime().saturating_sub(since))
    }

    /// What `work` brings, and how long it took.
    pub async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, Duration) {
        let since = self.env.uptime();
        let done = self.within(work).await;
        (done, self.env.uptime().saturating_sub(since))
    }

    pub async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        self.env.timeout(ARRIVAL_TIMEOUT, work).await.expect("what must happen happens in time")
    }

    /// A client that is none of ours.
    pub async fn stranger(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }
}

pub fn message(id: &str) -> Message {
    Message { id: id.to_owned(), routing_key: "q".into(), body: id.as_bytes().to_vec(), headers: [].into() }
}
