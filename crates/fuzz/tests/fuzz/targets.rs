//! Request targets: items, escapes in paths, and query strings.

use axum::body::Body;
use contracts::{
    inventory::v1::GetStockRequest,
    orders::v1::{GetOrderRequest, ListOrdersRequest},
    values::Item,
};
use http::{Request, StatusCode, Uri};
use inventory::stock::redis::keys::{Spread, slot};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    driver::{self, Inputs, Verdict, word},
    edge::{Answer, Edge, Seen},
    rules,
};

fn get(edge: &Edge, target: &Uri) -> Result<Answer, TestCaseError> {
    edge.ask(Request::get(target).body(Body::empty()).expect("valid"))
}

#[test]
fn an_item_is_taken_exactly_when_the_rules_say_so_and_stays_the_same_everywhere() {
    let edge = Edge::start();
    driver::run("items", items(), |input| check_item(&edge, input));
}

fn check_item(edge: &Edge, input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
    let expected = rules::item(text);
    let found = Item::parse(text);
    prop_assert_eq!(found.as_ref().ok().map(Item::as_str), expected.as_deref());
    if let Ok(item) = &found {
        prop_assert_eq!(Item::parse(item.as_str()), found.clone(), "it is in its last form");
        let (home, keys) = Spread::Cluster.item(item.as_str());
        prop_assert!(keys.iter().all(|key| slot(hash_tag(key)) == home), "keys in several slots: {keys:?}");
    }
    let escaped = rules::escaped(text);
    let Ok(target) = format!("/inventory/{escaped}").parse() else { return Ok(()) };
    let answer = get(edge, &target)?;
    match expected {
        Some(item) => {
            prop_assert_eq!(answer.status, StatusCode::OK);
            prop_assert_eq!(answer.body["item"].as_str(), Some(&*item));
            prop_assert_eq!(answer.seen, [Seen::Stock(GetStockRequest { item })]);
            Ok(())
        }
        None if text.is_empty() => not_found(&answer),
        None => answer.refused_at("parameter", vec!["item".to_owned()]),
    }
}

/// What Redis takes of a key to choose its slot: what stands between the first braces, if anything does.
fn hash_tag(key: &str) -> &str {
    let inside = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(inside, _)| inside);
    inside.filter(|inside| !inside.is_empty()).unwrap_or(key)
}

fn not_found(answer: &Answer) -> Verdict {
    prop_assert_eq!(answer.status, StatusCode::NOT_FOUND);
    prop_assert!(answer.seen.is_empty());
    Ok(())
}

fn items() -> Inputs {
    let marks =
        select(&["\u{301}", "\u{308}", "\u{345}", "\u{1fbe}", "\u{212a}", "\u{1112}\u{1175}\u{11c2}", "\u{344}"][..]);
    prop_oneof![
        "\\PC{0,20}",
        "[a-z /%+.:{}]{0,12}",
        any::<String>(),
        any::<char>().prop_map(|c| format!("a{c}b")),
        any::<char>().prop_map(|c| c.to_string()),
        (any::<char>(), 1..260_usize).prop_map(|(c, n)| c.to_string().repeat(n)),
        (vec(marks, 1..4), 1..130_usize).prop_map(|(marks, n)| marks.concat().repeat(n)),
        vec(select(&['a', '\u{e9}', '\u{301}', '\u{1fbe}', '\u{308}', '\u{1112}', '\u{1175}'][..]), 0..140)
            .prop_map(|chars| chars.into_iter().collect()),
    ]
    .prop_map(String::into_bytes)
    .boxed()
}

#[test]
fn a_path_is_read_as_its_escapes_say_and_nothing_malformed_gets_through() {
    let edge = Edge::start();
    driver::run("paths", paths(), |input| check_path(&edge, input));
}

fn check_path(edge: &Edge, input: &[u8]) -> Verdict {
    let Ok(target) = Uri::try_from(input) else { return Ok(()) };
    let path = target.path();
    if !path.starts_with('/') || target.host().is_some() || target.query().is_some() {
        return Ok(());
    }
    let answer = get(edge, &target)?;
    let segments: Vec<&str> = path.split('/').collect();
    if rules::unescaped(path).is_none() {
        answer.refused_at("parameter", vec!["path".to_owned()])?;
    } else {
        match segments[..] {
            ["", "inventory", item] if !item.is_empty() => {
                match rules::unescaped(item).and_then(|item| rules::item(&item)) {
                    Some(item) => prop_assert_eq!(answer.seen, [Seen::Stock(GetStockRequest { item })]),
                    None => answer.refused_at("parameter", vec!["item".to_owned()])?,
                }
            }
            ["", "orders", id] if !id.is_empty() => match rules::unescaped(id).and_then(|id| rules::uuid(&id)) {
                Some(id) => prop_assert_eq!(answer.seen, [Seen::Order(GetOrderRequest { id })]),
                None => not_found(&answer)?,
            },
            ["", "orders"] => prop_assert!(matches!(answer.seen[..], [Seen::List(_)])),
            _ => prop_assert!(answer.seen.is_empty()),
        }
    }
    check_behind_gateway(edge, &target)
}

/// The gateway lets no restock pass, by the raw path alone: the edge must take nothing else for one.
fn check_behind_gateway(edge: &Edge, target: &Uri) -> Verdict {
    let body = r#"{"id":"7c9e6679-7425-40de-944b-e07fc1f90ae7","quantity":1}"#;
    let request = Request::post(target).header("content-type", "application/json").body(body.into()).expect("valid");
    let answer = edge.ask(request)?;
    let restocked = answer.seen.iter().any(|seen| matches!(seen, Seen::Restock(_)));
    prop_assert!(!restocked || target.path().starts_with("/inventory/"), "{target}");
    Ok(())
}

fn paths() -> Inputs {
    let known: &[&str] = &[
        "inventory",
        "orders",
        "restocks",
        "reservations",
        "healthz",
        "problems",
        "INTERNAL",
        ".",
        "..",
        "",
        "%2e%2e",
        "inventor%79",
        "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "%37c9e6679-7425-40de-944b-e07fc1f90ae7",
        "a%2Fb",
        "a%252Fb",
        "a+b",
        "%",
        "%4",
        "%zz",
        "%ff",
        "%c0%af",
        "%ed%a0%80",
        "%00",
        "caf%C3%A9",
        "cafe%cc%81",
        "\u{e9}",
        "orders.v1.OrderService",
        "%7b%7D",
        "a;b",
        "a:b@c",
        "*",
    ];
    let segment = || {
        prop_oneof![
            3 => word(known),
            1 => "(%[0-9a-fA-F]{2}){0,4}",
            1 => "[!-~]{0,6}",
            1 => any::<String>().prop_map(|text| rules::escaped(&text)),
        ]
    };
    let resource = (select(&["/inventory/", "/orders/", "/orders"][..]), segment())
        .prop_map(|(head, last)| format!("{head}{last}"));
    let restock = segment().prop_map(|item| format!("/inventory/{item}/restocks"));
    let any = vec(segment(), 1..5).prop_map(|segments| format!("/{}", segments.join("/")));
    prop_oneof![3 => resource, 1 => restock, 2 => any].prop_map(String::into_bytes).boxed()
}

#[test]
fn a_query_is_taken_exactly_when_the_rules_say_so() {
    let edge = Edge::start();
    driver::run("queries", queries(), |input| check_query(&edge, input));
}

fn check_query(edge: &Edge, input: &[u8]) -> Verdict {
    let Ok(target) = Uri::try_from([b"/orders?", input].concat()) else { return Ok(()) };
    let answer = get(edge, &target)?;
    match judge_query(target.query().unwrap_or_default()) {
        Ok(expected) => {
            prop_assert_eq!(answer.status, StatusCode::OK);
            prop_assert_eq!(answer.seen, [Seen::List(expected)]);
            Ok(())
        }
        Err(bad) => answer.refused_at("parameter", bad),
    }
}

/// What the order service must hear, or the parameters that are bad, as often as they are.
fn judge_query(query: &str) -> Result<ListOrdersRequest, Vec<String>> {
    let mut bad = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut request = ListOrdersRequest::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (raw, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| rules::unescaped(&text.replace('+', "%20"));
        let Some(name) = decode(raw) else {
            // It has no other name than the one it was sent under.
            bad.push(raw.to_owned());
            continue;
        };
        let again = seen.contains(&name);
        seen.push(name.clone());
        let good = match (&*name, decode(value)) {
            (_, None) => false,
            (_, _) if again => false,
            ("item" | "limit" | "page_token", Some(value)) if value.is_empty() => true,
            ("item", Some(value)) => rules::item(&value).map(|item| request.item = item).is_some(),
            ("limit", Some(value)) => {
                let digits = value.bytes().all(|b| b.is_ascii_digit());
                let size = value.parse().ok().filter(|size| digits && (1..=500).contains(size));
                size.map(|size| request.page_size = size).is_some()
            }
            ("page_token", Some(value)) => {
                request.page_token = value;
                true
            }
            _ => false,
        };
        if !good {
            bad.push(name);
        }
    }
    if bad.is_empty() { Ok(request) } else { Err(bad) }
}

fn queries() -> Inputs {
    let name = select(&["item", "limit", "page_token", "Item", "ite%6d", "", "%", "%ff", "x", "li+mit"][..]);
    let known: &[&str] = &[
        "",
        "widget",
        "1",
        "500",
        "501",
        "0",
        "-1",
        "+5",
        "05",
        "1.0",
        "%31",
        "a+b",
        "+a",
        "a%20",
        "%zz",
        "%ff",
        "a=b",
        "a%26b",
        "99999999999",
        "caf%C3%A9",
        "cafe%cc%81",
        "1795000000123456.7c9e6679-7425-40de-944b-e07fc1f90ae7",
    ];
    let value = prop_oneof![
        2 => word(known),
        1 => (0..600_i32).prop_map(|n| n.to_string()),
        1 => any::<String>().prop_map(|text| rules::escaped(&text)),
    ];
    let pair =
        (name, select(&["=", "=", "=", ""][..]), value).prop_map(|(name, is, value)| format!("{name}{is}{value}"));
    let many = (1..80_usize).prop_map(|n| "x=1&".repeat(n));
    let some = vec(pair, 0..4).prop_map(|pairs| pairs.join("&"));
    prop_oneof![8 => some, 1 => many].prop_map(String::into_bytes).boxed()
}
