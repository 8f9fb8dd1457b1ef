//! The history of a run: JSON lines, one event each, written as they happen and read by the checker alone.

use std::fmt;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One line of a history. `at` is in microseconds of a clock that never goes back; from line to line it never falls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A client is about to send a call: written before its first byte leaves.
    Invoke(Invoke),
    /// It was answered with a 2xx.
    Ok(Answer),
    /// It was answered 400, 404, 409 or 422: it certainly did nothing.
    Refused(Answer),
    /// Anything else, a connection that was cut included: it may have been done, or will be.
    Unknown(Answer),
    /// A fault begins, ends, or is overcome.
    Fault(Fault),
    /// Everything has healed, and the last fault and call are a hold's time to live and five seconds ago.
    Rest {
        /// When.
        at: u64,
    },
}

/// A call as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoke {
    /// When.
    pub at: u64,
    /// Who.
    pub client: u32,
    /// Names the call: no other invoke of this history has it.
    pub call: u64,
    /// What.
    pub op: Op,
    /// Of which item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// How many units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<u64>,
    /// The `Idempotency-Key` of an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The reservation that is made, released, or ordered on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Uuid>,
    /// The id of a restock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restock: Option<Uuid>,
    /// The order that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Uuid>,
}

/// What a call does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Places an order.
    #[default]
    Order,
    /// Takes a hold. One that finds too little stock is answered 200, without a hold.
    Reserve,
    /// Gives a hold back.
    Release,
    /// Counts units in.
    Restock,
    /// Reads an item's stock.
    Stock,
    /// Reads an order.
    Read,
}

/// What a client was told. Numbers have a sign, so that a wrong answer can be written down as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// When.
    pub at: u64,
    /// Of the invoke.
    pub call: u64,
    /// The HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The problem's `reason`, such as `INSUFFICIENT_STOCK`, or what broke the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The order that was placed or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Uuid>,
    /// Its item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Its units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
    /// Whether an earlier call had placed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// Units that were left available, as a reserve or a refusal says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,
    /// Units available, as a read of the stock or a restock says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock: Option<i64>,
    /// The hold that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Uuid>,
}

/// A fault as it begins, ends, and as the system has come over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    pub at: u64,
    /// Its kind, such as `redis_wiped`.
    pub fault: String,
    /// Which of them.
    pub phase: Phase,
}

/// Moments of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is about to be made.
    Begin,
    /// Its cause is gone.
    End,
    /// The first order succeeded after the end.
    Healed,
}

impl Event {
    /// When.
    pub fn at(&self) -> u64 {
        match self {
            Self::Invoke(invoke) => invoke.at,
            Self::Ok(answer) | Self::Refused(answer) | Self::Unknown(answer) => answer.at,
            Self::Fault(fault) => fault.at,
            Self::Rest { at } => *at,
        }
    }

    /// The event as a line, with its end.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("an event has no map and no float");
        line.push('\n');
        line
    }
}

/// A line that is no event.
#[derive(Debug)]
pub struct Unreadable {
    /// Counted from 1.
    pub line: usize,
    /// Why.
    pub cause: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.cause)
    }
}

impl std::error::Error for Unreadable {}

/// Reads a history line by line; each event comes with its line's number, counted from 1.
pub fn read(history: impl BufRead) -> impl Iterator<Item = Result<(usize, Event), Unreadable>> {
    history.lines().enumerate().map(|(index, line)| {
        let number = index.saturating_add(1);
        line.and_then(|line| serde_json::from_str(&line).map_err(io::Error::from))
            .map(|event| (number, event))
            .map_err(|cause| Unreadable { line: number, cause })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Event> {
        let id = Uuid::from_u128(7);
        let invoke = Invoke {
            at: 1,
            client: 3,
            call: 9,
            op: Op::Order,
            item: Some("widget".into()),
            quantity: Some(2),
            key: Some("a key".into()),
            ..Invoke::default()
        };
        let restock = Invoke { op: Op::Restock, key: None, restock: Some(id), call: 10, ..invoke.clone() };
        let ok = Answer {
            at: 2,
            call: 9,
            status: Some(201),
            order: Some(id),
            item: Some("widget".into()),
            quantity: Some(2),
            replayed: Some(false),
            ..Answer::default()
        };
        let refused = Answer {
            at: 3,
            call: 10,
            status: Some(409),
            reason: Some("INSUFFICIENT_STOCK".into()),
            ..Answer::default()
        };
        let unknown = Answer { at: 4, call: 11, reason: Some("connection reset".into()), ..Answer::default() };
        vec![
            Event::Invoke(invoke),
            Event::Invoke(restock),
            Event::Ok(ok),
            Event::Refused(refused),
            Event::Unknown(unknown),
            Event::Fault(Fault { at: 5, fault: "redis_wiped".into(), phase: Phase::Healed }),
            Event::Rest { at: 6 },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let text: String = every_kind().iter().map(Event::line).collect();
        let events: Result<Vec<_>, _> = read(text.as_bytes()).collect();
        let expected: Vec<_> = (1..).zip(every_kind()).collect();
        assert_eq!(events.expect("all of them"), expected);
    }

    #[test]
    fn a_line_is_one_object_with_the_names_that_were_agreed() {
        assert_eq!(
            every_kind()[0].line(),
            "{\"kind\":\"invoke\",\"at\":1,\"client\":3,\"call\":9,\"op\":\"order\",\"item\":\"widget\",\"quantity\":2,\
             \"key\":\"a key\"}\n"
        );
        assert_eq!(every_kind()[6].line(), "{\"kind\":\"rest\",\"at\":6}\n");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told_by_its_number_and_the_next_is_read() {
        let text = format!(
            "{}{{\"kind\":\"rest\"}}\n{}{{\"kind\":\"ok\",\"at\":1",
            every_kind()[0].line(),
            every_kind()[6].line()
        );
        let events: Vec<_> = read(text.as_bytes()).collect();
        assert!(matches!(events[0], Ok((1, Event::Invoke(_)))));
        assert!(events[1].as_ref().is_err_and(|error| error.to_string().starts_with("line 2: missing field `at`")));
        assert!(matches!(events[2], Ok((3, Event::Rest { .. }))));
        assert!(events[3].as_ref().is_err_and(|error| error.line == 4));
    }

    #[test]
    fn a_name_that_nobody_knows_is_no_event() {
        let text = "{\"kind\":\"ok\",\"at\":1,\"call\":2,\"orders\":1}\n";
        assert!(read(text.as_bytes()).all(|event| event.is_err()));
    }
}
