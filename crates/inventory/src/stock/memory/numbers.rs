//! The five numbers of an item and the four ways in which they change.

/// Units of one item, and how many holds the held ones are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Initial stock plus restocks.
    pub received: i64,
    /// Free.
    pub available: i64,
    /// Set aside.
    pub held: i64,
    /// In orders.
    pub sold: i64,
    /// Holds.
    pub holds: u64,
}

impl Numbers {
    /// A lease's numbers, if they make sense.
    pub fn of_lease(received: i64, sold: i64) -> Option<Self> {
        let available = received.checked_sub(sold)?;
        Self { received, available, held: 0, sold, holds: 0 }.if_sound()
    }

    /// Whether they add up: no unit missing, none twice, and every hold has at least one.
    pub fn sound(&self) -> bool {
        let parts = [self.available, self.held, self.sold];
        let sum = parts.iter().try_fold(0_i64, |sum, part| sum.checked_add(*part));
        parts.iter().all(|part| *part >= 0)
            && sum == Some(self.received)
            && u64::try_from(self.held).is_ok_and(|held| held >= self.holds)
            && (self.held == 0) == (self.holds == 0)
    }

    /// Available to held, in one more hold.
    pub fn reserved(self, units: i64) -> Option<Self> {
        let available = self.available.checked_sub(units)?;
        let held = self.held.checked_add(units)?;
        let holds = self.holds.checked_add(1)?;
        Self { available, held, holds, ..self }.if_sound()
    }

    /// Held to sold.
    pub fn confirmed(self, units: i64) -> Option<Self> {
        let held = self.held.checked_sub(units)?;
        let sold = self.sold.checked_add(units)?;
        let holds = self.holds.checked_sub(1)?;
        Self { held, sold, holds, ..self }.if_sound()
    }

    /// Held to available.
    pub fn released(self, units: i64) -> Option<Self> {
        let held = self.held.checked_sub(units)?;
        let available = self.available.checked_add(units)?;
        let holds = self.holds.checked_sub(1)?;
        Self { available, held, holds, ..self }.if_sound()
    }

    /// New units, available.
    pub fn restocked(self, units: i64) -> Option<Self> {
        let received = self.received.checked_add(units)?;
        let available = self.available.checked_add(units)?;
        Self { received, available, ..self }.if_sound()
    }

    /// `None` for what an overflow or an edit by hand would leave: the item is not open then.
    fn if_sound(self) -> Option<Self> {
        self.sound().then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Numbers = Numbers { received: 10, available: 4, held: 5, sold: 1, holds: 2 };

    #[test]
    fn every_change_keeps_the_sum() {
        assert!(START.sound());
        for next in [START.reserved(4), START.confirmed(3), START.released(3), START.restocked(7)] {
            assert!(next.expect("within bounds").sound());
        }
    }

    #[test]
    fn a_change_that_would_not_add_up_is_none() {
        assert_eq!(START.reserved(5), None, "more than is free");
        assert_eq!(START.confirmed(6), None, "more than is held");
        assert_eq!(START.released(5), None, "a hold would be left without a unit");
        let last = Numbers { held: 5, holds: 1, ..START };
        assert_eq!(last.released(4), None, "a unit would be left without a hold");
        assert_eq!(START.restocked(i64::MAX), None, "overflow");
    }

    #[test]
    fn a_lease_that_sold_more_than_it_received_is_none() {
        assert!(Numbers::of_lease(10, 10).is_some());
        for (received, sold) in [(10, 11), (10, -1), (-1, 0), (i64::MIN, 1), (i64::MIN, i64::MAX)] {
            assert_eq!(Numbers::of_lease(received, sold), None, "{received} {sold}");
        }
    }

    #[test]
    fn sums_that_overflow_are_not_sound() {
        assert!(!Numbers { received: -2, available: i64::MAX, held: 0, sold: i64::MAX, holds: 0 }.sound());
    }
}
