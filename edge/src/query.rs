//! Query parameters: known ones, each at most once. An empty value counts as absent.

use contracts::values::Invalid;
use http::Uri;

use crate::{
    fields::{BadFields, Place},
    path,
    problem::Problem,
};

/// The values of `names`, in their order. Unknown, repeated and malformed parameters are noted in `bad`.
pub fn parse<const N: usize>(uri: &Uri, names: [&str; N], bad: &mut BadFields) -> [Option<String>; N] {
    let mut seen = [false; N];
    let mut values = [const { None }; N];
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match form(name) {
            Ok(name) => name,
            Err(Invalid(detail)) => {
                bad.add(Place::parameter(name), detail);
                continue;
            }
        };
        let Some(index) = names.iter().position(|known| *known == name) else {
            bad.add(Place::Parameter(name), "is unknown");
            continue;
        };
        if std::mem::replace(&mut seen[index], true) {
            bad.add(Place::Parameter(name), "must not be repeated");
            continue;
        }
        values[index] = bad.check(Place::Parameter(name), form(value)).filter(|value| !value.is_empty());
    }
    values
}

/// Notes every parameter as unknown, for routes that take none.
pub fn none(uri: &Uri, bad: &mut BadFields) {
    let [] = parse(uri, [], bad);
}

/// The same for routes that have nothing else to check.
pub fn refuse(uri: &Uri) -> Result<(), Problem> {
    let mut bad = BadFields::default();
    none(uri, &mut bad);
    if bad.is_empty() { Ok(()) } else { Err(bad.into()) }
}

/// As HTML forms write it: `+` is a space.
fn form(text: &str) -> Result<String, Invalid> {
    path::decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(query: &str) -> ([Option<String>; 2], BadFields) {
        let mut bad = BadFields::default();
        let uri = format!("/orders?{query}").parse().expect("valid");
        (parse(&uri, ["item", "limit"], &mut bad), bad)
    }

    #[test]
    fn known_parameters_are_read_in_any_order() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("").0, [None, None]);
        assert_eq!(read("limit=5&item=a%26b+c%2B").0, [some("a&b c+"), some("5")]);
        assert_eq!(read("item=&limit").0, [None, None]);
        assert_eq!(read("&&item=a=b&").0, [some("a=b"), None]);
        assert!(read("&&item=a=b&").1.is_empty());
    }

    #[test]
    fn everything_bad_is_named_at_once() {
        let (values, bad) = read("item=%zz&item=b&limit=1&limit=1&page=2&%ff=1");
        assert_eq!(values, [None, Some("1".to_owned())]);
        let names: Vec<_> = bad.to_json().as_array().expect("a list").iter().map(|e| e["parameter"].clone()).collect();
        assert_eq!(names, [json!("item"), json!("item"), json!("limit"), json!("page"), json!("%ff")]);
    }
}
