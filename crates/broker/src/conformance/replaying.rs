//! Dead letters published again.

use super::{Bench, Fixture, all, ids};
use crate::{
    PublishOutcome,
    Settlement::{Acknowledge, DeadLetter},
    replay::{REPLAY_BATCH_MAX, Replayed, replay},
};

/// In order and as they were, up to the number asked for; and those that die again meanwhile are not taken again.
pub async fn a_replay_moves_the_dead_letters_that_were_there(fixture: &dyn Fixture) {
    let bench = Bench::new(fixture).await;
    let count = usize::from(REPLAY_BATCH_MAX) + 20;
    let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    kill(&bench, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let run = async |max| replay(&bench.env, &*bench.broker, &bench.queue, max).await.expect("replayed");
    assert_eq!(run(1).await, Replayed { moved: 1, left: count as u64 - 1 });
    bench.expect_depth(&bench.queue.dead_letter_queue(), count as u64 - 1).await;
    let mut consumer = bench.consume(200).await;
    let first = bench.take(&mut consumer, 1).await;
    assert_eq!((&first[0].message, first[0].earlier_deliveries), (&bench.message("0"), 0));
    consumer.settle(&all(&first, Acknowledge)).await.expect("settled");

    let mut seen = Vec::new();
    let die_again = async {
        while seen.len() < count - 1 {
            let taken = bench.take(&mut consumer, 1).await;
            consumer.settle(&all(&taken, DeadLetter)).await.expect("settled");
            seen.extend(taken);
        }
    };
    let (replayed, ()) = futures::join!(run(u64::MAX), die_again);
    assert_eq!(replayed, Replayed { moved: count as u64 - 1, left: 0 });
    assert_eq!(ids(&seen), names[1..]);
    bench.expect_depth(&bench.queue.dead_letter_queue(), count as u64 - 1).await;
    bench.expect_nothing_else(&mut consumer).await;
}

/// And it is still there, whole.
pub async fn a_replay_that_finds_no_room_leaves_the_rest(fixture: &dyn Fixture) {
    let bench = Bench::with(fixture, 60, 100).await;
    let names: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    kill(&bench, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut more = 0;
    while bench.broker.publish(&[bench.message("more")]).await.expect("published") == [PublishOutcome::Confirmed] {
        more += 1;
        assert!(more <= 200, "the queue never fills");
    }
    let replayed = replay(&bench.env, &*bench.broker, &bench.queue, 1_000).await.expect("replayed");
    assert_eq!(replayed.moved + replayed.left, 60);
    assert!(replayed.left > 0, "{replayed:?} with {more} in the queue");
    bench.expect_depth(&bench.queue.dead_letter_queue(), replayed.left).await;
    bench.expect_depth(&bench.queue.name, more + replayed.moved).await;
}

/// Makes dead letters of these.
async fn kill(bench: &Bench<'_>, names: &[&str]) {
    bench.publish(names).await;
    let mut consumer = bench.consume(200).await;
    let taken = bench.take(&mut consumer, names.len()).await;
    consumer.settle(&all(&taken, DeadLetter)).await.expect("settled");
    bench.expect_depth(&bench.queue.dead_letter_queue(), names.len() as u64).await;
}
