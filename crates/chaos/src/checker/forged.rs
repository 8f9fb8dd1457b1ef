//! A small run that is as it should be, and forgeries of it, each by one change.

use std::{collections::HashSet, fmt::Write as _};

use uuid::Uuid;

use super::{
    Report, Rule, check,
    evidence::{Evidence, History, ItemKeys, Lease, Outbox, Restock, Setup, Verdict},
};
use crate::history::{Answer, Event, Fault, Invoke, Op, Phase};

/// Units of an item at first.
const INITIAL: i64 = 10;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A run, before its history is text.
struct Run {
    events: Vec<Event>,
    evidence: Evidence,
}

impl Run {
    /// A call, and its answer a moment later.
    fn call(&mut self, op: Op, change: impl FnOnce(&mut Invoke), kind: fn(Answer) -> Event, answer: Answer) {
        let (at, call) = (self.now() + 1_000, self.events.len() as u64);
        let mut invoke = Invoke { at, call, op, ..Invoke::default() };
        change(&mut invoke);
        self.events.push(Event::Invoke(invoke));
        self.events.push(kind(Answer { at: at + 1_000, call, ..answer }));
    }

    fn order(&mut self, item: &str, quantity: i64, key: Option<&str>, kind: fn(Answer) -> Event, answer: Answer) {
        let units = u64::try_from(quantity).expect("not negative");
        self.call(
            Op::Order,
            |invoke| {
                (invoke.item, invoke.quantity, invoke.key) = (Some(item.into()), Some(units), key.map(Into::into));
            },
            kind,
            answer,
        );
    }

    fn now(&self) -> u64 {
        self.events.last().map_or(0, Event::at)
    }

    fn fault(&mut self, fault: &str, phase: Phase) {
        self.events.push(Event::Fault(Fault { at: self.now() + 1_000, fault: fault.into(), phase }));
    }

    /// A row of the ledger.
    fn confirm(&mut self, order: Uuid, item: &str, quantity: i64, epoch: i64, key: &str) {
        let number = i64::try_from(self.evidence.ledger.verdicts.len()).expect("few") + 1;
        let verdict = Verdict {
            id: order,
            confirmed: true,
            item: item.into(),
            quantity,
            epoch,
            number,
            key: Some(key.into()),
            created_at: number * 1_000_000,
        };
        self.evidence.ledger.verdicts.push(verdict);
    }

    fn verdict(&mut self, order: Uuid) -> &mut Verdict {
        self.evidence.ledger.verdicts.iter_mut().find(|verdict| verdict.id == order).expect("it is there")
    }

    fn lease(&mut self, item: &str) -> &mut Lease {
        self.evidence.ledger.leases.get_mut(item).expect("it is there")
    }

    fn handled(&mut self) -> &mut HashSet<Uuid> {
        self.evidence.events.handled.as_mut().expect("logs")
    }

    fn keys(&mut self, item: &str) -> &mut ItemKeys {
        self.evidence.stock.items.get_mut(item).expect("it is there")
    }

    /// The answer of the n-th call with this operation.
    fn answer(&mut self, op: Op, nth: usize) -> &mut Event {
        let calls: Vec<u64> = self
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Invoke(invoke) if invoke.op == op => Some(invoke.call),
                _ => None,
            })
            .collect();
        let call = calls[nth];
        let answers = |event: &&mut Event| match event {
            Event::Ok(answer) | Event::Refused(answer) | Event::Unknown(answer) => answer.call == call,
            _ => false,
        };
        self.events.iter_mut().find(answers).expect("every call has one")
    }

    fn told(&mut self, op: Op, nth: usize) -> &mut Answer {
        match self.answer(op, nth) {
            Event::Ok(answer) | Event::Refused(answer) | Event::Unknown(answer) => answer,
            _ => unreachable!("an answer"),
        }
    }

    fn invoke(&mut self, op: Op, nth: usize) -> &mut Invoke {
        let call = self.told(op, nth).call;
        let found = self.events.iter_mut().find_map(|event| match event {
            Event::Invoke(invoke) if invoke.call == call => Some(invoke),
            _ => None,
        });
        found.expect("every answer has one")
    }

    fn judge(mut self) -> Report {
        let mut text = String::new();
        for event in &self.events {
            write!(text, "{}", event.line()).expect("memory");
        }
        self.evidence.history = History::read(text.as_bytes()).expect("what was written is read");
        check(&self.evidence)
    }
}

fn created(order: Uuid, item: &str, quantity: i64) -> Answer {
    Answer {
        status: Some(201),
        order: Some(order),
        item: Some(item.into()),
        quantity: Some(quantity),
        ..Answer::default()
    }
}

fn refused(status: u16, reason: &str) -> Answer {
    Answer { status: Some(status), reason: Some(reason.into()), ..Answer::default() }
}

const KEYED: Uuid = Uuid::from_u128(1);
const KEYLESS: Uuid = Uuid::from_u128(2);
const HELD: Uuid = Uuid::from_u128(3);
const LOST: Uuid = Uuid::from_u128(4);
const RELEASED: Uuid = Uuid::from_u128(5);
const IN: Uuid = Uuid::from_u128(6);

/// Of `widget` 10 units and 5 more: 3 under a key, repeated and refused with another body; 2 without a key; 4 on a
/// hold; 1 by a call without an answer; 5 are free. A hold is given back; the last 6 are refused; a fault heals;
/// `unseen` is read.
fn good() -> Run {
    let mut run = Run { events: Vec::new(), evidence: Evidence::default() };
    run.evidence.setup = Setup { initial: INITIAL, ..Setup::default() };
    run.order("widget", 3, Some("k"), Event::Ok, created(KEYED, "widget", 3));
    run.order("widget", 3, Some("k"), Event::Ok, Answer { replayed: Some(true), ..created(KEYED, "widget", 3) });
    run.order("widget", 2, Some("k"), Event::Refused, refused(422, "IDEMPOTENCY_KEY_REUSED"));
    run.order("widget", 2, None, Event::Ok, created(KEYLESS, "widget", 2));
    for (hold, units, remaining) in [(HELD, 4, 1), (RELEASED, 1, 0)] {
        let answer = Answer { status: Some(200), hold: Some(hold), remaining: Some(remaining), ..Answer::default() };
        let ask = |invoke: &mut Invoke| {
            (invoke.item, invoke.quantity, invoke.hold) = (Some("widget".into()), Some(units), Some(hold));
        };
        run.call(Op::Reserve, ask, Event::Ok, answer);
    }
    let on_hold = |invoke: &mut Invoke| {
        (invoke.item, invoke.quantity, invoke.hold) = (Some("widget".into()), Some(4), Some(HELD));
    };
    run.call(Op::Order, on_hold, Event::Ok, created(HELD, "widget", 4));
    let release = |invoke: &mut Invoke| invoke.hold = Some(RELEASED);
    run.call(Op::Release, release, Event::Ok, Answer { status: Some(204), ..Answer::default() });
    let release = |invoke: &mut Invoke| invoke.hold = Some(HELD);
    run.call(Op::Release, release, Event::Refused, refused(409, "RESERVATION_CONFIRMED"));
    let restock = |invoke: &mut Invoke| {
        (invoke.item, invoke.quantity, invoke.restock) = (Some("widget".into()), Some(5), Some(IN));
    };
    for _repeat in 0..3 {
        run.call(Op::Restock, restock, Event::Ok, Answer { status: Some(200), stock: Some(6), ..Answer::default() });
    }
    run.order("widget", 7, None, Event::Refused, refused(409, "INSUFFICIENT_STOCK"));
    run.fault("redis_wiped", Phase::Begin);
    run.order("widget", 1, None, Event::Unknown, Answer { reason: Some("reset".into()), ..Answer::default() });
    run.fault("redis_wiped", Phase::End);
    run.order("widget", 6, None, Event::Refused, refused(409, "INSUFFICIENT_STOCK"));
    let unseen = |invoke: &mut Invoke| invoke.item = Some("unseen".into());
    run.call(Op::Stock, unseen, Event::Ok, Answer { status: Some(200), stock: Some(INITIAL), ..Answer::default() });
    run.order("unseen", 11, None, Event::Refused, refused(409, "INSUFFICIENT_STOCK"));
    let read = |invoke: &mut Invoke| invoke.order = Some(KEYED);
    run.call(Op::Read, read, Event::Ok, Answer { status: Some(200), ..created(KEYED, "widget", 3) });
    run.events.push(Event::Rest { at: run.now() + 70_000_000 });

    run.confirm(KEYED, "widget", 3, 1, "key:k");
    run.confirm(KEYLESS, "widget", 2, 1, "attempt:1");
    run.confirm(HELD, "widget", 4, 1, "attempt:2");
    run.confirm(LOST, "widget", 1, 2, "attempt:3");
    let ledger = &mut run.evidence.ledger;
    let tombstone =
        Verdict { id: RELEASED, confirmed: false, quantity: 0, number: 0, key: None, ..ledger.verdicts[0].clone() };
    ledger.verdicts.push(tombstone);
    ledger.restocks.push(Restock { id: IN, item: "widget".into(), quantity: 5, created_at: 3_500_000 });
    ledger.leases.insert("widget".into(), Lease { epoch: 2, initial: INITIAL, settled: 10 });
    let keys = ItemKeys {
        open: true,
        epoch: 2,
        received: 15,
        available: 5,
        held: 0,
        sold: 10,
        holds: 0,
        entries: 0,
        deadlines: 0,
        units: 0,
    };
    run.evidence.stock.items.insert("widget".into(), keys);
    run.evidence.events.handled = Some([KEYED, KEYLESS, HELD, LOST].into());
    run
}

#[test]
fn a_run_that_is_as_it_should_be_breaks_no_rule() {
    let report = good().judge();
    assert!(report.is_clean(), "{report}");
    for rule in Rule::ALL {
        assert!(report.0[rule].looked_at > 0, "{rule:?} looks at nothing\n{report}");
    }
}

/// The change breaks these rules and no other.
#[track_caller]
fn breaks(rules: &[Rule], change: impl FnOnce(&mut Run)) {
    let mut run = good();
    change(&mut run);
    let report = run.judge();
    assert_eq!(report.broken(), rules, "{report}");
}

#[test]
fn units_that_are_nowhere_break_i1() {
    // A hold that nobody counted.
    breaks(&[Rule::I1, Rule::I10], |run| run.keys("widget").entries = 1);
    // A unit more than came in.
    breaks(&[Rule::I1, Rule::I10], |run| run.keys("widget").available += 1);
    // Units that a client was told, and there never were.
    breaks(&[Rule::I1], |run| run.told(Op::Stock, 0).stock = Some(11));
    breaks(&[Rule::I1], |run| run.told(Op::Stock, 0).stock = Some(-1));
    // Nobody had a unit of it, and one was refused.
    breaks(&[Rule::I1], |run| {
        run.order("other", INITIAL, None, Event::Refused, refused(409, "INSUFFICIENT_STOCK"));
    });
    breaks(&[Rule::I1], |run| run.told(Op::Order, 8).remaining = Some(11));
}

#[test]
fn stock_that_nobody_counted_in_breaks_i2() {
    breaks(&[Rule::I2, Rule::I10], |run| {
        let keys = run.keys("widget");
        (keys.received, keys.available) = (16, 6);
    });
}

#[test]
fn units_sold_before_they_came_in_break_i3() {
    // At rest everything adds up: the restock came too late.
    breaks(&[Rule::I3], |run| {
        run.evidence.ledger.restocks[0].created_at = 9_000_000;
        run.evidence.setup.initial = 9;
        run.lease("widget").initial = 9;
        run.told(Op::Stock, 0).stock = Some(9);
        run.keys("widget").received = 14;
        run.keys("widget").available = 4;
    });
}

#[test]
fn an_order_without_a_hold_of_its_own_breaks_i4() {
    breaks(&[Rule::I4], |run| run.verdict(KEYLESS).number = 1);
    breaks(&[Rule::I4], |run| run.verdict(KEYLESS).number = 0);
    breaks(&[Rule::I4], |run| run.verdict(LOST).epoch = 3);
    // Committed under a lease that was over.
    breaks(&[Rule::I4], |run| run.verdict(KEYED).epoch = 2);
    // Held were four units, not five.
    breaks(&[Rule::I4], |run| run.invoke(Op::Reserve, 0).quantity = Some(5));
}

#[test]
fn an_id_that_was_told_otherwise_breaks_i5() {
    breaks(&[Rule::I5], |run| {
        // Released, it was told, and it is an order; not twice of one hold, that is.
        *run.answer(Op::Release, 1) = Event::Ok(Answer { status: Some(204), ..run.told(Op::Release, 1).clone() });
    });
    breaks(&[Rule::I5], |run| {
        let twice = run.evidence.ledger.verdicts[4].clone();
        run.evidence.ledger.verdicts.push(twice);
    });
    breaks(&[Rule::I5], |run| {
        let again = Answer { status: Some(200), hold: Some(RELEASED), ..Answer::default() };
        let ask = |invoke: &mut Invoke| {
            (invoke.item, invoke.quantity, invoke.hold) = (Some("widget".into()), Some(1), Some(RELEASED));
        };
        run.call(Op::Reserve, ask, Event::Ok, again);
    });
}

#[test]
fn a_key_with_two_orders_breaks_i6() {
    // Two answers to one key.
    breaks(&[Rule::I6], |run| {
        run.told(Op::Order, 1).order = Some(id(9));
        run.confirm(id(9), "widget", 3, 2, "key:k");
        run.lease("widget").settled += 3;
        let keys = run.keys("widget");
        (keys.sold, keys.available) = (13, 2);
        run.handled().insert(id(9));
    });
    // Refused as reused, and never sent otherwise.
    breaks(&[Rule::I6], |run| run.invoke(Op::Order, 2).quantity = Some(3));
    // A key that is dead.
    breaks(&[Rule::I6], |run| {
        run.order("widget", 1, Some("dead"), Event::Refused, refused(409, "RESERVATION_RELEASED"));
    });
    // Two calls without keys are one order.
    breaks(&[Rule::I6], |run| run.order("widget", 2, None, Event::Ok, created(KEYLESS, "widget", 2)));
}

#[test]
fn an_order_that_is_counted_twice_or_not_breaks_i7() {
    breaks(&[Rule::I7], |run| run.lease("widget").settled += 1);
    breaks(&[Rule::I1, Rule::I7], |run| run.keys("widget").sold -= 1);
    breaks(&[Rule::I7, Rule::I10], |run| {
        run.evidence.ledger.outbox.push(Outbox { order: KEYED, item: "widget".into(), quantity: 3 });
    });
}

#[test]
fn an_event_that_nobody_handled_breaks_i8() {
    let forget = |run: &mut Run| assert!(run.handled().remove(&KEYLESS));
    breaks(&[Rule::I8], forget);
    // Unless a fault has destroyed it, which is not long after it.
    for (after_micros, broken) in [(60_000_000, &[][..]), (180_000_000, &[Rule::I8][..])] {
        breaks(broken, |run| {
            forget(run);
            let fault = |phase, at| Event::Fault(Fault { at, fault: "queue_deleted".into(), phase });
            let at = run.invoke(Op::Order, 3).at + after_micros;
            // Where it is in the file does not matter, but to the clock.
            let rest = run.events.pop().expect("at rest");
            run.events.extend([fault(Phase::Begin, at), fault(Phase::End, at)]);
            run.events.push(Event::Rest { at: rest.at().max(at) });
        });
    }
    breaks(&[Rule::I8], |run| assert!(run.handled().insert(RELEASED)));
}

#[test]
fn an_answer_that_does_not_stand_breaks_i9() {
    // The order is gone, with everything that was counted of it.
    breaks(&[Rule::I9], |run| {
        run.evidence.ledger.verdicts.retain(|verdict| verdict.id != KEYLESS);
        run.lease("widget").settled -= 2;
        let keys = run.keys("widget");
        (keys.sold, keys.available) = (8, 7);
        run.handled().remove(&KEYLESS);
    });
    // It was told otherwise.
    breaks(&[Rule::I9], |run| run.told(Op::Order, 3).quantity = Some(3));
    breaks(&[Rule::I9], |run| {
        *run.answer(Op::Read, 0) = Event::Refused(Answer {
            call: run.told(Op::Read, 0).call,
            at: run.told(Op::Read, 0).at,
            ..refused(404, "ORDER_NOT_FOUND")
        });
    });
}

#[test]
fn what_is_left_over_at_rest_breaks_i10() {
    breaks(&[Rule::I10], |run| run.events.truncate(run.events.len() - 1));
    breaks(&[Rule::I10], |run| run.evidence.events.waiting = 1);
    breaks(&[Rule::I10], |run| run.evidence.events.dead_letters = 1);
    breaks(&[Rule::I10], |run| {
        let keys = run.keys("widget");
        (keys.available, keys.held, keys.units) = (4, 1, 1);
        (keys.holds, keys.entries, keys.deadlines) = (1, 1, 1);
    });
    breaks(&[Rule::I10], |run| run.keys("widget").epoch = 1);
}

#[test]
fn a_system_that_does_not_come_back_breaks_i11() {
    breaks(&[Rule::I11], |run| {
        for nth in [7, 8] {
            let told = run.told(Op::Order, nth).clone();
            *run.answer(Op::Order, nth) = Event::Unknown(Answer { status: Some(503), ..told });
        }
    });
}

#[test]
fn a_trace_of_what_was_only_read_breaks_i12() {
    breaks(&[Rule::I12], |run| {
        run.evidence.ledger.leases.insert("unseen".into(), Lease { epoch: 1, initial: INITIAL, settled: 0 });
    });
    breaks(&[Rule::I12], |run| run.evidence.stock.stray.push("{widget}:other".into()));
}

#[test]
fn a_row_without_a_call_has_no_origin() {
    let surplus = |run: &mut Run, item: &str, quantity: i64, key: &str| {
        run.confirm(id(9), item, quantity, 2, key);
        run.lease("widget").settled += quantity;
        let keys = run.keys("widget");
        (keys.sold, keys.available) = (keys.sold + quantity, keys.available - quantity);
        run.handled().insert(id(9));
    };
    // One call without an answer is one order at most.
    breaks(&[Rule::Origin], |run| surplus(run, "widget", 1, "attempt:9"));
    breaks(&[Rule::Origin], |run| surplus(run, "widget", 1, "key:never sent"));
    // Its only call was refused.
    breaks(&[Rule::Origin], |run| {
        run.order("widget", 5, Some("short"), Event::Refused, refused(400, "INVALID_REQUEST"));
        surplus(run, "widget", 5, "key:short");
    });
    breaks(&[Rule::I2, Rule::Origin], |run| run.evidence.ledger.restocks[0].id = id(9));
}

#[test]
fn a_history_that_contradicts_itself_is_not_whole() {
    breaks(&[Rule::History], |run| run.told(Op::Stock, 0).at = 1);
    breaks(&[Rule::History], |run| run.told(Op::Order, 0).status = Some(409));
    breaks(&[Rule::History], |run| run.events.push(Event::Ok(Answer { at: u64::MAX, call: 999, ..Answer::default() })));
}

#[test]
fn findings_are_all_counted_and_few_are_told() {
    let mut run = good();
    for call in 1..=100 {
        run.events.push(Event::Ok(Answer { at: u64::MAX, call: 1_000 + call, ..Answer::default() }));
    }
    let report = run.judge();
    assert_eq!(report.0[&Rule::History].count, 100);
    assert_eq!(report.0[&Rule::History].told.len(), super::FINDINGS_TOLD_MAX);
    assert!(report.to_string().contains("the history is whole: BROKEN 100 times"), "{report}");
}
