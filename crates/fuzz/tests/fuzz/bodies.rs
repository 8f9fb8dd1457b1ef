//! The bodies of `POST /orders`, `/reserve` and `/inventory/<item>/restocks`.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use contracts::{
    inventory::v1::{ReserveRequest, RestockRequest},
    orders::v1::CreateOrderRequest,
};
use http::{Request, StatusCode};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    driver::{self, Inputs, Verdict, word},
    edge::{Edge, Seen},
    json::{self, Json, Reading},
    rules,
};

const BODY_BYTES_MAX: usize = 16 * 1024;

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Route {
    Orders,
    Reserve,
    Restocks,
}

#[test]
fn a_body_is_taken_exactly_when_the_rules_say_so() {
    let edge = Edge::start();
    driver::run("bodies", inputs(), |input| {
        [Route::Orders, Route::Reserve, Route::Restocks].into_iter().try_for_each(|route| check(&edge, route, input))
    });
}

fn check(edge: &Edge, route: Route, input: &[u8]) -> Verdict {
    let (path, good) = match route {
        Route::Orders => ("/orders", StatusCode::CREATED),
        Route::Reserve => ("/reserve", StatusCode::OK),
        Route::Restocks => ("/inventory/widget/restocks", StatusCode::OK),
    };
    let request = Request::post(path).header("content-type", "application/json").header("x-attempt-id", "a");
    let answer = edge.ask(request.body(Body::from(input.to_vec())).expect("valid"))?;
    if input.len() > BODY_BYTES_MAX {
        prop_assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        prop_assert!(answer.seen.is_empty());
        return Ok(());
    }
    match json::read(input) {
        Reading::None => answer.refused_at("pointer", vec![String::new()]),
        // No member may be deep or so large a number, so it is refused anyway: as a whole or for the member.
        Reading::Doubtful(_) => {
            prop_assert!(answer.status == StatusCode::BAD_REQUEST && answer.seen.is_empty(), "{answer:?}");
            Ok(())
        }
        Reading::Object(members) => match judge(route, members) {
            Ok(expected) => {
                prop_assert_eq!(answer.status, good, "{:?}", answer);
                prop_assert_eq!(answer.seen.into_iter().map(without_made_id).collect::<Vec<_>>(), [expected]);
                Ok(())
            }
            Err(bad) => answer.refused_at("pointer", bad.iter().map(|name| pointer(name)).collect()),
        },
    }
}

/// An id that the edge has made itself is as good as none.
fn without_made_id(seen: Seen) -> Seen {
    match seen {
        Seen::Reserve(request)
            if request.skip_verdict
                && request.reservation_id.as_deref().is_some_and(|id| rules::uuid_v4(id).is_some()) =>
        {
            Seen::Reserve(ReserveRequest { reservation_id: None, ..request })
        }
        seen => seen,
    }
}

/// RFC 6901.
fn pointer(member: &str) -> String {
    let escaped = member.chars().map(|c| match c {
        '~' => "~0".to_owned(),
        '/' => "~1".to_owned(),
        other => other.to_string(),
    });
    std::iter::once("/".to_owned()).chain(escaped).collect()
}

/// What the peer must hear, or the members that are bad.
fn judge(route: Route, members: Vec<(String, Json)>) -> Result<Seen, BTreeSet<String>> {
    let mut bad = BTreeSet::new();
    let mut values = BTreeMap::new();
    for (name, value) in members {
        if values.insert(name.clone(), value).is_some() {
            bad.insert(name);
        }
    }
    let known: &[&str] = match route {
        Route::Orders => &["item", "item_id", "quantity", "reservation_id"],
        Route::Reserve => &["item", "item_id", "quantity", "reservation_id", "ttl_seconds"],
        Route::Restocks => &["id", "quantity"],
    };
    bad.extend(values.keys().filter(|name| !known.contains(&&***name)).cloned());
    let text = |name: &str, rule: fn(&str) -> Option<String>| match values.get(name)? {
        Json::Text(text) => rule(text),
        Json::Number(_) | Json::Other => None,
    };
    let integer = |name: &str, most: i64| match values.get(name)? {
        Json::Number(number) => rules::integer(number, 1..=most),
        Json::Text(_) | Json::Other => None,
    };
    let item_name = if values.contains_key("item_id") { "item_id" } else { "item" };
    let item = text(item_name, rules::item);
    let quantity = integer("quantity", 1_000_000);
    let id = text("id", rules::uuid);
    let reservation_id = text("reservation_id", rules::uuid_v4);
    let ttl = integer("ttl_seconds", 86_400);

    let mut check = |name: &str, required: bool, good: bool| {
        if known.contains(&name) && !good && (required || values.contains_key(name)) {
            bad.insert(name.to_owned());
        }
    };
    check(item_name, true, item.is_some());
    check("id", true, id.is_some());
    check("quantity", true, quantity.is_some());
    check("reservation_id", false, reservation_id.is_some());
    check("ttl_seconds", false, ttl.is_some());
    if route != Route::Restocks && values.contains_key("item") && values.contains_key("item_id") {
        bad.remove("item");
        bad.insert("item_id".to_owned());
    }
    if !bad.is_empty() {
        return Err(bad);
    }
    let (item, quantity) = (item.unwrap_or_default(), quantity.expect("it was checked"));
    Ok(match route {
        Route::Orders => {
            let attempt_id = Some("a".to_owned());
            Seen::Create(CreateOrderRequest { item, quantity, idempotency_key: None, reservation_id, attempt_id })
        }
        Route::Reserve => {
            let ttl = ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            let skip_verdict = reservation_id.is_none();
            Seen::Reserve(ReserveRequest { reservation_id, item, quantity, ttl, least_epoch: 0, skip_verdict })
        }
        Route::Restocks => {
            Seen::Restock(RestockRequest { id: id.expect("it was checked"), item: "widget".into(), quantity })
        }
    })
}

/// Objects, most of them nearly right for one of the routes.
fn inputs() -> Inputs {
    let member = || (name(), value());
    let right = prop_oneof![
        Just(r#""item":"widget","quantity":1"#),
        Just(r#""item_id":"\u00e9","quantity":1000000"#),
        Just(r#""item":"a","quantity":2,"reservation_id":"7C9E6679-7425-40DE-944B-E07FC1F90AE7""#),
        Just(r#""quantity":3,"item":"a","ttl_seconds":86400"#),
        Just(r#""id":"0f8fad5b-d9cb-869f-a165-70867728950e","quantity":9"#),
        Just(""),
    ];
    let nearly = (right, vec(member(), 0..3), blank()).prop_map(|(right, more, blank)| {
        let more = more.into_iter().map(|(name, value)| format!("{blank}{name}{blank}:{value}{blank}"));
        let members: Vec<String> = (!right.is_empty()).then(|| right.to_owned()).into_iter().chain(more).collect();
        format!("{blank}{{{}}}{blank}", members.join(","))
    });
    let made = vec(member(), 0..6).prop_map(|members| {
        let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let many = (1..1500_usize).prop_map(|n| {
        let members: Vec<String> = (0..n).map(|n| format!("\"m/{n}~\":{n}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let text = prop_oneof![20 => nearly, 10 => made, 1 => many].prop_map(String::into_bytes);
    let padded = ("[ \t]{0,2}", 16_300..16_500_usize).prop_map(|(blank, length)| {
        let mut body = format!(r#"{blank}{{"item":"a","quantity":1}}"#).into_bytes();
        body.resize(length, b' ');
        body
    });
    prop_oneof![40 => text, 1 => padded].boxed()
}

fn blank() -> impl Strategy<Value = &'static str> {
    select(&["", "", " ", "\t\r\n", "\u{b}", "\u{a0}"][..])
}

fn name() -> impl Strategy<Value = String> {
    let known = select(&["item", "item_id", "quantity", "reservation_id", "ttl_seconds", "id"][..]).prop_map(quoted);
    let spelt = word(&[r#""it\u0065m""#, r#""Item""#, r#""""#, r#""a/b~c""#, r#""quantity ""#]);
    prop_oneof![6 => known, 1 => spelt, 1 => ".{0,8}".prop_map(|name| quoted(&name))]
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        '\0'..='\u{1f}' => format!("\\u{:04x}", u32::from(c)),
        other => other.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

fn value() -> impl Strategy<Value = String> {
    let known: &[&str] = &[
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[1,{}]",
        "\"\"",
        "1",
        "0",
        "-0",
        "-1",
        "01",
        "1.0",
        "1e0",
        "1E+2",
        "1000000",
        "1000001",
        "86400",
        "86401",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "1e308",
        "1e309",
        "\"1\"",
        "\".\"",
        "\"..\"",
        "\" a\"",
        "\"a\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"a{b\"",
        "\"cafe\\u0301\"",
        "\"a\\/b\"",
        "\"7c9e6679-7425-40de-944b-e07fc1f90ae7\"",
        "\"0f8fad5b-d9cb-869f-a165-70867728950e\"",
        "\"{7c9e6679-7425-40de-944b-e07fc1f90ae7}\"",
        "\"7c9e6679742540de944be07fc1f90ae7\"",
        "\"urn:uuid:7c9e6679-7425-40de-944b-e07fc1f90ae7\"",
        "nul",
        "NaN",
        "+1",
        ".5",
        "5.",
    ];
    prop_oneof![
        4 => word(known),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => (0..1_000_002_i64).prop_map(|n| n.to_string()),
        1 => any::<f64>().prop_map(|n| n.to_string()),
        2 => "\\PC{0,12}".prop_map(|text| quoted(&text)),
        1 => (any::<char>(), 0..140_usize).prop_map(|(c, n)| quoted(&c.to_string().repeat(n))),
        1 => (1..200_usize).prop_map(|n| format!("{}{}", "[".repeat(n), "]".repeat(n))),
    ]
}
