//! RabbitMQ that is not there, or whose port somebody else has. Needs no server.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::{
    Broker, Message, QueueSpec,
    rabbitmq::{CONNECT_TIMEOUT_MS, RECONNECT_BACKOFF_MIN_MS, RabbitMqBroker},
};
use service::environment::{Env, RealEnvironment};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_util::task::TaskTracker;

fn env() -> Env {
    Arc::new(RealEnvironment::new(TaskTracker::new()))
}

fn broker(scheme: &str, listener: &TcpListener, env: &Env) -> Arc<RabbitMqBroker> {
    let port = listener.local_addr().expect("bound").port();
    RabbitMqBroker::new(&format!("{scheme}://127.0.0.1:{port}").parse().expect("a URL"), env.clone())
}

fn message() -> Message {
    Message { id: "1".into(), routing_key: "q".into(), body: Vec::new(), headers: [].into() }
}

/// lapin works on each connection in a thread of this name.
fn connection_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin-io-loop")).count()
}

#[tokio::test]
async fn while_it_is_down_every_call_fails_at_once_and_few_of_them_try_to_connect() {
    let env = env();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let broker = broker("amqp", &listener, &env);
    let tries = AtomicUsize::new(0);
    let hang_up = async {
        loop {
            drop(listener.accept().await.expect("accepted"));
            tries.fetch_add(1, Ordering::Relaxed);
        }
    };
    let queue = QueueSpec { name: "q".into(), length_max: 1, redeliveries_max: 1 };
    let calls = async {
        let (mut count, mut longest) = (0, Duration::ZERO);
        while env.uptime() < Duration::from_secs(2) {
            let since = env.uptime();
            broker.publish(&[message()]).await.expect_err("down");
            broker.declare(&queue).await.expect_err("down");
            assert!(broker.consume("q", 1).await.is_err());
            broker.depth("q").await.expect_err("down");
            longest = longest.max(env.uptime().saturating_sub(since));
            count += 1;
            env.sleep(Duration::from_millis(2)).await;
        }
        (count, longest)
    };
    let (count, longest) =
        tokio::select! { biased; called = calls => called, () = hang_up => unreachable!("it loops") };
    assert!(count > 100, "{count} rounds");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    let tries = tries.into_inner();
    assert!((4..=24).contains(&tries), "{tries} tries to connect");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_bounded_time_and_no_thread() {
    let env = env();
    // Nobody accepts: the kernel takes the connection, and nothing answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let broker = broker("amqp", &listener, &env);
    for _ in 0..2 {
        let since = env.uptime();
        let error = broker.publish(&[message()]).await.expect_err("no answer").to_string();
        assert!(error.contains("no answer within 2000 ms"), "{error}");
        let took = env.uptime().saturating_sub(since);
        assert!(took < Duration::from_millis(CONNECT_TIMEOUT_MS + 1_000), "{took:?}");
        let error = broker.publish(&[message()]).await.expect_err("no second try").to_string();
        assert!(error.contains("as of a moment ago"), "{error}");
        env.sleep(Duration::from_millis(2 * RECONNECT_BACKOFF_MIN_MS)).await;
    }
    let over = async {
        while connection_threads() > 0 {
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(env.timeout(Duration::from_secs(5), over).await.is_ok(), "{} threads are left", connection_threads());
}

/// Never in the clear where TLS was asked for.
#[tokio::test]
async fn tls_is_asked_for_where_the_url_says_so() {
    let env = env();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let broker = broker("amqps", &listener, &env);
    let first_byte = async {
        let (mut connection, _) = listener.accept().await.expect("accepted");
        connection.read_u8().await.expect("a byte")
    };
    let one = [message()];
    let (published, byte) = futures::join!(broker.publish(&one), first_byte);
    published.expect_err("hung up");
    assert_eq!(byte, 0x16, "a TLS handshake begins with it");
}

#[tokio::test]
async fn an_empty_batch_and_a_bad_one_need_no_server() {
    let env = env();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let broker = broker("amqp", &listener, &env);
    drop(listener);
    assert_eq!(broker.publish(&[]).await.expect("nothing to do"), []);
    let error = broker.publish(&[Message { id: "x".repeat(256), ..message() }]).await.expect_err("too long");
    assert!(error.to_string().contains("id has 256 bytes"), "{error}");
}
