//! Orders, releases, repeats, the reaper and a store that loses everything, all at one hold. Before each step of store and
//! ledger the others get some turns, as a seed has it: on one thread, so that a seed is one interleaving.

use contracts::{
    Reason,
    values::{Epoch, Item},
};
use futures::future::{BoxFuture, join_all};
use inventory::{reservations::Reserved, stock::ReserveRequest};
use service::manual::Dice;

use crate::{
    ledger::Committed,
    world::{World, item},
};

const SEEDS: u64 = 3_000;
/// Enough for every seed's order.
const STOCK: i64 = 1_000_000;
/// Each contest was won by either side in so many seeds at least, or the test tells little. Seen are a hundred and more.
const WON_MIN: usize = 30;
/// Most new leases that an order lives through, as in the order service.
const FENCES_MAX: usize = 3;

/// What an actor was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// The order stands, placed now or before.
    Ordered {
        now: bool,
    },
    OrderRefused(Reason),
    Deleted(Result<(), Reason>),
    Held(Result<(), Reason>),
    Reaped,
    Wiped,
}

impl World {
    /// Places an order on a client's hold as the order service does.
    async fn order_on(&self, request: &ReserveRequest) -> Told {
        let mut least_epoch = Epoch::NONE;
        for _ in 0..=FENCES_MAX {
            let stamp = match self.reserve_to_order(&ReserveRequest { least_epoch, ..request.clone() }).await {
                Ok(Reserved::Held { stamp, .. }) => stamp,
                Ok(Reserved::Insufficient { .. }) => panic!("there is enough"),
                Err(Reason::ReservationConfirmed) => return Told::Ordered { now: false },
                Err(reason) => return Told::OrderRefused(reason),
            };
            self.ledger.pauses.pause().await;
            match self.ledger.try_commit(request.id, &stamp, request.quantity.get()) {
                Committed::Created => return Told::Ordered { now: true },
                Committed::Existing => return Told::Ordered { now: false },
                Committed::Aborted => {
                    let reservations = self.inventory.reservations();
                    reservations.release(&self.call(), request.id, Some(&request.item)).await.expect("it is aborted");
                    return Told::OrderRefused(Reason::ReservationReleased);
                }
                Committed::Fenced => least_epoch = stamp.epoch.next(),
            }
        }
        Told::OrderRefused(Reason::Unavailable)
    }

    async fn delete_told(&self, request: &ReserveRequest) -> Told {
        let deleted = self.inventory.reservations().release(&self.call(), request.id, None).await;
        Told::Deleted(deleted.map_err(|failure| failure.reason))
    }

    async fn hold_told(&self, request: &ReserveRequest) -> Told {
        Told::Held(self.reserve_again(request).await.map(drop))
    }

    async fn expire(&self) -> Told {
        self.ledger.pauses.pause().await;
        self.pass_deadlines();
        self.ledger.pauses.pause().await;
        self.inventory.reaper().reap_once().await.expect("store and ledger answer");
        Told::Reaped
    }

    async fn lose(&self) -> Told {
        self.ledger.pauses.pause().await;
        self.memory.wipe();
        Told::Wiped
    }

    async fn contest(&self, dice: &mut Dice, request: &ReserveRequest) -> Vec<Told> {
        let mut actors: Vec<BoxFuture<Told>> = Vec::new();
        for _ in 0..dice.below(3) {
            actors.push(Box::pin(self.order_on(request)));
        }
        for _ in 0..dice.below(3) {
            actors.push(Box::pin(self.delete_told(request)));
        }
        if dice.below(2) == 0 {
            actors.push(Box::pin(self.hold_told(request)));
        }
        if dice.below(3) == 0 {
            actors.push(Box::pin(self.expire()));
        }
        // Rarely: the next lease has to wait for the one before to be old enough.
        if dice.below(300) == 0 {
            actors.push(Box::pin(self.lose()));
        }
        join_all(actors).await
    }

    /// Everything is due and settled: no unit is lost or sold twice.
    async fn settle(&self, item: &Item, at: &str) {
        self.pass_deadlines();
        self.inventory.reaper().reap_once().await.expect("store and ledger answer");
        let sold = self.ledger.sold(item);
        assert_eq!(self.inventory.reservations().available(&self.call(), item).await, Ok(STOCK - sold), "{at}");
        if let Some(counts) = self.counts(item).await {
            assert_eq!((counts.held, counts.holds, counts.sold), (0, 0, sold), "{at}");
        }
    }
}

/// Who won, in how many seeds.
#[derive(Debug, Default)]
struct Wins {
    order_over_delete: usize,
    delete_over_order: usize,
    order_over_expiry: usize,
    expiry_over_order: usize,
    repeat_before_delete: usize,
    delete_before_repeat: usize,
}

impl Wins {
    fn count(&mut self, told: &[Told], is_order: bool) {
        let any = |wanted: fn(&Told) -> bool| told.iter().any(wanted);
        let orders = any(|t| matches!(t, Told::Ordered { .. } | Told::OrderRefused(_)));
        let deletes = any(|t| matches!(t, Told::Deleted(_)));
        let expires = any(|t| *t == Told::Reaped);
        self.order_over_delete += usize::from(orders && deletes && is_order);
        self.delete_over_order += usize::from(orders && deletes && !expires && !is_order);
        self.order_over_expiry += usize::from(orders && expires && is_order);
        self.expiry_over_order += usize::from(orders && expires && !deletes && !is_order);
        let bare = deletes && !orders && !expires;
        self.repeat_before_delete += usize::from(bare && any(|t| *t == Told::Held(Ok(()))));
        self.delete_before_repeat += usize::from(bare && any(|t| matches!(t, Told::Held(Err(_)))));
    }

    fn least(&self) -> usize {
        let Self {
            order_over_delete,
            delete_over_order,
            order_over_expiry,
            expiry_over_order,
            repeat_before_delete,
            delete_before_repeat,
        } = self;
        [
            order_over_delete,
            delete_over_order,
            order_over_expiry,
            expiry_over_order,
            repeat_before_delete,
            delete_before_repeat,
        ]
        .into_iter()
        .copied()
        .min()
        .expect("there are some")
    }
}

/// What all were told fits one verdict, and whoever asks afterwards is told the same.
async fn check(world: &World, request: &ReserveRequest, told: &[Told], at: &str) {
    let is_order = world.ledger.is_order(request.id);
    let wiped = told.contains(&Told::Wiped);
    let placed = told.iter().filter(|t| **t == Told::Ordered { now: true }).count();
    assert_eq!(placed, usize::from(is_order == Some(true)), "{at}: one is the first");
    for one in told {
        let fits = match one {
            Told::Ordered { .. }
            | Told::Deleted(Err(Reason::ReservationConfirmed))
            | Told::Held(Err(Reason::ReservationConfirmed)) => is_order == Some(true),
            Told::Deleted(Ok(()))
            | Told::OrderRefused(Reason::ReservationReleased)
            | Told::Held(Err(Reason::ReservationReleased)) => is_order == Some(false),
            // With the store everything that knew it is gone.
            Told::Deleted(Err(Reason::ReservationNotFound)) => wiped,
            Told::Held(Ok(())) | Told::Reaped | Told::Wiped => true,
            Told::OrderRefused(_) | Told::Deleted(Err(_)) | Told::Held(Err(_)) => false,
        };
        assert!(fits, "{at}: {one:?}, and the verdict is {is_order:?}");
    }
    let (hold, delete) = (world.hold_told(request).await, world.delete_told(request).await);
    match world.ledger.is_order(request.id) {
        Some(true) => {
            assert_eq!(hold, Told::Held(Err(Reason::ReservationConfirmed)), "{at}");
            assert_eq!(delete, Told::Deleted(Err(Reason::ReservationConfirmed)), "{at}");
        }
        // Nobody had ended it, until the delete just now.
        Some(false) if is_order.is_none() => {
            assert_eq!((hold, delete), (Told::Held(Ok(())), Told::Deleted(Ok(()))), "{at}");
        }
        Some(false) => {
            assert_eq!(hold, Told::Held(Err(Reason::ReservationReleased)), "{at}");
            assert_eq!(delete, Told::Deleted(Ok(())), "{at}");
        }
        None => panic!("{at}: no verdict after a delete"),
    }
}

#[tokio::test]
async fn whoever_wins_a_race_for_a_hold_all_are_told_the_same_and_no_unit_is_lost_or_sold_twice() {
    let world = World::with_stock(STOCK).await;
    let item = item("widget");
    let mut wins = Wins::default();
    for seed in 0..SEEDS {
        let at = format!("seed {seed}");
        let mut dice = Dice::new(seed);
        world.store.pauses.seed(dice.below(u64::MAX));
        world.ledger.pauses.seed(dice.below(u64::MAX));
        let request = world.request(&item, 1 + i64::try_from(seed % 3).expect("small"));
        assert_eq!(world.hold_told(&request).await, Told::Held(Ok(())), "{at}");
        let told = world.contest(&mut dice, &request).await;
        let at = format!("{at} {told:?}");
        let is_order = world.ledger.is_order(request.id) == Some(true);
        wins.count(&told, is_order);
        check(&world, &request, &told, &at).await;
        world.settle(&item, &at).await;
    }
    println!("{wins:?}");
    assert!(wins.least() >= WON_MIN, "{wins:?}");
}
