//! Kill -9 in the middle of work: what was confirmed is there, what was acknowledged is gone.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use broker::{Broker, Message, PublishOutcome, QueueSpec, Settlement, in_process::InProcessBroker};
use service::environment::{Env, RealEnvironment};
use tokio_util::task::TaskTracker;

const FILE: &str = "BROKER_KILL_FILE";
const LIVES: usize = 4;
/// The child is killed when it has said this much, and in each life this much more: after confirms, amid
/// acknowledgements, and so on.
const LINES_BEFORE_KILL: usize = 200;
const LINES_MORE: usize = 15;
const BATCH: usize = 20;
const IDLE: Duration = Duration::from_secs(1);

async fn open(file: &Path) -> (Env, Arc<InProcessBroker>) {
    let env: Env = Arc::new(RealEnvironment::new(TaskTracker::new()));
    let broker = InProcessBroker::open(file, env.clone()).await.expect("opened");
    let queue = QueueSpec { name: "q".into(), length_max: 1_000_000, redeliveries_max: 1_000 };
    broker.declare(&queue).await.expect("declared");
    (env, broker)
}

/// Not a test: the process that is killed. It says what was confirmed, what it is about to acknowledge,
/// and what was acknowledged, line by line.
#[tokio::test]
#[ignore = "started by the test below"]
async fn publishes_and_acknowledges_until_killed() {
    let file = PathBuf::from(std::env::var(FILE).expect("started by the test below"));
    let (env, broker) = open(&file).await;
    let mut consumer = broker.consume("q", 50).await.expect("consuming");
    let mut out = std::io::stdout();
    let mut say = |word: &str, id: &str| writeln!(out, "{word} {id}").and_then(|()| out.flush()).expect("heard");
    loop {
        let messages: Vec<Message> = (0..BATCH)
            .map(|_| Message {
                id: env.uuid().to_string(),
                routing_key: "q".into(),
                body: vec![b'x'; 200],
                headers: [].into(),
            })
            .collect();
        let outcomes = broker.publish(&messages).await.expect("published");
        for (message, outcome) in messages.iter().zip(outcomes) {
            assert_eq!(outcome, PublishOutcome::Confirmed);
            say("confirmed", &message.id);
        }
        // Half as many as were published, so that there are messages of both kinds at any moment.
        let taken = consumer.next(BATCH / 2).await.expect("delivered");
        let tags: Vec<_> = taken.iter().map(|delivery| (delivery.tag, Settlement::Acknowledge)).collect();
        for delivery in &taken {
            say("acknowledging", &delivery.message.id);
        }
        consumer.settle(&tags).await.expect("settled");
        for delivery in taken {
            say("acknowledged", &delivery.message.id);
        }
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_keeps_what_it_confirmed_and_forgets_what_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broker.db");
    let (mut confirmed, mut acknowledging, mut acknowledged) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for life in 1..=LIVES {
        let enough = LINES_BEFORE_KILL + LINES_MORE * life;
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "publishes_and_acknowledges_until_killed", "--ignored", "--nocapture"])
            .env(FILE, &file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said = 0;
        while let Some(Ok(line)) = lines.next() {
            match line.split_once(' ') {
                Some(("confirmed", id)) => confirmed.insert(id.to_owned()),
                Some(("acknowledging", id)) => acknowledging.insert(id.to_owned()),
                Some(("acknowledged", id)) => acknowledged.insert(id.to_owned()),
                Some(_) | None => continue,
            };
            said += 1;
            if said == enough {
                // What it says until it is dead counts, too.
                child.kill().expect("killed");
            }
        }
        assert!(said >= enough, "it died by itself after {said} lines");
        child.wait().expect("dead");
    }

    let (env, broker) = open(&file).await;
    let mut consumer = broker.consume("q", u16::MAX).await.expect("consuming");
    let mut left = BTreeSet::new();
    while let Ok(next) = env.timeout(IDLE, consumer.next(1_000)).await {
        left.extend(next.expect("delivered").into_iter().map(|delivery| delivery.message.id));
    }
    assert_eq!(left.len() as u64, broker.depth("q").await.expect("depth"), "every message is delivered, once each");
    let lost: Vec<_> = confirmed.iter().filter(|id| !acknowledging.contains(*id) && !left.contains(*id)).collect();
    assert!(lost.is_empty(), "confirmed and not there: {lost:?}");
    let back: Vec<_> = acknowledged.intersection(&left).collect();
    assert!(back.is_empty(), "acknowledged and back: {back:?}");
    assert!(!left.is_empty() && !acknowledged.is_empty());
}
