use std::time::Duration;

use contracts::{Reason, values::Epoch};
use futures::future::join_all;
use inventory::{
    metrics::LeaseOutcome,
    opener::{OPENINGS_MAX, Opener},
    reservations::Reserved,
    stock::{LoadReply, StockStore},
};

use crate::{
    store::LoadFault,
    world::{World, item},
};

impl World {
    fn leases(&self) -> (u64, u64, u64) {
        let total = |outcome| self.metrics.leases_total(outcome);
        (total(LeaseOutcome::Opened), total(LeaseOutcome::Waited), total(LeaseOutcome::Burnt))
    }
}

#[tokio::test]
async fn a_hundred_concurrent_reserves_on_an_unseen_item_ask_for_one_lease() {
    let world = World::with_stock(60).await;
    let item = item("widget");
    let reservations = world.inventory.reservations();
    let requests: Vec<_> = (0..100).map(|_| world.request(&item, 1)).collect();
    let call = world.call();
    let answers = join_all(requests.iter().map(|request| reservations.reserve(&call, request))).await;
    let held = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Held { .. }))).count();
    let short = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Insufficient { .. }))).count();
    assert_eq!((held, short), (60, 40));
    assert_eq!((world.ledger.opens(), world.store.loads()), (1, vec![1]));
    assert_eq!(world.leases(), (1, 0, 0));
}

#[tokio::test]
async fn an_opening_waits_for_a_fresh_lease_of_another_instance_and_uses_what_it_loads() {
    let world = World::new().await;
    let item = item("widget");
    let incarnation = world.memory.probe(&item).await.expect("answers").incarnation;
    let lease = world.ledger.lend(&item, 100);
    let other = async {
        world.until("the opening was told to wait", async || world.leases().1 > 0).await;
        assert_eq!(world.memory.load(&lease, &incarnation).await.expect("answers"), LoadReply::Loaded);
    };
    let ((_, stamp), ()) = futures::join!(world.hold(&item, 2), other);
    assert_eq!(stamp.epoch, Epoch(1));
    assert_eq!(world.store.loads(), Vec::<i64>::new(), "this instance loaded nothing");
}

#[tokio::test]
async fn a_lease_that_another_instance_never_loads_is_overtaken_once_it_is_no_longer_fresh() {
    let world = World::new().await;
    let item = item("widget");
    world.ledger.lend(&item, 100);
    let (_, stamp) = world.hold(&item, 2).await;
    assert_eq!(stamp.epoch, Epoch(2));
    let (opened, waited, burnt) = world.leases();
    assert!(waited >= 1, "{waited}");
    assert_eq!((opened, burnt), (1, 0));
}

#[tokio::test]
async fn a_lost_load_burns_its_lease_and_the_next_one_is_above_it() {
    let world = World::new().await;
    world.store.fault_loads(&[LoadFault::Lost, LoadFault::Lost]);
    let (_, stamp) = world.hold(&item("widget"), 2).await;
    assert_eq!(stamp.epoch, Epoch(3));
    assert_eq!(world.store.loads(), [1, 2, 3], "each lease at most once");
    assert_eq!(world.leases(), (1, 0, 2), "a lease known to be burnt is not waited for");
}

#[tokio::test]
async fn a_load_whose_answer_is_lost_is_not_sent_again() {
    let world = World::new().await;
    world.store.fault_loads(&[LoadFault::AnswerLost]);
    let (_, stamp) = world.hold(&item("widget"), 2).await;
    assert_eq!((stamp.epoch, world.store.loads()), (Epoch(1), vec![1]));
}

#[tokio::test]
async fn a_load_that_is_never_answered_burns_its_lease() {
    let world = World::new().await;
    world.store.fault_loads(&[LoadFault::Silent]);
    let (_, stamp) = world.hold(&item("widget"), 2).await;
    assert_eq!((stamp.epoch, world.store.loads()), (Epoch(2), vec![1, 2]));
}

#[tokio::test]
async fn a_load_names_the_life_of_the_store_that_was_seen_before_the_lease_was_asked_for() {
    let world = World::new().await;
    let memory = world.memory.clone();
    world.ledger.while_granting(move || memory.renew_incarnation());
    let (_, stamp) = world.hold(&item("widget"), 2).await;
    assert_eq!((stamp.epoch, world.store.loads()), (Epoch(2), vec![1, 2]), "the first was refused");
    assert_eq!(world.leases().2, 1);
}

#[tokio::test]
async fn after_a_wipe_a_reserve_opens_the_item_with_what_is_sold() {
    let world = World::new().await;
    let item = item("widget");
    let (id, stamp) = world.hold(&item, 3).await;
    world.hold(&item, 5).await;
    world.commit(id, &stamp, 3);
    world.memory.wipe();
    let (_, stamp) = world.hold(&item, 1).await;
    assert_eq!(stamp.epoch, Epoch(2));
    assert_eq!(world.numbers(&item).await, (2, 96, 1, 3));
}

#[tokio::test]
async fn a_least_epoch_above_the_store_s_opens_a_newer_lease() {
    let world = World::new().await;
    let item = item("widget");
    world.hold(&item, 3).await;
    let mut request = world.request(&item, 1);
    request.least_epoch = Epoch(4);
    let answer = world.inventory.reservations().reserve(&world.call(), &request).await;
    assert!(matches!(answer, Ok(Reserved::Held { stamp, .. }) if stamp.epoch == Epoch(4)));
    assert_eq!(world.numbers(&item).await, (4, 99, 1, 0), "the older hold is gone, and fenced");
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_the_opening() {
    let world = World::new().await;
    let item = item("widget");
    let call = world.call();
    let request = world.request(&item, 1);
    let reservations = world.inventory.reservations();
    {
        let reserve = reservations.reserve(&call, &request);
        let asked = world.until("a lease is asked for", async || world.ledger.opens() > 0);
        futures::pin_mut!(reserve, asked);
        futures::future::select(reserve, asked).await;
    }
    world.until("the item is open", async || world.counts(&item).await.is_some()).await;
    assert_eq!((world.leases(), world.store.loads()), ((1, 0, 0), vec![1]));
    assert_eq!(world.numbers(&item).await, (1, 100, 0, 0));
}

#[tokio::test]
async fn while_the_ledger_is_down_a_reserve_fails_at_once_and_then_works_again() {
    let world = World::new().await;
    let item = item("widget");
    world.ledger.set_down(true);
    let failed = world.inventory.reservations().reserve(&world.call(), &world.request(&item, 1)).await;
    assert_eq!(failed.map_err(|failure| failure.reason), Err(Reason::Unavailable));
    world.ledger.set_down(false);
    world.hold(&item, 1).await;
}

#[tokio::test]
async fn past_the_most_openings_a_caller_is_told_to_come_back() {
    let world = World::new().await;
    let opener = Opener::new(world.backend.clone());
    world.ledger.set_silent(true);
    let call = world.call();
    let items: Vec<_> = (0..=OPENINGS_MAX).map(|n| item(&format!("item {n}"))).collect();
    let (last, first) = items.split_last().expect("many");
    let openings = join_all(first.iter().map(|item| opener.open(&call, item, Epoch(1))));
    let overloaded = async {
        world.until("all are under way", async || world.ledger.opens() == OPENINGS_MAX).await;
        opener.open(&call, last, Epoch(1)).await
    };
    futures::pin_mut!(openings, overloaded);
    match futures::future::select(openings, overloaded).await {
        futures::future::Either::Right((answer, _)) => {
            assert_eq!(answer.map_err(|failure| failure.reason), Err(Reason::Overloaded));
        }
        futures::future::Either::Left(_) => panic!("a silent ledger opens nothing"),
    }
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_its_deadline() {
    let world = World::new().await;
    world.ledger.set_silent(true);
    let opener = Opener::new(world.backend.clone());
    let call = service::call::Call::new(&*world.env, Duration::from_millis(50), world.env.uuid().into());
    let limit = world.env.uptime() + Duration::from_secs(1);
    let answer = opener.open(&call, &item("widget"), Epoch(1)).await;
    assert_eq!(answer.map_err(|failure| failure.reason), Err(Reason::DeadlineExceeded));
    assert!(world.env.uptime() < limit);
}
