//! The request's body: one JSON object, read within limits, with every member accounted for.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use contracts::{
    Failure, Reason,
    values::{Invalid, Item, Quantity},
};
use http::{HeaderMap, header::EXPECT};
use http_body_util::BodyExt;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use service::{call::Call, environment::TimedOut};
use tokio::sync::oneshot;

use crate::{
    fields::{BadFields, Place},
    front::Context,
    headers,
    problem::Problem,
    routes::Edge,
};

/// Largest body that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// How much of a body that is too large is read and thrown away, so that its sender gets to read the answer instead of
/// a reset connection.
const BODY_DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const BODY_DRAIN_TIMEOUT_MS: u64 = 2_000;

/// Bodies that are being read at a time, by all requests.
pub const BODIES_MAX: usize = 2048;

/// Reads a JSON object, or says why it is none: 408, 413, 415 or 400.
pub async fn object(edge: &Edge, context: &Context, headers: &HeaderMap, body: Body) -> Result<Object, Problem> {
    let media_type = headers::json(headers);
    // Read in any case: a client that is still sending does not read the answer.
    let reading = read(edge, &context.call, headers.contains_key(EXPECT), body);
    let bytes = match &context.place {
        Some(place) => place.leave_for(reading).await?,
        None => reading.await,
    };
    media_type?;
    Object::parse(&bytes?)
}

async fn read(edge: &Edge, call: &Call, expects: bool, mut body: Body) -> Result<Vec<u8>, Problem> {
    let env = &edge.env;
    let (_place, displaced) = edge.bodies.enter();
    let collected = env.timeout(call.remaining(&**env), collect(&mut body));
    let collected = tokio::select! {
        biased;
        collected = collected => collected,
        _ = displaced => Err(TimedOut),
    };
    match collected {
        Err(TimedOut) => Err(Problem::of(Reason::RequestTimeout)),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(failure)) => {
            // A client that waits for "100 Continue" has sent nothing yet, and need not.
            if failure.reason == Reason::BodyTooLarge && !expects {
                let limit = Duration::from_millis(BODY_DRAIN_TIMEOUT_MS);
                // Whether it ends in time or not, the answer is the same.
                let _ = env.timeout(limit, drain(&mut body)).await;
            }
            Err(failure.into())
        }
    }
}

/// The bodies that are being read. Who sends slowly holds no place among the writes, but one here; when all of them are
/// taken, the next body takes that of the one that has been read for the longest.
#[derive(Default)]
pub struct Bodies(Mutex<Reading>);

#[derive(Default)]
struct Reading {
    next: u64,
    /// Dropped to displace.
    bodies: BTreeMap<u64, oneshot::Sender<Infallible>>,
}

impl Bodies {
    /// A place, and what resolves when it is lost.
    fn enter(&self) -> (impl Drop, oneshot::Receiver<Infallible>) {
        let (sender, displaced) = oneshot::channel();
        let mut reading = self.reading();
        if reading.bodies.len() >= BODIES_MAX {
            reading.bodies.pop_first();
        }
        let number = reading.next;
        reading.next += 1;
        reading.bodies.insert(number, sender);
        (BodyPlace { bodies: self, number }, displaced)
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct BodyPlace<'a> {
    bodies: &'a Bodies,
    number: u64,
}

impl Drop for BodyPlace<'_> {
    fn drop(&mut self) {
        self.bodies.reading().bodies.remove(&self.number);
    }
}

async fn collect(body: &mut Body) -> Result<Vec<u8>, Failure> {
    use axum::body::HttpBody;

    let too_large = || Failure::of(Reason::BodyTooLarge);
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::new(Reason::InvalidRequest, "The body broke off.").because(e))?;
        if let Ok(data) = frame.into_data() {
            if data.len() > BODY_BYTES_MAX - bytes.len() {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

async fn drain(body: &mut Body) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > BODY_DRAIN_BYTES_MAX {
            return;
        }
    }
}

/// The members that nobody took yet, in the order sent.
#[derive(Debug)]
pub struct Object {
    members: Vec<(String, Value)>,
}

impl Object {
    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let refuse = |detail: String| Err(BadFields::one(Place::Body, detail).into());
        let Ok(text) = std::str::from_utf8(bytes) else {
            return refuse("must be UTF-8".into());
        };
        if text.is_empty() {
            return refuse("must not be empty".into());
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let members = (&mut json).deserialize_map(Members).and_then(|members| json.end().map(|()| members));
        match members {
            Ok(members) => Ok(Self { members }),
            Err(e) if e.is_data() => refuse("must be a JSON object".into()),
            Err(e) => refuse(format!("is not valid JSON: {e}")),
        }
    }

    /// A member that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        bad: &mut BadFields,
        parse: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        if !self.has(name) {
            bad.add(Place::member(name), "is required");
        }
        self.optional(name, bad, parse)
    }

    /// A member that may be left out; `null` is not the same.
    pub fn optional<T>(
        &mut self,
        name: &str,
        bad: &mut BadFields,
        parse: impl FnOnce(Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        let mut values = self.members.extract_if(.., |(member, _)| member == name).map(|(_, value)| value);
        let value = values.next()?;
        if values.count() > 0 {
            bad.add(Place::member(name), "must not be repeated");
            return None;
        }
        bad.check(Place::member(name), parse(value))
    }

    /// `item`, or its alias `item_id`.
    pub fn item(&mut self, bad: &mut BadFields) -> Option<Item> {
        let parse = |value| Item::parse(&text(value)?);
        match (self.has("item"), self.has("item_id")) {
            (true, true) => {
                bad.add(Place::member("item_id"), "is an alias of item; send one of them");
                self.members.retain(|(member, _)| member != "item" && member != "item_id");
                None
            }
            (false, true) => self.optional("item_id", bad, parse),
            (_, false) => self.required("item", bad, parse),
        }
    }

    /// `quantity`.
    pub fn quantity(&mut self, bad: &mut BadFields) -> Option<Quantity> {
        self.required("quantity", bad, |value| Quantity::parse(integer(&value)?))
    }

    /// Notes every member that was not taken.
    pub fn finish(self, bad: &mut BadFields) {
        let mut named = HashSet::new();
        for (name, _) in &self.members {
            if named.insert(name) {
                bad.add(Place::member(name), "is unknown");
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(member, _)| member == name)
    }
}

/// A JSON string.
pub fn text(value: Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Invalid(format!("must be a string, not {}", kind(&other)))),
    }
}

/// A number written as an integer: `1`, but not `1.0` or `1e0`.
pub fn integer(value: &Value) -> Result<i64, Invalid> {
    let Value::Number(number) = value else {
        return Err(Invalid(format!("must be an integer, not {}", kind(value))));
    };
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => Ok(integer),
        // 2^63: past it even an integer is read as a float.
        (None, Some(float)) if float.abs() < 9_223_372_036_854_775_808.0 => {
            Err(Invalid("must be an integer, written without fraction or exponent".into()))
        }
        (None, _) => Err(Invalid("is out of range".into())),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Collects members as they come: a map would hide the repeated ones.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use contracts::values::Token;
    use serde_json::json;

    use super::*;

    /// What `POST /orders` would make of it: item and quantity, or the errors.
    fn read(json: &str) -> Result<(String, i64), Value> {
        let errors = |problem: Problem| problem.body(&Token::parse("x").expect("sane"))["errors"].clone();
        let mut object = Object::parse(json.as_bytes()).map_err(errors)?;
        let mut bad = BadFields::default();
        let (item, quantity) = (object.item(&mut bad), object.quantity(&mut bad));
        object.finish(&mut bad);
        match (item, quantity, bad.is_empty()) {
            (Some(item), Some(quantity), true) => Ok((item.to_string(), quantity.get())),
            _ => Err(bad.to_json()),
        }
    }

    fn pointers(json: &str) -> Vec<String> {
        let errors = read(json).expect_err(json);
        errors.as_array().expect("a list").iter().map(|e| e["pointer"].as_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn an_item_has_two_names() {
        let expected = Ok(("a".to_owned(), 2));
        assert_eq!(read(r#"{"item":"a","quantity":2}"#), expected);
        assert_eq!(read(" {\"quantity\" : 2,\n \"item_id\":\"a\"}\r\n\t"), expected);
        assert_eq!(read(r#"{"it\u0065m":"\u0061","quantity":2}"#), expected);
        assert_eq!(pointers(r#"{"item":"a","item_id":"a","quantity":2}"#), ["/item_id"]);
    }

    #[test]
    fn everything_bad_is_named_at_once() {
        assert_eq!(pointers(r#"{"item":7,"quantity":0,"x":1,"x":2,"a/b":[]}"#), ["/item", "/quantity", "/x", "/a~1b"]);
        assert_eq!(pointers("{}"), ["/item", "/quantity"]);
    }

    #[test]
    fn repeated_members_are_refused_however_they_are_spelt() {
        for body in [
            r#"{"item":"a","item":"a","quantity":1}"#,
            r#"{"item":"a","quantity":1,"it\u0065m":"b"}"#,
            r#"{"item_id":"a","item_id":"a","quantity":1}"#,
        ] {
            assert_eq!(pointers(body).len(), 1, "{body}");
        }
        let errors = read(r#"{"item":"a","quantity":1,"quantity":1}"#).expect_err("repeated");
        assert_eq!(errors, json!([{ "pointer": "/quantity", "detail": "must not be repeated" }]));
    }

    #[test]
    fn a_quantity_is_a_json_integer() {
        for bad in [
            "1.0",
            "1e0",
            "1E2",
            "-0",
            "0.5",
            "\"1\"",
            "true",
            "null",
            "[1]",
            "{}",
            "99999999999999999999",
            "1e300",
            "-99999999999999999999",
            "9223372036854775808",
            "0",
            "-1",
            "1000001",
        ] {
            assert_eq!(pointers(&format!(r#"{{"item":"a","quantity":{bad}}}"#)), ["/quantity"], "{bad}");
        }
        assert_eq!(
            integer(&json!(1.0)).expect_err("a float").0,
            "must be an integer, written without fraction or exponent"
        );
        assert_eq!(integer(&json!("1")).expect_err("text").0, "must be an integer, not a string");
        let large = serde_json::from_str("99999999999999999999").expect("JSON");
        assert_eq!(integer(&large).expect_err("large").0, "is out of range");
    }

    #[test]
    fn what_is_no_json_object_is_refused_as_a_whole() {
        let bomb = format!(r#"{{"item":{}"#, "[".repeat(8000));
        for body in [
            "",
            " ",
            "[]",
            "[\"a\",1]",
            "1",
            "null",
            "\"item\"",
            "{",
            "{}{}",
            "{},",
            "{\"item\":\"a\"",
            "{'item':1}",
            "{\"item\":\"a\",}",
            "{item:1}",
            "\u{feff}{}",
            "{\"item\":\"\\ud800\"}",
            "{\"item\":\"a\nb\"}",
            "{\"quantity\":01}",
            "{\"quantity\":1e999}",
            "// x\n{}",
            &bomb,
        ] {
            assert_eq!(pointers(body), [""], "{body:.40}");
        }
        assert!(Object::parse(b"{\"item\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_deep_value_is_refused_without_harm() {
        let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(4000), "]".repeat(4000));
        assert_eq!(pointers(&deep), [""]);
    }
}
