//! What the clients were told, counted while the run goes on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::history::Op;
use crate::load::PLENTIFUL;

/// How often an order that is waited for is looked for.
const POLL: Duration = Duration::from_millis(10);

/// One call, answered or given up.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// What it was to do.
    pub op: Op,
    /// When it was sent.
    pub sent: Instant,
    /// When the client knew.
    pub answered: Instant,
    /// `None`: no answer came.
    pub status: Option<u16>,
    /// An order was placed for it, and not for an earlier call.
    pub is_placed: bool,
    /// Which of [`PLENTIFUL`] it was about.
    pub item: Option<u8>,
}

impl Asked {
    /// How long the client waited.
    pub fn took(&self) -> Duration {
        self.answered - self.sent
    }
}

/// Every call so far.
#[derive(Debug, Default)]
pub struct Tally {
    asked: Mutex<Vec<Asked>>,
}

impl Tally {
    /// Which of [`PLENTIFUL`] it is.
    pub fn number(item: Option<&str>) -> Option<u8> {
        let place = PLENTIFUL.iter().position(|plentiful| item == Some(*plentiful))?;
        u8::try_from(place).ok()
    }

    /// Adds a call.
    pub fn note(&self, asked: Asked) {
        self.lock().push(asked);
    }

    /// How many calls were answered by now, to look at those after them.
    pub fn mark(&self) -> usize {
        self.lock().len()
    }

    /// The calls that were answered after a mark.
    pub fn since(&self, mark: usize) -> Vec<Asked> {
        self.lock()[mark..].to_vec()
    }

    /// Waits until an order of each plentiful item is placed that was asked for from now on, and gives the time until the
    /// last of them. `None`: not within `limit`.
    pub async fn orders_again(&self, limit: Duration) -> Option<Duration> {
        let (begin, mut mark) = (Instant::now(), self.mark());
        let mut first = [None; PLENTIFUL.len()];
        while begin.elapsed() <= limit + POLL {
            {
                let asked = self.lock();
                for one in asked[mark..].iter().filter(|one| one.is_placed && one.sent >= begin) {
                    if let Some(item) = one.item {
                        first[usize::from(item)].get_or_insert(one.answered - begin);
                    }
                }
                mark = asked.len();
            }
            if let Some(all) = first.into_iter().collect::<Option<Vec<_>>>() {
                return all.into_iter().max().filter(|last| *last <= limit);
            }
            sleep(POLL).await;
        }
        None
    }

    /// Waits until so many more orders are placed. False: not within `limit`.
    pub async fn orders(&self, count: usize, limit: Duration) -> bool {
        let (begin, mark) = (Instant::now(), self.mark());
        while begin.elapsed() <= limit {
            if self.lock()[mark..].iter().filter(|one| one.is_placed).count() >= count {
                return true;
            }
            sleep(POLL).await;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        // Each change is whole.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many calls of one kind were told what; 0 is for no answer.
pub fn statuses(asked: &[Asked], op: Op) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for one in asked.iter().filter(|one| one.op == op) {
        *statuses.entry(one.status.unwrap_or(0)).or_default() += 1;
    }
    statuses
}

/// The longest time without an order placed in this span.
pub fn longest_gap(asked: &[Asked], begin: Instant, end: Instant) -> Duration {
    let placed = asked.iter().filter(|one| one.is_placed).map(|one| one.answered);
    let mut times: Vec<Instant> = placed.filter(|at| (begin..end).contains(at)).chain([begin, end]).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// How long so many percent waited at most; zero when nothing was asked.
pub fn within(asked: &[Asked], percent: usize) -> Duration {
    let mut took: Vec<Duration> = asked.iter().map(Asked::took).collect();
    took.sort();
    took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(sent: Instant, after: u64, item: u8) -> Asked {
        let answered = sent + Duration::from_millis(after);
        Asked { op: Op::Order, sent, answered, status: Some(201), is_placed: true, item: Some(item) }
    }

    #[tokio::test]
    async fn orders_are_back_when_each_plentiful_item_sells_to_who_asked_later() {
        let tally = Tally::default();
        let before = Instant::now();
        let again = async {
            // Asked for before.
            for item in 0..4 {
                tally.note(placed(before, 1, item));
            }
            sleep(Duration::from_millis(30)).await;
            let now = Instant::now();
            for item in 0..3 {
                tally.note(placed(now, 5, item));
            }
            sleep(Duration::from_millis(30)).await;
            tally.note(placed(now, 100, 3));
        };
        let (took, ()) = tokio::join!(tally.orders_again(Duration::from_secs(5)), again);
        let took = took.expect("all four sell");
        assert!(took >= Duration::from_millis(130), "{took:?}");
        assert_eq!(tally.orders_again(Duration::from_millis(50)).await, None, "nobody asks any more");
    }

    #[test]
    fn a_gap_reaches_to_the_ends_of_the_span() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let asked = [placed(begin, 100, 0), placed(begin, 400, 0), placed(begin, 450, 0)];
        for (end, gap) in [(500, 300), (1_000, 550)] {
            assert_eq!(longest_gap(&asked, begin, at(end)), Duration::from_millis(gap));
        }
        assert_eq!(longest_gap(&asked, at(200), at(420)), Duration::from_millis(200));
    }

    #[test]
    fn so_many_percent_are_so_fast() {
        let begin = Instant::now();
        let asked: Vec<Asked> = (1..=10).map(|ms| placed(begin, ms, 0)).collect();
        assert_eq!(within(&asked, 90), Duration::from_millis(9));
        assert_eq!(within(&asked, 100), Duration::from_millis(10));
        assert_eq!(within(&[], 90), Duration::ZERO);
    }
}
