//! The judge of a run: reads what clients were told and what is stored, and says which invariant broke and where. It has
//! no part in the run and shares no code with the product but the names of reasons: what it knows of tables, keys and
//! logs it was told a second time.
//!
//! - [`evidence`]: all that is judged, as plain values
//! - [`collect`]: reads it from a history, Postgres, Redis, RabbitMQ and logs
//! - `books`: what the tables and keys say by themselves: I1 to I4, I7
//! - `answers`: what clients were told, against the tables: I5, I6, I9, I12, and where each row comes from
//! - `stock_told`: whether units that clients were told, or refused for, can have been so: I1
//! - `rest`: what holds once everything has come to rest: I8, I10, I11
//!
//! I8 is seen directly where consumers log what they have handled (`RUST_LOG=info,inventory::consumer=debug`; the line is
//! written before the acknowledgement). Without these logs it is implied: an event leaves the outbox only for the queue,
//! and the queue only by an acknowledgement or into the dead letters; so where all three are empty, and nobody deleted the
//! queue, each was acknowledged, which consumers do after the effect.

mod answers;
mod books;
pub mod collect;
pub mod evidence;
#[cfg(test)]
mod forged;
mod rest;
mod stock_told;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use contracts::Reason;
use uuid::Uuid;

use self::evidence::{Call, Evidence, Outcome, Verdict};
use crate::history::Op;

/// Findings of one rule that are told; all are counted.
pub const FINDINGS_TOLD_MAX: usize = 20;

macro_rules! rules {
    ($($rule:ident $name:literal $check:path;)*) => {
        /// What a run is held against.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $(#[doc = $name] $rule,)* }

        impl Rule {
            /// All of them, in the order in which they are told.
            pub const ALL: &[Self] = &[$(Self::$rule,)*];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $(Self::$rule => $name,)* }
            }

            fn check(self, case: &Case<'_>, found: &mut Found) {
                match self { $(Self::$rule => $check(case, found),)* }
            }
        }
    };
}

rules! {
    I1 "I1: received = available + held + sold" books::i1_every_unit_is_somewhere;
    I2 "I2: received = initial + restocks" books::i2_received_is_initial_and_restocks;
    I3 "I3: never sold more than received" books::i3_never_oversold;
    I4 "I4: every order had its hold" books::i4_every_order_had_its_hold;
    I5 "I5: one verdict for an id" answers::i5_one_verdict;
    I6 "I6: one order for a key" answers::i6_one_order_for_a_key;
    I7 "I7: every order is sold once" books::i7_every_order_is_sold_once;
    I8 "I8: every order's event is handled" rest::i8_every_event_is_handled;
    I9 "I9: what was answered stands" answers::i9_answers_stand;
    I10 "I10: at rest nothing is left over" rest::i10_nothing_is_left_over;
    I11 "I11: success soon after healing" rest::i11_success_after_healing;
    I12 "I12: reads and refusals create nothing" answers::i12_refusals_create_nothing;
    Origin "every row comes from a call that was not refused" answers::every_row_has_its_call;
    History "the history is whole" rest::the_history_is_whole;
}

/// What one rule found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Things that were looked at. A rule that looked at nothing shows nothing.
    pub looked_at: u64,
    /// Violations.
    pub count: u64,
    /// The first of them, [`FINDINGS_TOLD_MAX`] at most.
    pub told: Vec<String>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
}

impl Found {
    fn look(&mut self) {
        self.looked_at += 1;
    }

    /// A violation.
    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < FINDINGS_TOLD_MAX {
            self.told.push(text());
        }
    }

    /// Looks at one thing, which is a violation unless `fine`.
    fn expect(&mut self, fine: bool, text: impl FnOnce() -> String) {
        self.look();
        if !fine {
            self.add(text);
        }
    }
}

/// The judgement.
#[derive(Clone, Debug)]
pub struct Report(pub BTreeMap<Rule, Found>);

impl Report {
    /// Whether no rule is broken.
    pub fn is_clean(&self) -> bool {
        self.0.values().all(|found| found.count == 0)
    }

    /// The rules that are broken.
    pub fn broken(&self) -> Vec<Rule> {
        self.0.iter().filter(|(_, found)| found.count > 0).map(|(rule, _)| *rule).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, found) in &self.0 {
            let verdict = if found.count == 0 { "holds".to_owned() } else { format!("BROKEN {} times", found.count) };
            writeln!(formatter, "{}: {verdict}, {} looked at", rule.name(), found.looked_at)?;
            for text in found.told.iter().chain(&found.notes) {
                writeln!(formatter, "  {text}")?;
            }
        }
        Ok(())
    }
}

/// Judges a run.
pub fn check(evidence: &Evidence) -> Report {
    let case = Case::new(evidence);
    let judged = Rule::ALL.iter().map(|rule| {
        let mut found = Found::default();
        rule.check(&case, &mut found);
        (*rule, found)
    });
    Report(judged.collect())
}

/// The evidence, with what several rules look up.
struct Case<'a> {
    evidence: &'a Evidence,
    /// Orders by id.
    confirmed: HashMap<Uuid, &'a Verdict>,
    /// Units of all orders, by item.
    sold: HashMap<&'a str, i64>,
    /// Units received, by item; as the ledger has them.
    received: HashMap<&'a str, i64>,
    /// Calls that order under a key, by key.
    by_key: HashMap<&'a str, Vec<&'a Call>>,
    /// An order that has this client's key.
    order_of_key: HashMap<&'a str, &'a Verdict>,
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let (mut confirmed, mut sold, mut order_of_key) = (HashMap::new(), HashMap::new(), HashMap::new());
        for order in evidence.ledger.verdicts.iter().filter(|verdict| verdict.confirmed) {
            confirmed.insert(order.id, order);
            *sold.entry(&*order.item).or_insert(0) += order.quantity;
            if let Some(key) = order.key.as_deref().and_then(|key| key.strip_prefix("key:")) {
                order_of_key.insert(key, order);
            }
        }
        let mut received: HashMap<&str, i64> =
            evidence.ledger.leases.iter().map(|(item, lease)| (&**item, lease.initial)).collect();
        for restock in &evidence.ledger.restocks {
            *received.entry(&*restock.item).or_insert(evidence.setup.initial) += restock.quantity;
        }
        let mut by_key: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in evidence.history.calls.iter().filter(|call| call.op == Op::Order) {
            if let Some(key) = &call.key {
                by_key.entry(key).or_default().push(call);
            }
        }
        Self { evidence, confirmed, sold, received, by_key, order_of_key }
    }

    fn calls(&self, op: Op) -> impl Iterator<Item = &'a Call> {
        self.evidence.history.calls.iter().filter(move |call| call.op == op)
    }

    fn sold(&self, item: &str) -> i64 {
        self.sold.get(item).copied().unwrap_or(0)
    }

    fn received(&self, item: &str) -> i64 {
        self.received.get(item).copied().unwrap_or(self.evidence.setup.initial)
    }
}

impl Call {
    fn told_id(&self) -> Option<Uuid> {
        self.told.as_ref().and_then(|told| told.id)
    }

    fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    fn reason(&self) -> Option<Reason> {
        self.told.as_ref().and_then(|told| told.reason)
    }

    /// Refused because too few units were free: an order by a problem, a reserve by an answer without a hold.
    fn is_short(&self) -> bool {
        match self.op {
            Op::Order => self.outcome == Outcome::Refused && self.reason() == Some(Reason::InsufficientStock),
            Op::Reserve => self.is_ok() && self.told_id().is_none(),
            Op::Release | Op::Restock | Op::Stock | Op::Read => false,
        }
    }

    /// Whether it may have had an effect that lasts.
    fn may_have_acted(&self) -> bool {
        match self.op {
            Op::Order | Op::Reserve | Op::Release | Op::Restock => self.outcome != Outcome::Refused && !self.is_short(),
            Op::Stock | Op::Read => false,
        }
    }

    fn orders(&self, order: &Verdict) -> bool {
        self.item.as_ref() == Some(&order.item) && self.quantity == order.quantity
    }
}
