//! The suite that every implementation of the port passes, written once. A check panics where the broker breaks its word.
//! [`broker_conformance!`](crate::broker_conformance) makes a test of each check:
//!
//! ```ignore
//! broker::broker_conformance!(MyFixture::start().await);
//! broker::broker_conformance!(shared: OfASharedServer::connect().await, own: OfAServerOfItsOwn::start().await);
//! ```
//!
//! The checks suit a broker in a process of its own, too: they share one server, each with queues of its own; they wait
//! for what a server does in its own time; and what a server may bound softly is not asserted to the message. Those that
//! kill the server, or need it set up for tests, are one test in the second form: a server is slow to start.
//!
//! - this module: what a fixture gives, and what the checks share
//! - `publishing`: confirms, returns, refusals, bounds
//! - `delivering`: order, prefetch, sharing, waiting
//! - `settling`: acknowledgements, redelivery, restarts
//! - `dead_letters`: limits and rejections
//! - `replaying`: dead letters published again

mod dead_letters;
mod delivering;
mod publishing;
mod replaying;
mod settling;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use service::environment::Env;

pub use self::{dead_letters::*, delivering::*, publishing::*, replaying::*, settling::*};
use crate::{Broker, Consumer, Delivery, Message, PublishOutcome, QueueSpec, Settlement};

/// Longest wait for anything that must happen.
const ARRIVAL_TIMEOUT_MS: u64 = 20_000;
/// Time between two looks at something that must become so.
const LOOK_AGAIN_MS: u64 = 10;

/// Time that a consumer gets to be idle before something is done that must wake it. Too short is no failure, the check
/// only shows less.
const IDLE_MS: u64 = 50;

/// A broker under test.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Clock and tasks of the test.
    fn env(&self) -> Env;

    /// The broker, seen by a client that comes anew.
    async fn broker(&self) -> Arc<dyn Broker>;

    /// Kills the broker without warning and starts it on what it left; returns when [`Fixture::broker`] works again.
    /// Brokers and consumers that were handed out before are dead, but not dropped: they may fail, or stay silent.
    async fn restart(&self);
}

/// Makes a test of each check. Takes expressions that make a [`Fixture`]; they may await.
#[macro_export]
macro_rules! broker_conformance {
    (shared: $shared:expr, own: $own:expr) => {
        $crate::broker_conformance! { @shared each $shared }
        $crate::broker_conformance! { @own together $own }
    };
    ($fixture:expr) => {
        $crate::broker_conformance! { @shared each $fixture }
        $crate::broker_conformance! { @own each $fixture }
    };
    (@shared $how:ident $fixture:expr) => {
        $crate::broker_conformance! { @$how $fixture;
            confirmed_messages_arrive_in_order_with_headers_and_body
            unroutable_messages_are_returned_and_the_others_confirmed
            a_full_queue_refuses_and_takes_again_after_a_settle
            messages_with_the_same_id_are_both_delivered
            past_the_bounds_nothing_of_a_batch_is_published
            declaring_again_changes_nothing_and_other_values_are_an_error
            names_of_dead_letter_queues_are_reserved
            depth_counts_what_waits
            unknown_queues_are_an_error
            next_waits_for_a_message
            next_returns_at_most_what_was_asked_for
            prefetch_bounds_what_is_unsettled
            two_consumers_share_without_duplicates
            a_cancelled_next_loses_nothing
            many_at_once_have_no_message_twice_and_lose_none
            a_dropped_consumer_gives_back_what_it_did_not_settle
            requeued_messages_count_their_deliveries
            settlements_differ_within_one_step
            an_unknown_tag_is_an_error_and_settles_none
            requeued_past_the_limit_a_message_is_a_dead_letter
            a_message_that_outlives_its_consumers_is_a_dead_letter
            a_dead_letter_queue_has_no_limit_and_no_dead_letters
            a_replay_moves_the_dead_letters_that_were_there
            a_replay_that_finds_no_room_leaves_the_rest
        }
    };
    (@own $how:ident $fixture:expr) => {
        $crate::broker_conformance! { @$how $fixture;
            acknowledged_messages_are_gone
            a_restart_brings_back_what_was_not_acknowledged
            a_rejected_message_is_a_dead_letter_at_once
            a_full_dead_letter_queue_loses_nothing
        }
    };
    (@each $fixture:expr; $($check:ident)+) => {
        $(
            #[tokio::test]
            async fn $check() {
                $crate::conformance::$check(&$fixture).await;
            }
        )+
    };
    (@together $fixture:expr; $($check:ident)+) => {
        #[tokio::test]
        async fn over_restarts() {
            let fixture = $fixture;
            $(
                println!("{}", stringify!($check));
                $crate::conformance::$check(&fixture).await;
            )+
        }
    };
}

/// One check's broker and queue.
struct Bench<'a> {
    fixture: &'a dyn Fixture,
    env: Env,
    broker: Arc<dyn Broker>,
    queue: QueueSpec,
}

impl<'a> Bench<'a> {
    /// A queue of this check alone, roomy and patient.
    async fn new(fixture: &'a dyn Fixture) -> Self {
        Self::with(fixture, 1_000, 100).await
    }

    async fn with(fixture: &'a dyn Fixture, length_max: u32, redeliveries_max: u32) -> Self {
        let env = fixture.env();
        let queue = QueueSpec { name: format!("conformance-{}", env.uuid()), length_max, redeliveries_max };
        let broker = fixture.broker().await;
        broker.declare(&queue).await.expect("declared");
        Self { fixture, env, broker, queue }
    }

    async fn restart(&mut self) {
        self.fixture.restart().await;
        self.broker = self.fixture.broker().await;
    }

    fn message(&self, id: &str) -> Message {
        let headers = BTreeMap::from([("traceparent".to_owned(), format!("00-{id}-01"))]);
        Message {
            id: id.to_owned(),
            routing_key: self.queue.name.clone(),
            body: format!("body of {id}").into_bytes(),
            headers,
        }
    }

    async fn publish(&self, ids: &[&str]) {
        let messages: Vec<Message> = ids.iter().map(|id| self.message(id)).collect();
        let outcomes = self.broker.publish(&messages).await.expect("published");
        assert_eq!(outcomes, vec![PublishOutcome::Confirmed; ids.len()], "{ids:?}");
    }

    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        self.broker.consume(&self.queue.name, prefetch).await.expect("consuming")
    }

    async fn consume_dead_letters(&self) -> Box<dyn Consumer> {
        self.broker.consume(&self.queue.dead_letter_queue(), 10).await.expect("consuming")
    }

    /// The next `count` deliveries, in one or more steps.
    async fn take(&self, consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            let next = self.within(consumer.next(count - deliveries.len())).await.expect("delivered");
            assert!(!next.is_empty(), "next answered without a message");
            deliveries.extend(next);
        }
        deliveries
    }

    /// What `work` brings while the consumer waits, and the consumer's next delivery.
    async fn take_while<T>(&self, consumer: &mut Box<dyn Consumer>, work: impl Future<Output = T>) -> (Delivery, T) {
        let work = async {
            self.env.sleep(Duration::from_millis(IDLE_MS)).await;
            work.await
        };
        let (mut deliveries, done) = futures::join!(self.take(consumer, 1), work);
        (deliveries.remove(0), done)
    }

    /// Nothing but a message published now comes next: proof, without waiting, that nothing else was there.
    async fn expect_nothing_else(&self, consumer: &mut Box<dyn Consumer>) {
        let last = format!("last-{}", self.env.uuid());
        self.publish(&[&last]).await;
        let delivery = self.take(consumer, 1).await.remove(0);
        assert_eq!(delivery.message.id, last);
        consumer.settle(&[(delivery.tag, Settlement::Acknowledge)]).await.expect("settled");
    }

    /// Waits until the queue's depth is this. A server may count in its own time.
    async fn expect_depth(&self, queue: &str, expected: u64) {
        let look = async {
            while self.broker.depth(queue).await.expect("depth") != expected {
                self.env.sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
            }
        };
        let reached = self.env.timeout(Duration::from_millis(ARRIVAL_TIMEOUT_MS), look).await;
        assert!(reached.is_ok(), "{queue} has not {expected} messages but {:?}", self.broker.depth(queue).await);
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        let done = self.env.timeout(Duration::from_millis(ARRIVAL_TIMEOUT_MS), work).await;
        done.expect("what must happen happens in time")
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.message.id.as_str()).collect()
}

fn all(deliveries: &[Delivery], settlement: Settlement) -> Vec<(u64, Settlement)> {
    deliveries.iter().map(|delivery| (delivery.tag, settlement)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_check_is_in_the_list() {
        let list = include_str!("conformance.rs");
        let checks = [
            include_str!("conformance/publishing.rs"),
            include_str!("conformance/delivering.rs"),
            include_str!("conformance/settling.rs"),
            include_str!("conformance/dead_letters.rs"),
            include_str!("conformance/replaying.rs"),
        ]
        .concat();
        let names: Vec<&str> = checks
            .lines()
            .filter_map(|line| line.strip_prefix("pub async fn "))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        assert!(names.len() > 20, "the checks were not found: {names:?}");
        for name in names {
            assert!(list.lines().any(|line| line.trim() == name), "{name} is in no list: nobody runs it");
        }
    }
}
