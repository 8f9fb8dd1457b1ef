//! The request headers that mean something here.

use contracts::{
    Reason,
    values::{IdempotencyKey, Invalid, Token},
};
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use crate::{
    fields::{BadFields, Place},
    problem::Problem,
};

/// Names the order that a client wants at most once.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// Names the request, for logs and problems.
pub const X_REQUEST_ID: &str = "X-Request-Id";
/// Names the attempt: a gateway that repeats a request repeats it too, and the order is placed once.
pub const X_ATTEMPT_ID: &str = "X-Attempt-Id";

/// The value, unless there is none or more than one.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// An id, if exactly one sane value names it.
pub fn token(headers: &HeaderMap, name: &str) -> Option<Token> {
    single(headers, name)?.to_str().ok().and_then(|text| Token::parse(text).ok())
}

/// The client's key; a malformed or repeated header is noted in `bad`.
pub fn idempotency_key(headers: &HeaderMap, bad: &mut BadFields) -> Option<IdempotencyKey> {
    let place = Place::Header(IDEMPOTENCY_KEY);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value = values.next()?;
    if values.next().is_some() {
        bad.add(place, "must not be repeated");
        return None;
    }
    bad.check(place, key(value.as_bytes()))
}

/// Bare, or a string as in RFC 9651.
fn key(value: &[u8]) -> Result<IdempotencyKey, Invalid> {
    let text = std::str::from_utf8(value).map_err(|_| Invalid("must be printable ASCII".into()))?;
    match text.strip_prefix('"') {
        None => IdempotencyKey::parse(text),
        Some(quoted) => IdempotencyKey::parse(&unquote(quoted)?),
    }
}

/// What stands between the quotes, of which the first is cut already.
fn unquote(quoted: &str) -> Result<String, Invalid> {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' if chars.as_str().is_empty() => return Ok(text),
            '"' => return Err(Invalid("must end with its closing quote".into())),
            '\\' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                _ => return Err(Invalid("may only escape a quote or a backslash".into())),
            },
            other => text.push(other),
        }
    }
    Err(Invalid("must close its quote".into()))
}

/// Refuses every body that is not said, once, to be JSON, and to be sent as it is.
pub fn json(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::of(Reason::UnsupportedMediaType));
    }
    let media_type = single(headers, CONTENT_TYPE.as_str())
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next());
    match media_type {
        Some(text) if text.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Problem::of(Reason::UnsupportedMediaType)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text beyond ASCII goes in as its UTF-8 bytes, which are legal in a header.
    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("valid"));
        }
        headers
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        for (value, expected) in [
            ("k", "k"),
            (r#""k""#, "k"),
            (r#""a\"b\\c d""#, r#"a"b\c d"#),
            (r#"a"b"#, r#"a"b"#),
            (r"a\b", r"a\b"),
            ("a, b", "a, b"),
            (r#""~!""#, "~!"),
        ] {
            assert_eq!(key(value.as_bytes()).expect(value).as_str(), expected);
        }
        assert!(key(&[b'k'; 255]).is_ok());
        assert!(key(format!("\"{}\"", "k".repeat(255)).as_bytes()).is_ok(), "the quotes do not count");
    }

    #[test]
    fn malformed_keys_are_refused() {
        for value in
            ["", "\"", "\"\"", "\"k", r#""k"x"#, r#""k" "#, r#""k\""#, r#""k\n""#, "k\t", "\u{e9}", r#""k";a=1"#]
        {
            assert!(key(value.as_bytes()).is_err(), "{value:?}");
        }
        assert!(key(b"\xff").is_err());
        assert!(key(&[b'k'; 256]).is_err());
    }

    #[test]
    fn two_keys_are_refused_even_when_equal() {
        let mut bad = BadFields::default();
        assert_eq!(idempotency_key(&headers("idempotency-key", &["k", "k"]), &mut bad), None);
        assert!(!bad.is_empty());
    }

    #[test]
    fn an_id_is_taken_only_if_single_and_sane() {
        let taken = |values: &[&str]| token(&headers("x-request-id", values), X_REQUEST_ID).map(|t| t.to_string());
        assert_eq!(taken(&["abc-1"]), Some("abc-1".to_owned()));
        for values in [&[][..], &["a", "a"], &["a b"], &["\u{ff}"], &[""], &[&*"a".repeat(65)]] {
            assert_eq!(taken(values), None, "{values:?}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let is_json = |values: &[&str]| json(&headers("content-type", values)).is_ok();
        for value in
            ["application/json", "Application/JSON", "application/json;charset=utf-8", "application/json ; a=b"]
        {
            assert!(is_json(&[value]), "{value}");
        }
        for values in [
            &[][..],
            &[""],
            &["text/plain"],
            &["application/jsonx"],
            &["application/problem+json"],
            &["application/json, application/json"],
            &["application/json", "application/json"],
            &["\u{ff}"],
        ] {
            assert!(!is_json(values), "{values:?}");
        }
    }
}
