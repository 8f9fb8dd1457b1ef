//! Random operations against a reference that is too simple to be wrong: after every step the answer, the numbers and
//! every hold are the same.

use std::collections::{BTreeMap, BTreeSet};

use contracts::values::{Epoch, ReservationId, Stamp};
use service::manual::Dice;

use super::{Stage, StockFixture, id};
use crate::stock::{ConfirmReply, LoadReply, ReleaseReply, ReserveReply, RestockReply};

const SEEDS: u64 = 4;
const STEPS: u64 = 500;
/// Few ids, so that they meet.
const IDS: u64 = 8;

/// (units, number) of a hold.
type HeldUnits = (i64, i64);

/// One item as the documentation of the port has it, without deadlines.
#[derive(Debug, Default)]
struct Reference {
    epoch: i64,
    initial: i64,
    restocks: BTreeMap<u64, i64>,
    sold: i64,
    last_number: i64,
    holds: BTreeMap<ReservationId, HeldUnits>,
    confirmed: BTreeMap<ReservationId, HeldUnits>,
    released: BTreeSet<ReservationId>,
}

impl Reference {
    fn received(&self) -> i64 {
        self.initial + self.restocks.values().sum::<i64>()
    }

    fn held(&self) -> i64 {
        self.holds.values().map(|(units, _)| units).sum()
    }

    fn available(&self) -> i64 {
        self.received() - self.held() - self.sold
    }

    /// `Ok` is a hold's number; `Err` the reply as it is to be.
    fn reserve(&mut self, id: ReservationId, units: i64, least: i64) -> Result<i64, ReserveReply> {
        if self.epoch == 0 || self.epoch < least {
            return Err(ReserveReply::NotOpen);
        }
        if let Some((held, number)) = self.holds.get(&id).or(self.confirmed.get(&id)) {
            return if *held == units { Ok(*number) } else { Err(ReserveReply::Mismatch) };
        }
        if self.released.contains(&id) {
            return Err(ReserveReply::Released);
        }
        if self.available() < units {
            return Err(ReserveReply::Insufficient { remaining: self.available() });
        }
        self.last_number += 1;
        self.holds.insert(id, (units, self.last_number));
        Ok(self.last_number)
    }

    fn confirm(&mut self, id: ReservationId, stamp: &Stamp) -> ConfirmReply {
        if self.epoch == 0 || stamp.epoch.0 > self.epoch {
            return ConfirmReply::NotOpen;
        }
        if stamp.epoch.0 < self.epoch {
            return ConfirmReply::Superseded;
        }
        let Some(held) = self.holds.get(&id).copied().filter(|(_, number)| *number == stamp.number) else {
            return ConfirmReply::AlreadyDone;
        };
        self.holds.remove(&id);
        self.sold += held.0;
        self.confirmed.insert(id, held);
        ConfirmReply::Confirmed
    }

    fn release(&mut self, id: ReservationId, stamp: &Stamp, marker: bool) -> ReleaseReply {
        if self.epoch == 0 {
            return ReleaseReply::NotOpen;
        }
        if stamp.number != 0 && stamp.epoch.0 != self.epoch {
            return ReleaseReply::Superseded;
        }
        let reply = match self.holds.get(&id) {
            Some((_, number)) if *number == stamp.number => ReleaseReply::Released,
            Some(_) => return ReleaseReply::Absent,
            None => ReleaseReply::Absent,
        };
        self.holds.remove(&id);
        if marker && !self.confirmed.contains_key(&id) {
            self.released.insert(id);
        }
        reply
    }

    fn restock(&mut self, id: u64, units: i64, epoch: i64) -> RestockReply {
        if self.epoch == 0 || epoch > self.epoch {
            return RestockReply::NotOpen;
        }
        if epoch == self.epoch {
            self.restocks.entry(id).or_insert(units);
        }
        RestockReply::Counted { available: self.available() }
    }

    fn load(&mut self, epoch: i64, received: i64, sold: i64) -> LoadReply {
        if self.epoch >= epoch || sold > received {
            return LoadReply::Refused;
        }
        *self = Self { epoch, initial: received, sold, ..Self::default() };
        LoadReply::Loaded
    }
}

/// Both do the same: 4 seeds of 500 steps.
pub async fn random_operations_agree_with_the_reference(fixture: &dyn StockFixture) {
    for seed in 0..SEEDS {
        fixture.wipe().await;
        let mut dice = Dice::new(seed);
        let stage = Stage::new(fixture);
        let mut items = [(stage.other("widget"), Reference::default()), (stage.other("gadget"), Reference::default())];
        for step in 0..STEPS {
            let chosen = usize::from(dice.below(3) == 0);
            let (stage, reference) = &mut items[chosen];
            one_step(&mut dice, stage, reference, &format!("seed {seed} step {step}")).await;
            if dice.below(200) == 0 {
                fixture.wipe().await;
                for (_, reference) in &mut items {
                    *reference = Reference::default();
                }
            }
            for (stage, reference) in &items {
                agree(stage, reference, &format!("seed {seed} step {step}")).await;
            }
        }
    }
}

async fn one_step(dice: &mut Dice, stage: &Stage, reference: &mut Reference, at: &str) {
    let id = id(dice.below(IDS));
    let units = small(dice, 4) + 1;
    // Around the present epoch and the newest numbers, so that most stamps fit and some do not.
    let epoch = (reference.epoch + [0, 0, 0, 0, 0, -1, 1][dice_index(dice, 7)]).max(0);
    match dice.below(100) {
        0..45 => {
            let least = if dice.below(10) == 0 { epoch } else { 0 };
            let request = crate::stock::ReserveRequest { least_epoch: Epoch(least), ..stage.request(id, units) };
            let got = match stage.send(&request).await {
                ReserveReply::Held { stamp, remaining, .. } => {
                    assert_eq!(stamp, stage.stamp(reference.epoch, stamp.number), "{at}");
                    Ok((stamp.number, remaining))
                }
                other => Err(other),
            };
            let expected = reference.reserve(id, units, least);
            assert_eq!(got, expected.map(|number| (number, reference.available())), "reserve {at}");
        }
        45..65 => {
            let stamp = stage.stamp(epoch, likely_number(dice, reference, id));
            assert_eq!(stage.confirm(id, &stamp).await, reference.confirm(id, &stamp), "confirm {at}");
        }
        65..85 => {
            let stamp = stage.stamp(epoch, likely_number(dice, reference, id));
            let marker = dice.below(4) == 0;
            let got = stage.store.release(id, &stamp, marker).await.expect("the store answers");
            assert_eq!(got, reference.release(id, &stamp, marker), "release {at}");
        }
        85..95 => {
            let number = dice.below(6);
            assert_eq!(
                stage.restock(number, units, epoch).await,
                reference.restock(number, units, epoch),
                "restock {at}"
            );
        }
        _ => {
            let (received, sold) = (small(dice, 30), small(dice, 12));
            let got = stage.load(epoch, received, sold).await;
            assert_eq!(got, reference.load(epoch, received, sold), "load {at}");
        }
    }
}

async fn agree(stage: &Stage, reference: &Reference, at: &str) {
    let Some(counts) = stage.counts_if_there().await else {
        assert_eq!(reference.epoch, 0, "{at}");
        return;
    };
    assert_eq!(counts.received, counts.available + counts.held + counts.sold, "{at}");
    assert_eq!(
        (counts.epoch.0, counts.received, counts.available, counts.held, counts.sold, counts.holds),
        (
            reference.epoch,
            reference.received(),
            reference.available(),
            reference.held(),
            reference.sold,
            reference.holds.len() as u64
        ),
        "{at}"
    );
    for number in 0..IDS {
        let hold = stage.hold(id(number)).await.map(|hold| (hold.quantity.get(), hold.stamp.number));
        assert_eq!(hold, reference.holds.get(&id(number)).copied(), "{at}");
    }
}

fn small(dice: &mut Dice, end: u64) -> i64 {
    i64::try_from(dice.below(end)).expect("small")
}

fn dice_index(dice: &mut Dice, end: u64) -> usize {
    usize::try_from(dice.below(end)).expect("small")
}

fn likely_number(dice: &mut Dice, reference: &Reference, id: ReservationId) -> i64 {
    match dice.below(6) {
        0 => 0,
        1 => small(dice, 8),
        _ => reference.holds.get(&id).or(reference.confirmed.get(&id)).map_or(1, |(_, number)| *number),
    }
}
