//! Percent-escapes and path segments. The router matches undecoded paths, so that `%2F` in an item stays in the item.

use contracts::values::Invalid;
use http::Uri;

use crate::{
    fields::{BadFields, Place},
    problem::Problem,
};

/// Refuses a path with an escape that is malformed or decodes to no UTF-8, on every route and on none.
pub fn check(uri: &Uri) -> Result<(), Problem> {
    match decode(uri.path()) {
        Ok(_) => Ok(()),
        Err(Invalid(detail)) => Err(BadFields::one(Place::parameter("path"), detail).into()),
    }
}

/// The decoded segment: of `/orders/7`, number 1 is `orders`. Empty if there is none.
pub fn segment(uri: &Uri, number: usize) -> Result<String, Problem> {
    let raw = uri.path().split('/').nth(number).unwrap_or_default();
    decode(raw).map_err(|Invalid(detail)| BadFields::one(Place::parameter("path"), detail).into())
}

/// Decodes `%XX`; what is decoded must be UTF-8.
pub fn decode(text: &str) -> Result<String, Invalid> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let Some(([high, low], tail)) = tail.split_first_chunk::<2>().map(|(pair, tail)| (*pair, tail)) else {
            return Err(Invalid("must not hold a cut percent-escape".into()));
        };
        let (Some(high), Some(low)) = (hex(high), hex(low)) else {
            return Err(Invalid("must not hold a malformed percent-escape".into()));
        };
        bytes.push(16 * high + low);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| Invalid("must be UTF-8 once decoded".into()))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded() {
        for (raw, decoded) in
            [("", ""), ("a+b", "a+b"), ("a%20b", "a b"), ("%41%2f%2F", "A//"), ("%e2%82%AC", "\u{20ac}"), ("%25", "%")]
        {
            assert_eq!(decode(raw).as_deref(), Ok(decoded), "{raw}");
        }
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for raw in ["%", "%4", "a%", "%zz", "%4g", "%+1", "% 1", "%ff", "%c3", "%c0%af", "%ed%a0%80"] {
            assert!(decode(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn an_escaped_slash_is_part_of_its_segment() {
        let uri: Uri = "/inventory/a%2Fb/restocks".parse().expect("valid");
        assert_eq!(segment(&uri, 2).expect("valid"), "a/b");
        assert_eq!(segment(&uri, 3).expect("valid"), "restocks");
    }
}
