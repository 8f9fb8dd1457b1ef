//! While the server is dead, stopped or full. Each test has a server of its own.

use std::{collections::BTreeSet, time::Duration};

use broker::{
    Broker, Message, PublishOutcome,
    rabbitmq::{HEARTBEAT_SECONDS, OPERATION_TIMEOUT_MS},
};
use servers::RabbitMq;

use super::bench::{Bench, message};

/// How much later than it promises a call may come back, on a busy machine.
const LATE: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn killed_while_it_is_published_to_it_confirms_nothing_that_it_loses() {
    let bench = Bench::of(RabbitMq::start().await).await;
    let mut waiting = bench.consume(1).await;
    let mut confirmed = BTreeSet::new();
    let publish = async {
        for batch in 0.. {
            let ids: Vec<String> = (0..200).map(|n| format!("{batch}-{n}")).collect();
            let messages: Vec<Message> = ids.iter().map(|id| message(id)).collect();
            let (published, took) = bench.timed(bench.broker.publish(&messages)).await;
            assert!(took < Duration::from_millis(OPERATION_TIMEOUT_MS) + LATE, "{took:?}");
            let Ok(outcomes) = published else { return };
            let taken = ids.into_iter().zip(outcomes).filter(|(_, outcome)| *outcome == PublishOutcome::Confirmed);
            confirmed.extend(taken.map(|(id, _)| id));
        }
    };
    let die = async {
        bench.env.sleep(Duration::from_millis(300)).await;
        bench.server.kill().await;
    };
    futures::join!(publish, die);
    assert!(confirmed.len() > 200, "it died too soon: {} confirmed", confirmed.len());
    waiting.next(1).await.expect("it was delivered before");
    assert!(bench.within(waiting.next(1)).await.is_err(), "its connection is lost");
    let (while_down, took) = bench.timed(bench.broker.publish(&[message("down")])).await;
    assert!(while_down.is_err());
    assert!(took < Duration::from_millis(250), "{took:?}");

    bench.server.start_again().await;
    let after = async || match bench.broker.publish(&[message("after")]).await {
        Ok(outcomes) if outcomes == [PublishOutcome::Confirmed] => Ok(()),
        other => Err(other),
    };
    let ((), took) = bench.until_it_works(after).await;
    assert!(took < Duration::from_secs(2) + LATE, "{took:?}");
    let (mut consumer, _) = bench.until_it_works(async || bench.broker.consume("q", 500).await).await;
    let mut seen = BTreeSet::new();
    while !seen.contains("after") {
        seen.extend(bench.take(&mut consumer, 1).await.into_iter().map(|delivery| delivery.message.id));
    }
    let lost: Vec<_> = confirmed.difference(&seen).collect();
    assert!(lost.is_empty(), "of {} confirmed {} are lost: {lost:?}", confirmed.len(), lost.len());
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_given_up_in_time() {
    let bench = Bench::of(RabbitMq::start().await).await;
    bench.publish(&["1"]).await;
    let mut consumer = bench.consume(500).await;
    bench.take(&mut consumer, 1).await;
    bench.server.pause();
    let bound = Duration::from_millis(OPERATION_TIMEOUT_MS) + LATE;
    let two = [message("2")];
    let (publish, waits) = futures::join!(bench.timed(bench.broker.publish(&two)), bench.timed(consumer.next(1)));
    assert!(publish.0.is_err() && publish.1 < bound, "{publish:?}");
    assert!(waits.0.is_err(), "{waits:?}");
    assert!(waits.1 < 3 * Duration::from_secs(HEARTBEAT_SECONDS.into()) + LATE, "{waits:?}");
    let (again, declared) =
        futures::join!(bench.timed(bench.broker.publish(&two)), bench.timed(bench.broker.declare(&bench.queue)));
    assert!(again.0.is_err() && again.1 < bound, "{again:?}");
    assert!(declared.0.is_err() && declared.1 < bound, "{declared:?}");
    bench.server.resume();
    bench.until_it_works(async || bench.broker.publish(&[message("3")]).await).await;
    let (mut consumer, _) = bench.until_it_works(async || bench.broker.consume("q", 500).await).await;
    while bench.take(&mut consumer, 1).await[0].message.id != "3" {}
}

/// Consumers go on: they are what makes room again.
#[tokio::test]
async fn a_server_short_of_memory_refuses_soon_and_takes_again() {
    let bench = Bench::of(RabbitMq::start().await).await;
    bench.publish(&["1", "2"]).await;
    let mut consumer = bench.consume(500).await;
    bench.server.ctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    let bound = Duration::from_millis(OPERATION_TIMEOUT_MS) + LATE;
    let (mut tries, mut quick) = (0, 0);
    while quick < 20 {
        let batch: Vec<Message> = (0..100).map(|n| message(&format!("{tries}-{n}"))).collect();
        let (refused, took) = bench.timed(bench.broker.publish(&batch)).await;
        assert!(refused.is_err() && took < bound, "{refused:?} after {took:?}");
        quick += u32::from(took < Duration::from_millis(50));
        tries += 1;
        assert!(tries < 30, "it does not remember that the server is short of memory");
    }
    assert_eq!(bench.take(&mut consumer, 2).await.len(), 2);

    bench.server.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    bench.until_it_works(async || bench.broker.publish(&[message("after")]).await).await;
    let mut late = 0;
    while bench.take(&mut consumer, 1).await[0].message.id != "after" {
        late += 1;
    }
    assert!(late <= 100, "{late} messages of {tries} refused batches were published all the same");
}
