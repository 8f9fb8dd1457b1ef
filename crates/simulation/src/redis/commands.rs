//! The commands that the scripts, the registry and an operator's hand use, as Redis 7 does them; no others.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use deadpool_redis::redis::{Value, parse_redis_value};

use super::data::{Bytes, Data, Entry, Keys, SortedSet};

/// Commands that a replica refuses.
const WRITES: [&[u8]; 14] = [
    b"SET",
    b"INCRBY",
    b"DEL",
    b"UNLINK",
    b"PEXPIRE",
    b"HSET",
    b"HDEL",
    b"HINCRBY",
    b"SADD",
    b"SREM",
    b"ZADD",
    b"ZREM",
    b"RPUSH",
    b"FLUSHALL",
];

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const SYNTAX: &str = "ERR syntax error";
/// What a replica answers to a write, and to a script that says it may write.
pub const READ_ONLY: &str = "READONLY You can't write against a read only replica.";

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the kinds of replies of Redis' protocol")]
pub enum Reply {
    Nil,
    Integer(i64),
    Bulk(Bytes),
    Status(Cow<'static, str>),
    Array(Vec<Reply>),
    Error(String),
}

impl Reply {
    fn text(text: impl AsRef<[u8]>) -> Self {
        Self::Bulk(text.as_ref().into())
    }

    fn of(value: Option<Bytes>) -> Self {
        value.map_or(Self::Nil, Self::Bulk)
    }

    fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).expect("fewer than that fit into memory"))
    }

    /// As the client library reads it.
    pub fn value(self) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Integer(number) => Value::Int(number),
            Self::Bulk(bytes) => Value::BulkString(bytes.to_vec()),
            Self::Status(status) if status == "OK" => Value::Okay,
            Self::Status(status) => Value::SimpleString(status.into_owned()),
            Self::Array(replies) => Value::Array(replies.into_iter().map(Self::value).collect()),
            // The library alone can make its errors.
            Self::Error(text) => parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("a line is a reply"),
        }
    }
}

/// An error's text, in place of a reply.
type Answer = Result<Reply, String>;

/// The server that is asked, and the time there.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Whether it is a replica.
    pub replica: bool,
    /// Its `master_replid`.
    pub replid: Arc<str>,
    /// Its `run_id`.
    pub run_id: Arc<str>,
    /// Microseconds since 1970.
    pub now_micros: i64,
}

impl Moment {
    fn now_ms(&self) -> i64 {
        self.now_micros.div_euclid(1_000)
    }
}

/// Does a command.
pub fn execute(keys: &mut Keys, moment: &Moment, words: &[&[u8]]) -> Reply {
    let Some((name, args)) = words.split_first() else { return Reply::Error("ERR unknown command ''".to_owned()) };
    if moment.replica && WRITES.contains(name) {
        return Reply::Error(READ_ONLY.to_owned());
    }
    let mut on = On { keys, now_ms: moment.now_ms() };
    let answer = match *name {
        b"TIME" => Ok(time(moment.now_micros)),
        b"INFO" => Ok(info(moment, args)),
        [b'H', ..] => on.hash(name, args),
        [b'Z', ..] => on.sorted_set(name, args),
        [b'S', _, ..] if *name != b"SET" => on.set(name, args),
        _ => on.key(name, args),
    };
    answer.unwrap_or_else(Reply::Error)
}

fn unknown(name: &[u8]) -> Answer {
    Err(format!("ERR unknown command or wrong number of arguments for '{}'", String::from_utf8_lossy(name)))
}

fn time(now_micros: i64) -> Reply {
    let parts = [now_micros.div_euclid(1_000_000), now_micros.rem_euclid(1_000_000)];
    Reply::Array(parts.map(|part| Reply::text(part.to_string())).to_vec())
}

fn info(moment: &Moment, args: &[&[u8]]) -> Reply {
    let Moment { replica, replid, run_id, .. } = moment;
    let role = if *replica { "slave" } else { "master" };
    let none = "0".repeat(40);
    match args {
        [b"server"] => Reply::text(format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{run_id}\r\n")),
        [b"replication"] => {
            Reply::text(format!("# Replication\r\nrole:{role}\r\nmaster_replid:{replid}\r\nmaster_replid2:{none}\r\n"))
        }
        _ => Reply::text(""),
    }
}

/// The keys of a server at one time.
struct On<'a> {
    keys: &'a mut Keys,
    now_ms: i64,
}

/// Reads a value of one type: nothing, if there is no key.
macro_rules! read {
    ($on:expr, $key:expr, $kind:ident) => {
        match $on.keys.get($key, $on.now_ms).map(|entry| &entry.data) {
            None => Ok(None),
            Some(Data::$kind(data)) => Ok(Some(data)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    };
}

/// Changes a value of one type, or a new one.
macro_rules! change {
    ($on:expr, $key:expr, $kind:ident, |$data:ident| $change:expr) => {{
        read!($on, $key, $kind)?;
        $on.keys.change(
            $key,
            $on.now_ms,
            || Data::$kind(Default::default()),
            |entry| match &mut entry.data {
                Data::$kind($data) => $change,
                other => unreachable!("looked at before, but now {other:?}"),
            },
        )
    }};
}

impl On<'_> {
    fn key(&mut self, name: &[u8], args: &[&[u8]]) -> Answer {
        match (name, args) {
            (b"GET", [key]) => Ok(Reply::of(read!(self, key, String)?.cloned())),
            (b"SET", [key, value]) => Ok(self.put(key, value, None)),
            (b"SET", [key, value, b"PX", life]) => match integer(life)? {
                life @ 1.. => Ok(self.put(key, value, Some(self.now_ms.saturating_add(life)))),
                _ => Err("ERR invalid expire time in 'set' command".to_owned()),
            },
            (b"INCRBY", [key, by]) => {
                let before = read!(self, key, String)?.map_or(Ok(0), |text| integer(text))?;
                let after = before.checked_add(integer(by)?).ok_or(OVERFLOW)?;
                change!(self, key, String, |text| *text = after.to_string().into_bytes().into());
                Ok(Reply::Integer(after))
            }
            (b"DEL" | b"UNLINK", keys) => {
                let mut gone = 0;
                for key in keys.iter().filter(|key| self.keys.get(key, self.now_ms).is_some()).collect::<Vec<_>>() {
                    self.keys.put(key, None);
                    gone += 1;
                }
                Ok(Reply::Integer(gone))
            }
            (b"PTTL", [key]) => Ok(Reply::Integer(match self.keys.get(key, self.now_ms) {
                None => -2,
                Some(entry) => entry.until_ms.map_or(-1, |until| until - self.now_ms),
            })),
            (b"PEXPIRE", [key, life]) => Ok(self.expire(key, integer(life)?)),
            (b"RPUSH", [key, values @ ..]) => Ok(change!(self, key, List, |list| {
                list.extend(values.iter().map(|value| Bytes::from(*value)));
                Reply::count(list.len())
            })),
            (b"FLUSHALL", []) => {
                self.keys.clear();
                Ok(Reply::Status("OK".into()))
            }
            _ => unknown(name),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8], until_ms: Option<i64>) -> Reply {
        self.keys.put(key, Some(Entry { data: Data::String(value.into()), until_ms }));
        Reply::Status("OK".into())
    }

    fn expire(&mut self, key: &[u8], life_ms: i64) -> Reply {
        let there = self.keys.get(key, self.now_ms).is_some();
        if there && life_ms <= 0 {
            self.keys.put(key, None);
        } else if there {
            let until_ms = Some(self.now_ms.saturating_add(life_ms));
            self.keys.change(key, self.now_ms, || unreachable!("it is there"), |entry| entry.until_ms = until_ms);
        }
        Reply::Integer(there.into())
    }

    fn hash(&mut self, name: &[u8], args: &[&[u8]]) -> Answer {
        match (name, args) {
            (b"HGET", [key, field]) => {
                Ok(Reply::of(read!(self, key, Hash)?.and_then(|hash| hash.get(*field)).cloned()))
            }
            (b"HMGET", [key, fields @ ..]) if !fields.is_empty() => {
                let hash = read!(self, key, Hash)?;
                let value = |field: &&[u8]| Reply::of(hash.and_then(|hash| hash.get(*field)).cloned());
                Ok(Reply::Array(fields.iter().map(value).collect()))
            }
            (b"HLEN", [key]) => Ok(Reply::count(read!(self, key, Hash)?.map_or(0, BTreeMap::len))),
            (b"HSET", [key, pairs @ ..]) if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
                Ok(change!(self, key, Hash, |hash| {
                    let set = |pair: &&[&[u8]]| hash.insert(pair[0].into(), pair[1].into()).is_none();
                    Reply::count(pairs.chunks(2).filter(set).count())
                }))
            }
            (b"HDEL", [key, fields @ ..]) if !fields.is_empty() => {
                if read!(self, key, Hash)?.is_none_or(|hash| fields.iter().all(|field| !hash.contains_key(*field))) {
                    return Ok(Reply::Integer(0));
                }
                Ok(change!(self, key, Hash, |hash| {
                    Reply::count(fields.iter().filter(|field| hash.remove(**field).is_some()).count())
                }))
            }
            (b"HINCRBY", [key, field, by]) => {
                let by = integer(by)?;
                let before = read!(self, key, Hash)?.and_then(|hash| hash.get(*field));
                let before = before.map_or(Ok(0), |text| integer(text).map_err(|_| "ERR hash value is not an integer"));
                let after = before?.checked_add(by).ok_or(OVERFLOW)?;
                change!(self, key, Hash, |hash| hash.insert((*field).into(), after.to_string().into_bytes().into()));
                Ok(Reply::Integer(after))
            }
            _ => unknown(name),
        }
    }

    fn set(&mut self, name: &[u8], args: &[&[u8]]) -> Answer {
        match (name, args) {
            (b"SCARD", [key]) => Ok(Reply::count(read!(self, key, Set)?.map_or(0, BTreeSet::len))),
            (b"SISMEMBER", [key, member]) => {
                Ok(Reply::Integer(read!(self, key, Set)?.is_some_and(|set| set.contains(*member)).into()))
            }
            (b"SADD", [key, members @ ..]) if !members.is_empty() => Ok(change!(self, key, Set, |set| {
                Reply::count(members.iter().filter(|member| set.insert(Bytes::from(**member))).count())
            })),
            (b"SREM", [key, member]) => {
                if read!(self, key, Set)?.is_none_or(|set| !set.contains(*member)) {
                    return Ok(Reply::Integer(0));
                }
                Ok(change!(self, key, Set, |set| Reply::Integer(set.remove(*member).into())))
            }
            _ => unknown(name),
        }
    }

    fn sorted_set(&mut self, name: &[u8], args: &[&[u8]]) -> Answer {
        match (name, args) {
            (b"ZCARD", [key]) => Ok(Reply::count(self.members(key)?.len())),
            (b"ZSCORE", [key, member]) => {
                let score = read!(self, key, SortedSet)?.and_then(|set| set.score(member));
                Ok(score.map_or(Reply::Nil, |score| Reply::text(double(score))))
            }
            (b"ZADD", [key, score, member]) => {
                let score = float(score).ok_or("ERR value is not a valid float")?;
                Ok(change!(self, key, SortedSet, |set| Reply::Integer(set.insert(score, member).into())))
            }
            (b"ZREM", [key, member]) => {
                if read!(self, key, SortedSet)?.is_none_or(|set| set.score(member).is_none()) {
                    return Ok(Reply::Integer(0));
                }
                Ok(change!(self, key, SortedSet, |set| Reply::Integer(set.remove(member).into())))
            }
            (b"ZRANGE", [key, first, last, more @ ..]) => {
                let members = self.members(key)?;
                let count = i64::try_from(members.len()).expect("fewer than that fit into memory");
                let from_start = |index: i64| if index < 0 { (count + index).max(0) } else { index };
                let (first, last) = (from_start(integer(first)?), from_start(integer(last)?).min(count - 1));
                let taken = members.iter().zip(0..).filter(|(_, index)| (first..=last).contains(index));
                range(taken.map(|(member, _)| member), more)
            }
            (b"ZRANGEBYSCORE", [key, min, max, more @ ..]) => {
                let (min, max) = (Bound::of_score(min)?, Bound::of_score(max)?);
                range(self.members(key)?.iter().filter(|(score, _)| min.below(score) && max.above(score)), more)
            }
            (b"ZRANGEBYLEX", [key, min, max, more @ ..]) => {
                let (min, max) = (Bound::of_name(min)?, Bound::of_name(max)?);
                range(self.members(key)?.iter().filter(|(_, name)| min.below(name) && max.above(name)), more)
            }
            _ => unknown(name),
        }
    }

    fn members(&self, key: &[u8]) -> Result<&[(f64, Bytes)], String> {
        Ok(read!(self, key, SortedSet)?.map_or(&[], SortedSet::members))
    }
}

/// An end of a range.
enum Bound<T> {
    Lowest,
    Highest,
    With(T),
    Without(T),
}

impl Bound<f64> {
    fn of_score(text: &[u8]) -> Result<Self, String> {
        let score = |text| float(text).ok_or_else(|| "ERR min or max is not a float".to_owned());
        Ok(match text {
            [b'(', rest @ ..] => Self::Without(score(rest)?),
            text => Self::With(score(text)?),
        })
    }
}

impl Bound<Bytes> {
    fn of_name(text: &[u8]) -> Result<Self, String> {
        match text {
            b"-" => Ok(Self::Lowest),
            b"+" => Ok(Self::Highest),
            [b'[', name @ ..] => Ok(Self::With(name.into())),
            [b'(', name @ ..] => Ok(Self::Without(name.into())),
            _ => Err("ERR min or max not valid string range item".to_owned()),
        }
    }
}

impl<T: PartialOrd> Bound<T> {
    fn below(&self, value: &T) -> bool {
        match self {
            Self::Lowest => true,
            Self::Highest => false,
            Self::With(bound) => bound <= value,
            Self::Without(bound) => bound < value,
        }
    }

    fn above(&self, value: &T) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::With(bound) => bound >= value,
            Self::Without(bound) => bound > value,
        }
    }
}

/// Some members of a sorted set, as `WITHSCORES` and `LIMIT` have it.
fn range<'a>(members: impl Iterator<Item = &'a (f64, Bytes)>, options: &[&[u8]]) -> Answer {
    let (scores, limit) = match options {
        [b"WITHSCORES", limit @ ..] => (true, limit),
        limit => (false, limit),
    };
    let (skip, most) = match limit {
        [] => (0, usize::MAX),
        [b"LIMIT", skip, most] => {
            let skip = usize::try_from(integer(skip)?).unwrap_or(usize::MAX);
            (skip, usize::try_from(integer(most)?).unwrap_or(usize::MAX))
        }
        _ => return Err(SYNTAX.to_owned()),
    };
    let mut replies = Vec::new();
    for (score, name) in members.skip(skip).take(most) {
        replies.push(Reply::Bulk(Bytes::clone(name)));
        if scores {
            replies.push(Reply::text(double(*score)));
        }
    }
    Ok(Reply::Array(replies))
}

/// An integer, written the one way there is.
fn integer(text: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.filter(|number| number.to_string().as_bytes() == text).ok_or_else(|| NOT_AN_INTEGER.to_owned())
}

fn float(text: &[u8]) -> Option<f64> {
    let number = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
    (!number.is_nan()).then_some(number)
}

/// As `printf("%.17g")` writes it: with as many digits as a number may have, and no more than it needs.
pub fn double(number: f64) -> String {
    const DIGITS: i32 = 17;
    // No fraction and few digits: by far the most.
    if number.fract() == 0.0 && number.abs() < 1e17 {
        return format!("{number:.0}");
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    let text = format!("{number:.16e}");
    let (mantissa, exponent) = text.split_once('e').expect("so it is written");
    let exponent: i32 = exponent.parse().expect("a small integer");
    if (-4..DIGITS).contains(&exponent) {
        let places = usize::try_from(DIGITS - 1 - exponent).expect("at least one digit is left");
        format!("{number:.places$}").trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::double;

    #[test]
    fn numbers_are_written_as_redis_writes_them() {
        // As `ZADD` and `ZSCORE` of a Redis 7.0 say.
        for (number, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (1.5, "1.5"),
            (0.1, "0.10000000000000001"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (99_999_999_999_999_984.0, "99999999999999984"),
            (1e17, "1e+17"),
            (1.25e-7, "1.2499999999999999e-07"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(double(number), text);
        }
    }
}
