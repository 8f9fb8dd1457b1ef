//! Which parts of a request are bad. Every parser adds to one list, so that a client hears of all of them at once.

use contracts::{Failure, Reason, values::Invalid};
use serde_json::{Value, json};

use crate::problem::Problem;

/// Most bad fields that one answer names: the body of a request may hold thousands of unknown members.
pub const BAD_FIELDS_MAX: usize = 32;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The body as a whole.
    Body,
    /// A member of the body's object.
    Member(String),
    /// A query parameter, or a named part of the path.
    Parameter(String),
    /// A header.
    Header(&'static str),
}

impl Place {
    /// A member of the body.
    pub fn member(name: &str) -> Self {
        Self::Member(name.to_owned())
    }

    /// A part of the URL.
    pub fn parameter(name: &str) -> Self {
        Self::Parameter(name.to_owned())
    }

    /// As a sentence's subject.
    fn subject(&self) -> &str {
        match self {
            Self::Body => "The body",
            Self::Member(name) | Self::Parameter(name) => name,
            Self::Header(name) => name,
        }
    }

    /// One entry of a problem's `errors`.
    fn to_json(&self, detail: &str) -> Value {
        match self {
            Self::Body => json!({ "pointer": "", "detail": detail }),
            Self::Member(name) => json!({ "pointer": pointer(name), "detail": detail }),
            Self::Parameter(name) => json!({ "parameter": name, "detail": detail }),
            Self::Header(name) => json!({ "header": name, "detail": detail }),
        }
    }
}

/// RFC 6901.
fn pointer(member: &str) -> String {
    format!("/{}", member.replace('~', "~0").replace('/', "~1"))
}

/// What is wrong, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadFields(Vec<(Place, String)>);

impl BadFields {
    /// Only this one.
    pub fn one(place: Place, detail: impl Into<String>) -> Self {
        Self(vec![(place, detail.into())])
    }

    /// One more; dropped past [`BAD_FIELDS_MAX`].
    pub fn add(&mut self, place: Place, detail: impl Into<String>) {
        if self.0.len() < BAD_FIELDS_MAX {
            self.0.push((place, detail.into()));
        }
    }

    /// The value, or `None` and a note of what is wrong with it.
    pub fn check<T>(&mut self, place: Place, value: Result<T, Invalid>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(Invalid(detail)) => {
                self.add(place, detail);
                None
            }
        }
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A problem's `errors`.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(place, detail)| place.to_json(detail)).collect()
    }
}

impl From<BadFields> for Problem {
    fn from(bad: BadFields) -> Self {
        let detail = match &bad.0[..] {
            [] => Reason::InvalidRequest.meaning().to_owned(),
            [(place, detail)] => format!("{} {detail}.", place.subject()),
            many => format!("{} values are bad; `errors` names each.", many.len()),
        };
        Problem::with_fields(Failure::new(Reason::InvalidRequest, detail), bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own_member() {
        let mut bad = BadFields::one(Place::Body, "a");
        bad.add(Place::member("x/y~z"), "b");
        bad.add(Place::parameter("limit"), "c");
        bad.add(Place::Header("Idempotency-Key"), "d");
        assert_eq!(
            bad.to_json(),
            json!([
                { "pointer": "", "detail": "a" },
                { "pointer": "/x~1y~0z", "detail": "b" },
                { "parameter": "limit", "detail": "c" },
                { "header": "Idempotency-Key", "detail": "d" },
            ])
        );
    }

    #[test]
    fn the_list_is_bounded() {
        let mut bad = BadFields::default();
        (0..1000).for_each(|n| bad.add(Place::Member(n.to_string()), "is unknown"));
        assert_eq!(bad.0.len(), BAD_FIELDS_MAX);
    }
}
