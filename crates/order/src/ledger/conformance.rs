//! The suite that every ledger passes, written once: see [`ledger_conformance!`](crate::ledger_conformance).
//!
//! - this module: what a store brings, and what the checks share
//! - [`committing`], [`leasing`], [`judging`], [`restocking`], [`listing`], [`relaying`], [`auditing`]: the port, method
//!   by method
//! - [`racing`]: many callers at once, and callers that go away

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contracts::values::{Epoch, IdempotencyKey, Item, Lease, Quantity, ReservationId, Stamp};
use service::{
    environment::{Env, Environment},
    manual::ManualEnvironment,
};
use uuid::Uuid;

use super::{
    CommitOutcome, Fingerprint, ItemStock, LEASE_GRACE_MS, Ledger, LedgerError, NewOrder, OpenOutcome, RequestKey,
    ResolveQuery, Verdict,
};

pub mod auditing;
pub mod committing;
pub mod judging;
pub mod leasing;
pub mod listing;
pub mod racing;
pub mod relaying;
pub mod restocking;

/// What an implementation brings to the suite.
#[async_trait]
pub trait LedgerFixture: Send + Sync + 'static {
    /// A ledger that is empty and apart from all others, in this environment.
    async fn fresh(env: Env) -> Self
    where
        Self: Sized;

    /// The ledger.
    fn ledger(&self) -> Arc<dyn Ledger>;

    /// Runs a statement past the port, as an operator might; `None` if the ledger knows no SQL.
    async fn sql(&self, statement: &'static str) -> Option<Result<(), String>>;
}

/// An empty ledger under test.
pub struct Bench {
    /// It.
    pub ledger: Arc<dyn Ledger>,
    /// Its clock.
    pub clock: Arc<ManualEnvironment>,
    numbers: AtomicI64,
    fixture: Box<dyn LedgerFixture>,
}

impl Bench {
    /// Makes one.
    pub async fn fresh<F: LedgerFixture>() -> Self {
        let clock = ManualEnvironment::new(1);
        let fixture = F::fresh(clock.clone()).await;
        Self::over(fixture, clock)
    }

    /// Takes one that is there, in this environment.
    pub fn over(fixture: impl LedgerFixture, clock: Arc<ManualEnvironment>) -> Self {
        Self { ledger: fixture.ledger(), clock, numbers: AtomicI64::new(1), fixture: Box::new(fixture) }
    }

    /// The clock, as a program takes it.
    pub fn env(&self) -> Env {
        self.clock.clone()
    }

    /// A lease above all others, after the grace of the last one.
    pub async fn lease(&self, item: &Item, initial: i64) -> Lease {
        self.clock.advance(Duration::from_millis(LEASE_GRACE_MS));
        match self.ledger.open_stock(item, initial, Epoch::NONE).await.expect("the ledger answers") {
            OpenOutcome::Lease(lease) => lease,
            OpenOutcome::Wait => panic!("the grace is over"),
        }
    }

    /// An order of one unit on a hold of this lease.
    pub fn order(&self, lease: &Lease) -> NewOrder {
        NewOrder {
            id: self.id(),
            stamp: Stamp {
                item: lease.item.clone(),
                epoch: lease.epoch,
                number: self.numbers.fetch_add(1, Ordering::SeqCst),
            },
            quantity: units(1),
            key: None,
            created_at: self.clock.now(),
            traceparent: String::new(),
        }
    }

    /// The same with a key.
    pub fn keyed_order(&self, lease: &Lease, key: &str) -> NewOrder {
        NewOrder { key: Some((request_key(key), FINGERPRINT)), ..self.order(lease) }
    }

    /// A fresh id, as the order service derives them.
    pub fn id(&self) -> ReservationId {
        ReservationId(Uuid::new_v8(self.env().random().to_be_bytes()))
    }

    /// Commits; no order fails.
    pub async fn commit(&self, orders: &[NewOrder]) -> Vec<CommitOutcome> {
        let outcomes = self.ledger.commit(orders).await.expect("the ledger answers");
        assert_eq!(outcomes.len(), orders.len(), "an outcome for each order");
        outcomes.into_iter().collect::<Result<_, LedgerError>>().expect("no order is refused for its data")
    }

    /// Commits one.
    pub async fn commit_one(&self, order: &NewOrder) -> CommitOutcome {
        self.commit(std::slice::from_ref(order)).await.remove(0)
    }

    /// Commits one that is created.
    pub async fn sell(&self, order: &NewOrder) {
        assert!(matches!(self.commit_one(order).await, CommitOutcome::Created(_)), "a new order is created");
    }

    /// What is known of an item, with `initial` 10 if it is unknown.
    pub async fn stock(&self, item: &Item) -> ItemStock {
        self.ledger.stock(std::slice::from_ref(item), 10).await.expect("the ledger answers").remove(0)
    }

    /// The verdict on a hold.
    pub async fn resolve(&self, id: ReservationId, stamp: Option<&Stamp>) -> Verdict {
        let query = ResolveQuery { id, stamp: stamp.cloned() };
        self.ledger.resolve(&[query]).await.expect("the ledger answers").remove(0)
    }

    /// Publishes everything that waits, as a relay would.
    pub async fn settle_all(&self) {
        let batch = self.ledger.take_outbox(1000).await.expect("the ledger answers");
        let published = vec![true; batch.events().len()];
        batch.settle(&published).await.expect("the ledger answers");
    }

    /// Tombstones that may go, now gone.
    pub async fn prune(&self) -> u64 {
        self.ledger.prune_tombstones(1000).await.expect("the ledger answers")
    }

    /// Runs a statement past the port.
    pub async fn sql(&self, statement: &'static str) -> Option<Result<(), String>> {
        self.fixture.sql(statement).await
    }
}

/// What keys of the checks stand for.
pub const FINGERPRINT: Fingerprint = [7; 32];

/// An item.
pub fn item(name: &str) -> Item {
    Item::parse(name).expect("a valid item")
}

/// A quantity.
pub fn units(quantity: i64) -> Quantity {
    Quantity::parse(quantity).expect("a valid quantity")
}

/// A key.
pub fn request_key(text: &str) -> RequestKey {
    RequestKey::of_key(&IdempotencyKey::parse(text).expect("a valid key"))
}

/// The names of all checks, as the modules' sources have them.
pub fn check_names() -> Vec<&'static str> {
    const SOURCES: [&str; 8] = [
        include_str!("conformance/auditing.rs"),
        include_str!("conformance/committing.rs"),
        include_str!("conformance/judging.rs"),
        include_str!("conformance/leasing.rs"),
        include_str!("conformance/listing.rs"),
        include_str!("conformance/racing.rs"),
        include_str!("conformance/relaying.rs"),
        include_str!("conformance/restocking.rs"),
    ];
    let names = SOURCES.iter().flat_map(|source| source.lines());
    names.filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next()).collect()
}

/// One test for each check, over a [`LedgerFixture`].
#[macro_export]
macro_rules! ledger_conformance {
    ($fixture:ty) => {
        $crate::ledger_conformance! { @tests $fixture;
            committing:
                a_new_order_is_created_with_its_event
                a_repeat_is_answered_with_the_order_as_it_was_made
                an_id_with_other_content_is_refused
                a_tombstone_stops_a_late_commit
                a_key_has_one_order
                a_key_and_an_id_may_be_committed_again_under_neither
                an_order_of_an_older_epoch_is_fenced
                an_order_of_an_item_that_was_never_lent_is_fenced
                existing_is_judged_before_other_reasons
                an_aborted_order_is_judged_before_its_key_and_its_epoch
                a_taken_key_is_judged_before_the_epoch
                an_id_twice_in_one_batch_is_one_order
                a_key_twice_in_one_batch_is_one_order
                an_order_stopped_by_its_key_leaves_its_id_free_in_one_batch
                a_fenced_order_sees_the_order_of_its_id_in_one_batch
                a_batch_has_as_many_items_and_verdicts_as_it_likes
                batches_have_bounds
                bad_data_of_one_order_stops_no_other
                a_spoilt_row_stops_no_other
                texts_come_back_as_they_were
                quantities_below_one_are_refused_by_the_store_itself;
            leasing:
                epochs_grow_with_every_lease
                an_epoch_is_above_the_one_named_dead
                a_fresh_lease_is_left_alone_unless_it_is_named_dead
                a_wait_changes_nothing
                a_clock_that_jumps_back_does_not_stop_leases
                items_have_leases_of_their_own
                initial_counts_at_the_first_lease_only
                a_lease_has_counted_every_order_settled_or_not
                an_epoch_at_the_end_of_numbers_is_an_error
                an_item_sold_beyond_its_stock_is_lent_to_nobody
                stock_is_answered_in_order_and_writes_nothing
                stock_of_many_items_has_a_bound;
            judging:
                a_hold_without_an_order_is_aborted_for_ever
                an_order_is_confirmed_under_its_own_stamp_only
                without_a_stamp_nothing_is_written
                verdicts_come_in_the_order_asked
                one_id_asked_twice_has_one_verdict
                judging_has_a_bound
                a_tombstone_is_pruned_only_below_its_item_s_newest_epoch
                a_tombstone_of_a_client_s_id_is_kept_for_a_day_too
                a_tombstone_that_is_asked_for_again_is_raised
                a_tombstone_of_two_items_is_kept_for_ever
                a_new_tombstone_of_two_items_is_kept_for_ever
                a_tombstone_of_an_item_never_lent_stops_a_commit_under_its_first_lease
                a_late_commit_after_pruning_is_fenced
                pruning_has_a_limit_and_spares_orders;
            restocking:
                a_restock_is_journalled_at_the_item_s_epoch
                a_repeated_restock_counts_once_and_answers_its_first_epoch
                a_restock_id_with_other_content_is_refused_and_writes_nothing
                a_restock_comes_before_the_first_lease
                restocks_are_counted_by_leases_and_reads;
            listing:
                orders_are_found_by_id_and_key
                reads_write_nothing
                a_tombstone_is_no_order
                orders_are_listed_newest_first
                pages_are_whole_and_stable
                a_page_may_begin_at_any_moment
                an_item_s_orders_are_listed_apart
                the_ledger_answers_a_ping;
            relaying:
                an_order_s_event_is_read_back
                events_are_taken_oldest_first_and_by_one_relay
                events_given_back_are_taken_again
                only_published_events_are_settled
                an_event_given_back_late_is_not_skipped
                an_event_is_settled_once
                the_backlog_is_counted_and_dated;
            racing:
                one_id_committed_by_many_is_one_order
                one_key_committed_by_many_is_one_order
                one_restock_recorded_by_many_counts_once
                two_relays_never_hold_one_event
                every_lease_has_counted_exactly_the_orders_before_it
                an_order_and_a_tombstone_exclude_each_other
                a_caller_that_goes_away_leaves_no_half_order;
            auditing:
                the_books_of_an_item_add_up_at_every_moment
                books_are_told_item_by_item;
        }
    };
    (@tests $fixture:ty; $($module:ident: $($check:ident)*;)*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let bench = $crate::ledger::conformance::Bench::fresh::<$fixture>().await;
                $crate::ledger::conformance::$module::$check(&bench).await;
            }
        )*)*

        #[test]
        fn every_check_is_run() {
            let mut run = vec![$($(stringify!($check)),*),*];
            let mut written = $crate::ledger::conformance::check_names();
            run.sort_unstable();
            written.sort_unstable();
            assert_eq!(run, written);
        }
    };
}
