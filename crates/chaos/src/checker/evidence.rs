//! What is judged, as plain values: from a real run, or forged.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::BufRead,
    sync::Arc,
};

use contracts::Reason;
use uuid::Uuid;

use crate::history::{self, Answer, Event, Invoke, Op, Phase, Unreadable};

/// A text that many lines have in common.
pub type Name = Arc<str>;

/// All that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// How the system was set up.
    pub setup: Setup,
    /// What clients did and were told.
    pub history: History,
    /// The tables, once the system had come to rest.
    pub ledger: Ledger,
    /// The stock store then.
    pub stock: Stock,
    /// What became of the events.
    pub events: Events,
}

/// What the checker must know of the system's settings.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `DEFAULT_STOCK`, in units.
    pub initial: i64,
    /// The longest life of any hold in the run, of orders and of `/reserve`, in microseconds.
    pub hold_micros: u64,
    /// How long after a fault's end the first answer may take that an order service decided, in microseconds.
    pub heal_micros: u64,
    /// The same for faults whose kind begins with this.
    pub heal_micros_of: Vec<(String, u64)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            initial: 0,
            hold_micros: 60_000_000,
            heal_micros: 2_000_000,
            heal_micros_of: vec![("postgres".to_owned(), 3_000_000)],
        }
    }
}

/// The history, its answers joined with their calls.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order in which they were sent.
    pub calls: Vec<Call>,
    /// In the order in which they began.
    pub faults: Vec<Span>,
    /// When the system had come to rest.
    pub rest: Option<u64>,
    /// Where the history contradicts itself.
    pub flaws: Vec<String>,
}

/// A call, and what its client was told.
#[derive(Clone, Debug)]
pub struct Call {
    /// Line of its invoke.
    pub line: usize,
    /// When it was sent.
    pub at: u64,
    /// What it does.
    pub op: Op,
    /// To which item.
    pub item: Option<Name>,
    /// Units.
    pub quantity: i64,
    /// Its Idempotency-Key.
    pub key: Option<Name>,
    /// The hold, restock or order that it names.
    pub id: Option<Uuid>,
    /// What is known of its effect.
    pub outcome: Outcome,
    /// The answer, if one came.
    pub told: Option<Told>,
}

/// What is known of a call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not done, for ever.
    Refused,
    /// It may have been done.
    Unknown,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its line.
    pub line: usize,
    /// When it came.
    pub at: u64,
    /// Its status.
    pub status: u16,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// The order or hold.
    pub id: Option<Uuid>,
    /// The order's item.
    pub item: Option<Name>,
    /// The order's units.
    pub quantity: Option<i64>,
    /// Units free.
    pub free: Option<i64>,
}

/// A fault, from its beginning to its end; to the end of time if none is told.
#[derive(Clone, Debug)]
pub struct Span {
    /// Line of its end, or of its beginning if there is no end.
    pub line: usize,
    /// Its kind.
    pub fault: String,
    /// When it began.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
}

/// The ledger's tables.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// `order_verdicts`, oldest first.
    pub verdicts: Vec<Verdict>,
    /// `stock_leases`.
    pub leases: BTreeMap<Name, Lease>,
    /// `restocks`, oldest first.
    pub restocks: Vec<Restock>,
    /// `outbox`.
    pub outbox: Vec<Outbox>,
}

/// A row of `order_verdicts`.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The order, or what can never become one.
    pub id: Uuid,
    /// An order, and no tombstone.
    pub confirmed: bool,
    /// Of which item.
    pub item: Name,
    /// Units; 0 of a tombstone.
    pub quantity: i64,
    /// Epoch of its hold.
    pub epoch: i64,
    /// Number of its hold; 0 of a tombstone.
    pub number: i64,
    /// `key:` and a client's key, or `attempt:` and an id.
    pub key: Option<Name>,
    /// When it was made, in microseconds since 1970.
    pub created_at: i64,
}

/// A row of `stock_leases`.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// The newest lease.
    pub epoch: i64,
    /// Units at first.
    pub initial: i64,
    /// Units of the orders whose events have left.
    pub settled: i64,
}

/// A row of `restocks`.
#[derive(Clone, Debug)]
pub struct Restock {
    /// Its id.
    pub id: Uuid,
    /// Of which item.
    pub item: Name,
    /// Units.
    pub quantity: i64,
    /// When it was made, in microseconds since 1970.
    pub created_at: i64,
}

/// A row of `outbox`.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// The order.
    pub order: Uuid,
    /// Of which item.
    pub item: Name,
    /// Units.
    pub quantity: i64,
}

/// The stock store.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// Items that have a key.
    pub items: BTreeMap<Name, ItemKeys>,
    /// Keys that no item and no hold explains.
    pub stray: Vec<String>,
}

/// The keys of one item. Where a number is missing or is none, the item is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemKeys {
    /// Loaded in this life of the server, and complete.
    pub open: bool,
    /// The lease.
    pub epoch: i64,
    /// Units in.
    pub received: i64,
    /// Units free.
    pub available: i64,
    /// Units set aside.
    pub held: i64,
    /// Units sold.
    pub sold: i64,
    /// Holds, as counted.
    pub holds: i64,
    /// Holds, as there are.
    pub entries: i64,
    /// Deadlines, as there are.
    pub deadlines: i64,
    /// Units of all holds that are there.
    pub units: i64,
}

/// What became of the events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Messages in `order_created`, in consumers' hands too.
    pub waiting: u64,
    /// Messages in `order_created.dead`.
    pub dead_letters: u64,
    /// Orders whose events consumers had handled, as they logged before each acknowledgement. `None` without these logs.
    pub handled: Option<HashSet<Uuid>>,
}

impl History {
    /// Reads a history, line by line.
    pub fn read(lines: impl BufRead) -> Result<Self, Unreadable> {
        let mut reading = Reading::default();
        for event in history::read(lines) {
            let (line, event) = event?;
            reading.take(line, event);
        }
        Ok(reading.history)
    }

    /// When the call was over, as far as its client knows: never, without an answer that says what became of it.
    pub fn ended(call: &Call) -> u64 {
        call.told.as_ref().map_or(u64::MAX, |told| told.at)
    }
}

#[derive(Default)]
struct Reading {
    history: History,
    /// Calls without an answer, by their number: where they are in the history.
    open: HashMap<u64, usize>,
    names: HashSet<Name>,
    clock: u64,
}

impl Reading {
    fn take(&mut self, line: usize, event: Event) {
        let at = event.at();
        if at < self.clock {
            self.flaw(line, "goes back in time");
        }
        self.clock = self.clock.max(at);
        match event {
            Event::Invoke(invoke) => self.invoke(line, invoke),
            Event::Ok(answer) => self.answer(line, Outcome::Ok, answer),
            Event::Refused(answer) => self.answer(line, Outcome::Refused, answer),
            Event::Unknown(answer) => self.answer(line, Outcome::Unknown, answer),
            Event::Fault(fault) => match fault.phase {
                Phase::Begin => {
                    self.history.faults.push(Span { line, fault: fault.fault, begin: at, end: u64::MAX });
                }
                Phase::End => {
                    let open = |span: &&mut Span| span.end == u64::MAX && span.fault == fault.fault;
                    match self.history.faults.iter_mut().find(open) {
                        Some(span) => (span.line, span.end) = (line, at),
                        None => self.flaw(line, "ends a fault that did not begin"),
                    }
                }
                Phase::Healed => {}
            },
            Event::Rest { .. } => self.history.rest = Some(at),
        }
    }

    fn flaw(&mut self, line: usize, what: &str) {
        self.history.flaws.push(format!("line {line} {what}"));
    }

    fn name(&mut self, text: String) -> Name {
        if let Some(name) = self.names.get(text.as_str()) {
            return name.clone();
        }
        let name: Name = text.into();
        self.names.insert(name.clone());
        name
    }

    fn invoke(&mut self, line: usize, invoke: Invoke) {
        if self.open.insert(invoke.call, self.history.calls.len()).is_some() {
            self.flaw(line, "invokes a call that is under way");
        }
        let call = Call {
            line,
            at: invoke.at,
            op: invoke.op,
            item: invoke.item.map(|item| self.name(item)),
            quantity: invoke.quantity.map_or(0, |quantity| i64::try_from(quantity).unwrap_or(i64::MAX)),
            key: invoke.key.map(|key| self.name(key)),
            id: invoke.hold.or(invoke.restock).or(invoke.order),
            outcome: Outcome::Unknown,
            told: None,
        };
        self.history.calls.push(call);
    }

    fn answer(&mut self, line: usize, outcome: Outcome, answer: Answer) {
        let Some(index) = self.open.remove(&answer.call) else {
            return self.flaw(line, "answers a call that is not under way");
        };
        let item = answer.item.map(|item| self.name(item));
        let call = &mut self.history.calls[index];
        call.outcome = outcome;
        call.told = Some(Told {
            line,
            at: answer.at,
            status: answer.status.unwrap_or(0),
            reason: answer.reason.as_deref().and_then(Reason::from_name),
            id: answer.order.or(answer.hold),
            item,
            quantity: answer.quantity,
            free: answer.stock.or(answer.remaining),
        });
    }
}
