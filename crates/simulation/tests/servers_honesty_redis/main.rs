//! The simulated Redis answers as the real one: random operations of the stock store on both, with a hand's edits in
//! between, and every answer and all that is stored compared. Only what the clock gives may differ, by a little.
#![expect(clippy::disallowed_methods, reason = "tests run on the real clock")]

mod both;
mod lives;

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use contracts::values::{Epoch, Item, Lease, ReservationId, Stamp, Timestamp, Ttl};
use inventory::stock::{
    Incarnation, LoadReply, ReserveReply, ReserveRequest, StockError, StockStore,
    conformance::{id, item, restock_id, units},
    redis::keys::Spread,
};
use service::manual::Dice;
use simulation::redis::data::Data;

use self::both::{Both, TIME_TOLERANCE_MICROS, alike};

/// Operations of a run, unless the environment says otherwise.
const OPERATIONS: u64 = 10_000;
/// How often each answer must have come, so that it counts as compared.
const ANSWERS_MIN: u64 = 20;
/// All that is stored is compared after so many operations.
const DUMP_EVERY: u64 = 20;
/// Few ids, so that they meet.
const IDS: u64 = 12;
const ITEMS: [&str; 3] = ["widget", "gadget", "Käse 🧀"];
/// A moment long past, in microseconds since 1970: deadlines that the clock did not give.
const LONG_AGO: u64 = 1_000_000_000_000_000;

/// Everything that the store can answer.
const ANSWERS: [&str; 36] = [
    "reserve Held",
    "reserve Insufficient",
    "reserve Released",
    "reserve Mismatch",
    "reserve Overdue",
    "reserve NotOpen",
    "confirm Confirmed",
    "confirm AlreadyDone",
    "confirm Superseded",
    "confirm NotOpen",
    "release Released",
    "release Absent",
    "release Superseded",
    "release NotOpen",
    "restock Counted",
    "restock NotOpen",
    "available Available",
    "available NotOpen",
    "find None",
    "find Some without a hold",
    "find Some with a hold",
    "hold None",
    "hold Some",
    "probe open",
    "probe closed",
    "load Loaded",
    "load Refused",
    "due none",
    "due some",
    "open items none",
    "open items some",
    "counts None",
    "counts Some",
    "ping",
    "edit",
    "expired",
];

/// A run: both stores, and what was seen of them.
struct Run {
    both: Both,
    dice: Dice,
    /// The newest epoch that was tried, and restocks so far, by item.
    epochs: BTreeMap<Item, i64>,
    stamps: BTreeMap<(Item, ReservationId), Stamp>,
    /// The same life, as the real and as the simulated server call it.
    lives: Vec<(Incarnation, Incarnation)>,
    seen: BTreeMap<String, u64>,
}

#[tokio::test]
async fn random_operations_are_answered_alike() {
    let operations =
        std::env::var("SIMULATION_HONESTY_OPERATIONS").map_or(OPERATIONS, |text| text.parse().expect("a number"));
    let mut run = Run {
        both: Both::start().await,
        dice: Dice::new(operations),
        epochs: BTreeMap::new(),
        stamps: BTreeMap::new(),
        lives: Vec::new(),
        seen: BTreeMap::new(),
    };
    for number in 0..operations {
        run.one().await;
        if number % DUMP_EVERY == 0 {
            run.both.compare_dumps(&run.lives).await;
        }
    }
    run.both.compare_dumps(&run.lives).await;
    println!("{:#?}", run.seen);
    for answer in ANSWERS {
        let times = run.seen.get(answer).copied().unwrap_or(0);
        assert!(times >= ANSWERS_MIN, "{answer}: only {times} times, so this run shows little of it");
    }
    assert_eq!(run.seen.len(), ANSWERS.len(), "{:?}", run.seen.keys());
}

impl Run {
    fn below(&mut self, end: u64) -> i64 {
        i64::try_from(self.dice.below(end)).expect("small")
    }

    fn one_of<T>(&mut self, among: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> T {
        let mut among = among.into_iter();
        let chosen = usize::try_from(self.dice.below(among.len() as u64)).expect("small");
        among.nth(chosen).expect("below their number")
    }

    fn count(&mut self, answer: &str) {
        *self.seen.entry(answer.to_owned()).or_default() += 1;
    }

    /// The answers, which are the same: counted by method and kind.
    fn same<T: Debug + PartialEq>(
        &mut self,
        method: &str,
        answers: (Result<T, StockError>, Result<T, StockError>),
    ) -> T {
        let (real, simulated) = answers;
        let (real, simulated) = (real.expect("Redis answers"), simulated.expect("the simulation answers"));
        assert_eq!(real, simulated, "{method}");
        let text = format!("{real:?}");
        let kind = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        self.count(&format!("{method} {kind}"));
        real
    }

    async fn one(&mut self) {
        let item = item(self.one_of(ITEMS));
        let id = id(self.dice.below(IDS));
        let epoch = self.epochs.get(&item).copied().unwrap_or(0) + self.one_of([0, 0, 0, 0, 0, 0, -1, 1]);
        let epoch = Epoch(epoch.max(0));
        match self.dice.below(1_000) {
            0..300 => self.reserve(item, id, epoch).await,
            300..420 => {
                let stamp = self.stamp(&item, id, epoch);
                let answers = self.both.ask(async |store| store.confirm(id, &stamp).await).await;
                self.same("confirm", answers);
            }
            420..540 => {
                let stamp = self.stamp(&item, id, epoch);
                let marker = self.dice.below(3) == 0;
                let answers = self.both.ask(async |store| store.release(id, &stamp, marker).await).await;
                self.same("release", answers);
            }
            540..590 => {
                let (number, quantity) = (self.dice.below(200), units(self.below(5) + 1));
                let restock =
                    async |store: &dyn StockStore| store.restock(restock_id(number), &item, quantity, epoch).await;
                let answers = self.both.ask(restock).await;
                self.same("restock", answers);
            }
            590..820 => self.read(&item, id).await,
            820..890 => self.load(item).await,
            890..960 => self.make_due(&item).await,
            960..975 => self.edit(&item).await,
            975..990 => self.expire().await,
            990..994 => self.both.command(&["FLUSHALL"]).await,
            994..997 => self.both.command(&["DEBUG", "CHANGE-REPL-ID"]).await,
            _ => self.both.forget_scripts().await,
        }
    }

    fn stamp(&mut self, item: &Item, id: ReservationId, epoch: Epoch) -> Stamp {
        let known = self.stamps.get(&(item.clone(), id)).cloned();
        match (self.dice.below(8), known) {
            (0, _) | (_, None) => Stamp { item: item.clone(), epoch, number: self.below(4) },
            (1, Some(stamp)) => Stamp { epoch, ..stamp },
            (_, Some(stamp)) => stamp,
        }
    }

    async fn reserve(&mut self, item: Item, id: ReservationId, epoch: Epoch) {
        let quantity = self.one_of([1, 1, 1, 1, 2, 2, 3, 40]);
        let request = ReserveRequest {
            id,
            item: item.clone(),
            quantity: units(quantity),
            ttl: Ttl::parse_seconds(3_600).expect("within range"),
            least_epoch: if self.dice.below(6) == 0 { epoch } else { Epoch::NONE },
            hint: self.dice.below(2) == 0,
        };
        let mut answers = self.both.ask(async |store| store.reserve(&request).await).await;
        if let (Ok(ReserveReply::Held { deadline: real, .. }), Ok(ReserveReply::Held { deadline, .. })) = &mut answers {
            assert!((real.0 - deadline.0).abs() < TIME_TOLERANCE_MICROS, "{real:?} {deadline:?}");
            *deadline = *real;
        }
        if let ReserveReply::Held { stamp, .. } = self.same("reserve", answers) {
            self.stamps.insert((item, id), stamp);
        }
    }

    async fn read(&mut self, item: &Item, id: ReservationId) {
        match self.dice.below(11) {
            0 => {
                let answers = self.both.ask(async |store| store.available(item).await).await;
                self.same("available", answers);
            }
            1..4 => {
                let answers = self.both.ask(async |store| store.find(id).await).await;
                let (real, simulated) = (answers.0.expect("Redis answers"), answers.1.expect("so does this"));
                self.count(match &real {
                    None => "find None",
                    Some(found) if found.hold.is_none() => "find Some without a hold",
                    Some(_) => "find Some with a hold",
                });
                let split = |found: Option<inventory::stock::Found>| found.map(|found| (found.item, found.hold));
                let ((real_item, real), (simulated_item, simulated)) = (split(real).unzip(), split(simulated).unzip());
                assert_eq!(real_item, simulated_item);
                same_hold(real.flatten(), simulated.flatten());
            }
            4 | 9 => {
                let answers = self.both.ask(async |store| store.hold(item, id).await).await;
                let (real, simulated) = (answers.0.expect("Redis answers"), answers.1.expect("so does this"));
                self.count(if real.is_some() { "hold Some" } else { "hold None" });
                same_hold(real, simulated);
            }
            5 => drop(self.probe(item).await),
            6 => {
                let answers = self.both.ask(async |store| store.counts(item).await).await;
                self.same("counts", answers);
            }
            7 => {
                let (real, simulated) = self.both.ask(async |store| store.due().await).await;
                let real = real.expect("Redis answers");
                assert_eq!(real, simulated.expect("so does this"), "due");
                self.count(if real.is_empty() { "due none" } else { "due some" });
            }
            8 => {
                let (real, simulated) = self.both.ask(async |store| store.open_items(None).await).await;
                let real = real.expect("Redis answers");
                assert_eq!(real, simulated.expect("so does this"), "open items");
                self.count(if real.is_empty() { "open items none" } else { "open items some" });
            }
            _ => {
                let (real, simulated) = self.both.ask(async |store| store.ping().await).await;
                real.expect("Redis answers");
                simulated.expect("so does this");
                self.count("ping");
            }
        }
    }

    /// Whether it is open. Both tell the same lives apart.
    async fn probe(&mut self, item: &Item) -> bool {
        let (real, simulated) = self.both.ask(async |store| store.probe(item).await).await;
        let (real, simulated) = (real.expect("Redis answers"), simulated.expect("so does this"));
        assert_eq!((real.stored, real.open), (simulated.stored, simulated.open), "probe");
        self.count(if real.open { "probe open" } else { "probe closed" });
        let life = (real.incarnation, simulated.incarnation);
        let known = self.lives.iter().find(|(real, simulated)| *real == life.0 || *simulated == life.1);
        match known {
            Some(known) => assert_eq!(*known, life),
            None => self.lives.push(life),
        }
        real.open
    }

    async fn load(&mut self, item: Item) {
        // Most leases live long enough for holds to be settled under them.
        if self.probe(&item).await && self.dice.below(4) > 0 {
            return;
        }
        let known = self.epochs.get(&item).copied().unwrap_or(0);
        let epoch = known + self.one_of([1, 1, 1, 1, 1, 0, -1, 2]);
        let received = self.below(40);
        let sold = if self.dice.below(10) == 0 { received + 1 } else { self.below(10).min(received) };
        let lease = Lease { item: item.clone(), epoch: Epoch(epoch), received, sold };
        let old = self.dice.below(12) == 0;
        let life = if old { self.lives.first() } else { self.lives.last() }.expect("it was just looked at");
        let answers = self.both.load(&lease, life).await;
        if self.same("load", answers) == LoadReply::Loaded {
            self.epochs.insert(item, epoch);
        }
    }

    /// A hand makes a hold due, and tells the registry.
    async fn make_due(&mut self, item: &Item) {
        let (_, keys) = Spread::OneServer.item(item.as_str());
        let (due, heads) = (keys[3].as_str(), keys[6].as_str());
        let Some((Data::SortedSet(before), _)) = self.both.dump().remove(due) else { return };
        let (_, id) = self.one_of(before.members().to_vec());
        let id = String::from_utf8(id.to_vec()).expect("an id");
        let deadline = (LONG_AGO + self.dice.below(5)).to_string();
        self.both.command(&["ZADD", due, &deadline, &id]).await;
        let Some((Data::SortedSet(after), _)) = self.both.dump().remove(due) else { panic!("it was just there") };
        self.both.command(&["ZADD", heads, &after.members()[0].0.to_string(), item.as_str()]).await;
    }

    async fn edit(&mut self, item: &Item) {
        let holds = Spread::OneServer.item(item.as_str()).1.remove(2);
        let id = id(self.dice.below(IDS));
        let marker = Spread::OneServer.item_and_id(item.as_str(), id).1.remove(7);
        let hint = Spread::OneServer.hint(id).1;
        let id = id.to_string();
        let commands: Vec<Vec<String>> = match self.dice.below(12) {
            0 => vec![vec!["HSET".into(), holds, id, format!("{}:{}", self.below(5), self.below(5))]],
            1 => vec![vec!["DEL".into(), marker.clone()], vec!["RPUSH".into(), marker, "released:5".into()]],
            2 => vec![vec!["SET".into(), hint, item.to_string()]],
            3 => vec![vec!["HSET".into(), hint, "item".into(), "no {item}".into()]],
            _ => self.both.redis.an_edit(0, &mut self.dice).unwrap_or_default(),
        };
        for words in &commands {
            self.both.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        if !commands.is_empty() {
            self.count("edit");
        }
    }

    /// A key that ends by itself ends now.
    async fn expire(&mut self) {
        let ending: Vec<String> =
            self.both.dump().into_iter().filter(|(_, (_, until))| until.is_some()).map(|(key, _)| key).collect();
        if ending.is_empty() {
            return;
        }
        let key = &ending[usize::try_from(self.dice.below(ending.len() as u64)).expect("small")];
        let life = self.below(3) - 1;
        self.both.command(&["PEXPIRE", key, &life.to_string()]).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        self.both.command(&["PTTL", key]).await;
        self.count("expired");
    }
}

fn same_hold(real: Option<inventory::stock::Hold>, simulated: Option<inventory::stock::Hold>) {
    let parts = |hold: inventory::stock::Hold| ((hold.id, hold.stamp, hold.quantity), hold.deadline);
    let ((real, due), (simulated, simulated_due)) = (real.map(parts).unzip(), simulated.map(parts).unzip());
    assert_eq!(real, simulated);
    let micros = |due: Option<Timestamp>| due.map_or("none".to_owned(), |due| due.0.to_string());
    assert!(alike(&micros(due), &micros(simulated_due)), "{due:?} {simulated_due:?}");
}
