//! Bugs that the simulation plants to see that it would find them. Each switches off one rule of the protocol, at the very
//! line that holds it. Only development builds have the switches, and there they are off in every thread that has not
//! asked for one; in a release build [`is`] is `false` for good.

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bug {
    /// A commit does not compare the hold's epoch with the item's newest.
    NoFence,
    /// A hold without a verdict is judged aborted, and no tombstone is written.
    NoTombstone,
    /// An event sells its units however often it is delivered.
    NoDedupe,
    /// An overdue hold goes back without a verdict.
    HoldsExpire,
    /// Each attempt makes up a new reservation id.
    FreshIdOnRetry,
    /// A commit in doubt gives the hold back.
    ReleaseOnDoubt,
    /// The scripts take the incarnation from when the server was connected to.
    IncarnationCached,
    /// The incarnation is the server's run id.
    IncarnationIsRunId,
    /// A lease whose load is in doubt is sent again.
    LeaseSentTwice,
    /// Received and sold are read before the epoch is raised.
    LeaseSummedFirst,
    /// The next lease need not be above the stock store's epoch.
    EpochNotAboveStore,
    /// A commit of an older epoch is fenced although its order stands.
    FencedBeforeExisting,
    /// A verdict looks at the reservation's id alone.
    VerdictWithoutStamp,
    /// Events leave the outbox before the broker has confirmed them.
    OutboxDeletedFirst,
    /// Returned messages count as published.
    ReturnsIgnored,
    /// The relay goes on after the highest number that it has seen.
    OutboxPagedById,
    /// Whether a key is taken is looked up first and not again by the insert.
    KeyCheckedThenInserted,
    /// A key stands for whatever it is sent with.
    FingerprintIgnored,
    /// A client's release gives back first and asks for the verdict afterwards.
    TombstoneAfterRelease,
    /// Tombstones are deleted by age.
    TombstonesByAge,
    /// A client's release asks for no verdict.
    ReleaseWithoutVerdict,
    /// Placing an order ends when its caller hangs up.
    CancelledWithCaller,
    /// The consumer acknowledges what it could not handle.
    AcknowledgedOnError,
    /// The consumer rejects what it cannot handle at the moment, again and again.
    RejectLoop,
    /// A quantity below one is taken.
    NegativeQuantity,
    /// A restock is applied whatever the store's epoch.
    RestockAtAnyEpoch,
    /// The reservation id does not depend on what is ordered.
    IdWithoutContent,
    /// An item's holds are not compared with their counts.
    HoldsUncounted,
}

#[cfg(debug_assertions)]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this thread has the bug.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Does `work` in this thread, with the bug.
    pub fn with<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
        /// Mends it also when `work` panics.
        struct Mend;
        impl Drop for Mend {
            fn drop(&mut self) {
                PLANTED.set(None);
            }
        }
        PLANTED.set(bug);
        let _mend = Mend;
        work()
    }
}

#[cfg(debug_assertions)]
pub use switch::{is, with};

/// No release build has any.
#[cfg(not(debug_assertions))]
pub const fn is(_: Bug) -> bool {
    false
}
