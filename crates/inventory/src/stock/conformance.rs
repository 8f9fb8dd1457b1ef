//! What every stock store must do, written once. An implementation brings a [`StockFixture`] and runs them all:
//!
//! ```ignore
//! inventory::stock_conformance!(MyFixture::start().await);
//! ```
//!
//! Where a fixture takes long to start, `one_fixture_per_file:` before it runs the checks of a file one after the other.
//!
//! - [`states`]: every method on an item never seen, wiped, edited by hand, of another incarnation
//! - [`leases`]: loads, epochs, restocks
//! - [`reserving`]: reserve and its repeats
//! - [`settling`]: confirm, release, markers
//! - [`reading`]: what is due, open, found, and that reading leaves nothing behind
//! - [`refusing`]: what the checks of an item that is not open share
//! - [`random`]: random operations against a tiny reference

pub mod leases;
pub mod random;
pub mod reading;
pub mod refusing;
pub mod reserving;
pub mod settling;
pub mod states;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use contracts::values::{Epoch, Item, Lease, Quantity, ReservationId, Stamp, Ttl};
use uuid::{Builder, Uuid};

use super::{
    ConfirmReply, Counts, Hold, LoadReply, ReleaseReply, ReserveReply, ReserveRequest, RestockReply, StockReply,
    StockStore,
};

/// A hold's life where a check does not wait for its end.
pub const TTL_LONG_SECONDS: i64 = 3_600;
/// A hold's life where a check waits for its end: stores with a clock of their own make the test wait.
pub const TTL_SHORT_SECONDS: i64 = 1;
/// Longer than that.
pub const PAST_TTL: Duration = Duration::from_millis(1_100);

/// A store to check, and what a test can do to it from outside.
#[async_trait]
pub trait StockFixture: Send + Sync {
    /// The store. Nothing is in it at first.
    fn store(&self) -> Arc<dyn StockStore>;

    /// Lets this much time pass for the store.
    async fn advance(&self, by: Duration);

    /// Deletes everything; the incarnation stays the same.
    async fn wipe(&self);

    /// Changes an item that is there, past the store's methods.
    async fn edit(&self, item: &Item, edit: Edit);

    /// Another life begins with the same data, as by a failover.
    async fn new_incarnation(&self);
}

/// What a hand may do to an item. Each alone makes the item not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Adds to the units available.
    Available(i64),
    /// Adds to the units received.
    Received(i64),
    /// Adds to the units held.
    Held(i64),
    /// Adds to the units sold.
    Sold(i64),
    /// Adds to the counter of holds.
    Counter(i64),
    /// Deletes a hold, and neither its deadline nor its count.
    DropHold(ReservationId),
    /// Deletes a hold's deadline, and neither the hold nor its count.
    DropDue(ReservationId),
}

/// Runs every check of the suite as a test of its own, each on a fixture of its own, which the expression makes; or the
/// checks of a file as one test, on a fixture that is wiped before each.
#[macro_export]
macro_rules! stock_conformance {
    (one_fixture_per_file: $fixture:expr) => {
        $crate::stock_conformance! { @suite together $fixture }
    };
    (@suite $how:ident $fixture:expr) => {
        $crate::stock_conformance! { @$how $fixture, states,
            an_item_never_seen_refuses_everything
            a_wiped_item_refuses_everything
            an_item_of_another_incarnation_refuses_everything
            more_available_by_hand_refuses_everything
            less_available_by_hand_refuses_everything
            received_by_hand_refuses_everything
            held_by_hand_refuses_everything
            sold_by_hand_refuses_everything
            a_counter_set_by_hand_refuses_everything
            a_hold_deleted_by_hand_refuses_everything
            a_deadline_deleted_by_hand_refuses_everything
            a_number_below_zero_refuses_everything
            fewer_units_held_than_holds_refuses_everything
            an_item_below_the_least_epoch_is_not_open
            other_items_stay_open
        }
        $crate::stock_conformance! { @$how $fixture, leases,
            a_load_opens_the_item
            an_epoch_is_loaded_once
            no_lease_is_no_lease
            a_load_of_another_incarnation_is_refused
            a_lease_that_makes_no_sense_is_refused
            a_load_forgets_the_lease_before
            items_have_epochs_of_their_own
            a_restock_is_applied_once
            a_restock_of_an_older_epoch_is_counted_already
            a_restock_of_a_newer_epoch_is_not_for_this_lease
        }
        $crate::stock_conformance! { @$how $fixture, reserving,
            a_reserve_holds_units
            a_repeated_reserve_answers_the_same_hold
            a_repeat_needs_no_units
            a_repeat_lengthens_the_deadline_at_most
            another_quantity_is_a_mismatch
            another_item_is_a_mismatch_by_the_hint
            a_hint_outlives_its_hold
            a_client_s_hold_is_over_at_its_deadline
            a_hold_of_an_order_under_way_goes_on_past_its_deadline
            without_a_hint_nothing_is_found
            insufficient_changes_nothing
            a_reserve_after_confirm_answers_the_hold_that_was
            a_late_reserve_is_refused_after_its_release
            hold_numbers_grow_within_a_lease_and_restart_with_the_next
            a_thousand_concurrent_reserves_share_a_hundred_units
            concurrent_repeats_share_one_hold
            items_with_odd_names_are_kept_apart
        }
        $crate::stock_conformance! { @$how $fixture, settling,
            a_confirm_sells_the_hold_once
            a_release_gives_the_units_back_once
            a_hold_of_another_number_is_left_alone
            an_unknown_id_is_nothing_to_settle
            a_stamp_of_an_older_epoch_is_superseded
            a_stamp_of_a_newer_epoch_is_not_for_this_lease
            a_release_after_confirm_gives_nothing_back
            a_confirm_after_release_sells_nothing
            only_a_marked_release_refuses_the_id_afterwards
            a_marker_never_hides_a_hold
            a_marker_binds_one_item_under_one_lease
            a_hold_that_does_not_fit_its_numbers_is_not_settled
        }
        $crate::stock_conformance! { @$how $fixture, reading,
            a_hold_is_due_after_its_deadline_and_stays
            a_repeated_reserve_is_due_later
            what_is_due_comes_in_order_of_deadlines
            what_is_due_comes_once
            what_is_due_comes_in_bounded_batches
            what_is_due_longest_comes_first_however_uneven_the_items
            holds_of_items_that_are_not_open_are_not_due
            open_items_come_in_pages_by_name
            a_hint_finds_its_hold
            a_hold_is_one_items
            reads_and_refusals_create_nothing
            reads_of_an_open_item_change_nothing
        }
        $crate::stock_conformance! { @$how $fixture, random,
            random_operations_agree_with_the_reference
        }
    };
    (@apart $fixture:expr, $file:ident, $($check:ident)*) => {
        mod $file {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    let fixture = $fixture;
                    $crate::stock::conformance::$file::$check(&fixture).await;
                }
            )*
        }
    };
    (@together $fixture:expr, $file:ident, $($check:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $file() {
            let fixture = $fixture;
            $(
                println!("{}", stringify!($check));
                $crate::stock::conformance::StockFixture::wipe(&fixture).await;
                $crate::stock::conformance::$file::$check(&fixture).await;
            )*
        }
    };
    ($fixture:expr) => {
        $crate::stock_conformance! { @suite apart $fixture }
    };
}

/// An item of this name.
pub fn item(name: &str) -> Item {
    Item::parse(name).expect("a sane name")
}

/// So many units.
pub fn units(units: i64) -> Quantity {
    Quantity::parse(units).expect("within range")
}

/// The id number so-and-so: a v4 id, as clients bring them.
pub fn id(number: u64) -> ReservationId {
    ReservationId(Builder::from_random_bytes(u128::from(number).to_be_bytes()).into_uuid())
}

/// The id of restock number so-and-so.
pub fn restock_id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// One store and one item, with short names for what the checks do all the time.
pub struct Stage {
    /// The store.
    pub store: Arc<dyn StockStore>,
    /// The item.
    pub item: Item,
}

impl Stage {
    /// The item `widget`, never seen.
    pub fn new(fixture: &dyn StockFixture) -> Self {
        Self { store: fixture.store(), item: item("widget") }
    }

    /// The item `widget`, open under epoch 5 with these units.
    pub async fn open(fixture: &dyn StockFixture, received: i64, sold: i64) -> Self {
        let stage = Self::new(fixture);
        assert_eq!(stage.load(5, received, sold).await, LoadReply::Loaded);
        stage
    }

    /// The same store with another item.
    #[must_use]
    pub fn other(&self, name: &str) -> Self {
        Self { store: Arc::clone(&self.store), item: item(name) }
    }

    /// Loads a lease into the present incarnation.
    pub async fn load(&self, epoch: i64, received: i64, sold: i64) -> LoadReply {
        let lease = Lease { item: self.item.clone(), epoch: Epoch(epoch), received, sold };
        let probe = self.store.probe(&self.item).await.expect("the store answers");
        self.store.load(&lease, &probe.incarnation).await.expect("the store answers")
    }

    /// A reserve with a long life, any epoch and no hint.
    pub fn request(&self, id: ReservationId, quantity: i64) -> ReserveRequest {
        ReserveRequest {
            id,
            item: self.item.clone(),
            quantity: units(quantity),
            ttl: Ttl::parse_seconds(TTL_LONG_SECONDS).expect("within range"),
            least_epoch: Epoch::NONE,
            hint: false,
        }
    }

    /// The same as a client's, with a hint.
    pub fn client_request(&self, id: ReservationId, quantity: i64) -> ReserveRequest {
        ReserveRequest { hint: true, ..self.request(id, quantity) }
    }

    /// The same with a life that a check can wait for.
    pub fn short_request(&self, id: ReservationId, quantity: i64) -> ReserveRequest {
        let ttl = Ttl::parse_seconds(TTL_SHORT_SECONDS).expect("within range");
        ReserveRequest { ttl, ..self.request(id, quantity) }
    }

    /// Reserves as asked.
    pub async fn send(&self, request: &ReserveRequest) -> ReserveReply {
        self.store.reserve(request).await.expect("the store answers")
    }

    /// Reserves.
    pub async fn reserve(&self, id: ReservationId, quantity: i64) -> ReserveReply {
        self.send(&self.request(id, quantity)).await
    }

    /// Reserves what is there to be held.
    pub async fn held(&self, id: ReservationId, quantity: i64) -> Stamp {
        stamp_of(self.reserve(id, quantity).await)
    }

    /// A stamp of this item.
    pub fn stamp(&self, epoch: i64, number: i64) -> Stamp {
        Stamp { item: self.item.clone(), epoch: Epoch(epoch), number }
    }

    /// Confirms.
    pub async fn confirm(&self, id: ReservationId, stamp: &Stamp) -> ConfirmReply {
        self.store.confirm(id, stamp).await.expect("the store answers")
    }

    /// Releases without a marker, as a surplus hold is.
    pub async fn release(&self, id: ReservationId, stamp: &Stamp) -> ReleaseReply {
        self.store.release(id, stamp, false).await.expect("the store answers")
    }

    /// Releases with a marker, as a hold whose id is aborted.
    pub async fn release_marked(&self, id: ReservationId, stamp: &Stamp) -> ReleaseReply {
        self.store.release(id, stamp, true).await.expect("the store answers")
    }

    /// Restocks.
    pub async fn restock(&self, number: u64, quantity: i64, epoch: i64) -> RestockReply {
        let id = restock_id(number);
        self.store.restock(id, &self.item, units(quantity), Epoch(epoch)).await.expect("the store answers")
    }

    /// Reads the units free.
    pub async fn available(&self) -> StockReply {
        self.store.available(&self.item).await.expect("the store answers")
    }

    /// The hold of this id.
    pub async fn hold(&self, id: ReservationId) -> Option<Hold> {
        self.store.hold(&self.item, id).await.expect("the store answers")
    }

    /// The item's numbers, if it is there.
    pub async fn counts_if_there(&self) -> Option<Counts> {
        self.store.counts(&self.item).await.expect("the store answers")
    }

    /// The numbers of an item that is there.
    pub async fn counts(&self) -> Counts {
        self.counts_if_there().await.expect("the item is there")
    }

    /// (received, available, held, sold, holds).
    pub async fn numbers(&self) -> (i64, i64, i64, i64, u64) {
        let counts = self.counts().await;
        assert_eq!(counts.received, counts.available + counts.held + counts.sold, "{counts:?}");
        (counts.received, counts.available, counts.held, counts.sold, counts.holds)
    }

    /// Ids of the holds that are due, in the order answered.
    pub async fn due(&self) -> Vec<ReservationId> {
        self.store.due().await.expect("the store answers").into_iter().map(|hold| hold.id).collect()
    }
}

/// The stamp of a reserve that must have been held.
pub fn stamp_of(reply: ReserveReply) -> Stamp {
    match reply {
        ReserveReply::Held { stamp, .. } => stamp,
        ReserveReply::Insufficient { .. }
        | ReserveReply::Released
        | ReserveReply::Mismatch
        | ReserveReply::Overdue
        | ReserveReply::NotOpen => panic!("not held: {reply:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_check_is_missing_from_the_list() {
        let list = include_str!("conformance.rs");
        for file in [
            include_str!("conformance/states.rs"),
            include_str!("conformance/leases.rs"),
            include_str!("conformance/reserving.rs"),
            include_str!("conformance/settling.rs"),
            include_str!("conformance/reading.rs"),
            include_str!("conformance/random.rs"),
        ] {
            for (_, check) in file.lines().filter_map(|line| line.split_once("pub async fn ")) {
                let name = check.split('(').next().expect("a name");
                assert!(list.lines().any(|line| line.trim() == name), "{name}");
            }
        }
    }
}
