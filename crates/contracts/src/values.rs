//! Types that cannot be wrong. A request is parsed into them where it enters; inside, nothing is checked again.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use uuid::{Uuid, Variant};

use crate::planted::{self, Bug};

/// Highest epoch that somebody may claim to have seen although the ledger never lent it, as after the ledger was restored to
/// an older state. Half of the numbers that every stock store can hold exactly (2^53) are left above it.
pub const EPOCH_CLAIM_MAX: i64 = 1 << 52;

/// Longest item, in Unicode characters after normalisation.
pub const ITEM_CHARS_MAX: usize = 128;
/// Longest item, in bytes of UTF-8 after normalisation.
pub const ITEM_BYTES_MAX: usize = 255;
/// Most units of one order, hold or restock.
pub const QUANTITY_MAX: u32 = 1_000_000;
/// Most units that an item starts with: far above any shop's, and far below where a sum would overflow.
pub const INITIAL_STOCK_MAX: i64 = 1_000_000_000;
/// Longest idempotency key, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Longest attempt or request id, in characters.
pub const TOKEN_CHARS_MAX: usize = 64;
/// Longest life of a client's hold, in seconds.
pub const TTL_SECONDS_MAX: u32 = 86_400;
/// Life of a client's hold that names none, in seconds.
pub const TTL_SECONDS_DEFAULT: u32 = 900;

/// Why a value was refused, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

fn invalid<T>(text: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(text.into()))
}

/// What is sold: NFC, 1..128 characters, at most 255 bytes, no control or format characters, no outer spaces, no braces
/// (an item is a Redis hash tag), not `.` or `..` (it is a path segment).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(Arc<str>);

impl Item {
    /// Normalises and checks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        // NFC makes no text shorter than two sevenths of it (U+1FBE U+0308 U+0301 are U+0390), so this bounds the work
        // before normalising and refuses nothing else.
        if text.len() > 4 * ITEM_BYTES_MAX {
            return invalid(format!("must be at most {ITEM_BYTES_MAX} bytes"));
        }
        let item: String = text.nfc().collect();
        if item.is_empty() {
            return invalid("must not be empty");
        }
        if item.chars().count() > ITEM_CHARS_MAX {
            return invalid(format!("must be at most {ITEM_CHARS_MAX} characters"));
        }
        if item.len() > ITEM_BYTES_MAX {
            return invalid(format!("must be at most {ITEM_BYTES_MAX} bytes"));
        }
        if item.trim() != item {
            return invalid("must not begin or end with a space");
        }
        if item == "." || item == ".." {
            return invalid("must not be \".\" or \"..\"");
        }
        if let Some(c) = item.chars().find(|c| forbidden(*c)) {
            return invalid(format!("must not contain U+{:04X}", u32::from(c)));
        }
        Ok(Self(item.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn forbidden(c: char) -> bool {
    matches!(c, '{' | '}')
        || matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::Unassigned
        )
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Units of one order, hold or restock: 1..1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i64);

impl Quantity {
    /// Checks the range.
    pub fn parse(units: i64) -> Result<Self, Invalid> {
        let least = if planted::is(Bug::NegativeQuantity) { i64::MIN } else { 1 };
        if (least..=i64::from(QUANTITY_MAX)).contains(&units) {
            Ok(Self(units))
        } else {
            invalid(format!("must be 1 to {QUANTITY_MAX}"))
        }
    }

    /// The units.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// Names a hold, and the order that it may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(pub Uuid);

impl ReservationId {
    /// An id that a client chose: v4 only, so that it can never meet a derived one.
    pub fn parse_client(text: &str) -> Result<Self, Invalid> {
        let id = Self::parse(text)?;
        if id.is_client() { Ok(id) } else { invalid("must be a version 4 UUID") }
    }

    /// An id made by a client or derived by the order service.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        // Only the hyphenated form: one id has one spelling, but for letter case.
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Ok(Self(id)),
            _ => invalid("must be a UUID"),
        }
    }

    /// True for a v4 id, which is one of `/reserve`; false for a derived one.
    pub fn is_client(self) -> bool {
        self.0.get_version_num() == 4 && self.0.get_variant() == Variant::RFC4122
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The number of a lease; grows with every lease of an item. 0 stands for "none yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl Epoch {
    /// No lease.
    pub const NONE: Self = Self(0);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which hold it is: of which item, under which lease, and the how-many-eth of that lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The item held.
    pub item: Item,
    /// The lease it was made under.
    pub epoch: Epoch,
    /// Its number within the lease, from 1.
    pub number: i64,
}

/// One item's stock, lent by the ledger to a stock store. Loaded at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The item.
    pub item: Item,
    /// The lease's number.
    pub epoch: Epoch,
    /// Initial stock plus all restocks, in units.
    pub received: i64,
    /// Units in confirmed orders, never more than `received`.
    pub sold: i64,
}

/// What a client names its request by, so that a repeat is known as one: 1..255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Checks length and characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > IDEMPOTENCY_KEY_CHARS_MAX {
            return invalid(format!("must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters"));
        }
        if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return invalid("must be printable ASCII");
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request or attempt id: 1..64 of letters, digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// Checks length and characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let sane =
            (1..=TOKEN_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if sane {
            Ok(Self(text.to_owned()))
        } else {
            invalid(format!("must be 1 to {TOKEN_CHARS_MAX} letters, digits and hyphens"))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for Token {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a hold is kept before the ledger is asked for a verdict: 1 s to 24 h in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u32);

impl Ttl {
    /// For a hold that names none.
    pub const DEFAULT: Self = Self(TTL_SECONDS_DEFAULT);

    /// Checks the range.
    pub fn parse_seconds(seconds: i64) -> Result<Self, Invalid> {
        match u32::try_from(seconds) {
            Ok(seconds @ 1..=TTL_SECONDS_MAX) => Ok(Self(seconds)),
            _ => invalid(format!("must be 1 to {TTL_SECONDS_MAX} seconds")),
        }
    }

    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

/// Microseconds since the Unix epoch, UTC: what every store keeps exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// As gRPC says it.
    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(1_000_000),
            nanos: i32::try_from(self.0.rem_euclid(1_000_000) * 1000).expect("below a second"),
        }
    }

    /// From what gRPC says, cut to microseconds.
    pub fn from_proto(timestamp: &prost_types::Timestamp) -> Self {
        Self(timestamp.seconds.saturating_mul(1_000_000).saturating_add(i64::from(timestamp.nanos) / 1000))
    }
}

/// RFC 3339 in UTC, always to the microsecond, as in `2026-11-22T10:00:00.120000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).map_err(|_| fmt::Error)?;
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second, micros) = time.to_hms_micro();
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", u8::from(month))
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|e| Invalid(e.to_string()))?;
        // The offset may lead out of the years that can be written.
        let Some(time) = time.checked_to_offset(UtcOffset::UTC).filter(|time| time.year() >= 0) else {
            return invalid("must be of the years 0000 to 9999 in UTC");
        };
        i64::try_from(time.unix_timestamp_nanos() / 1000).map(Self).map_err(|e| Invalid(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_normalised_and_compared_as_nfc() {
        let decomposed = Item::parse("cafe\u{301}").expect("valid");
        assert_eq!(decomposed.as_str(), "caf\u{e9}");
    }

    #[test]
    fn items_that_could_mislead_are_refused() {
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\u{a0}",
            ".",
            "..",
            "a{b",
            "a}b",
            "a\nb",
            "a\u{0}",
            "a\u{202e}b",
            "a\u{200b}b",
            "\u{feff}a",
            "a\u{2028}b",
            "a\u{e0041}",
        ] {
            assert!(Item::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Item::parse(&"a".repeat(129)).is_err());
        assert!(Item::parse(&"\u{20ac}".repeat(86)).is_err(), "258 bytes");
    }

    #[test]
    fn items_at_the_limits_are_taken() {
        for good in
            ["a", "...", "a b", "a/b", "%", "日本", "\u{1f600}", "a:b", &"a".repeat(128), &"\u{20ac}".repeat(85)]
        {
            assert!(Item::parse(good).is_ok(), "{good:?}");
        }
        let composed = Item::parse(&"\u{1fbe}\u{308}\u{301}".repeat(127)).expect("254 bytes once composed");
        assert_eq!(composed.as_str(), "\u{390}".repeat(127));
    }

    #[test]
    fn quantities_have_a_range() {
        assert!(Quantity::parse(1).is_ok() && Quantity::parse(1_000_000).is_ok());
        for bad in [i64::MIN, -1, 0, 1_000_001, i64::MAX] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_cannot_bring_a_derived_id() {
        let derived = Uuid::new_v8([7; 16]).to_string();
        assert!(ReservationId::parse_client(&derived).is_err());
        assert!(ReservationId::parse(&derived).is_ok());
        assert!(ReservationId::parse_client("6ba7b810-9dad-41d1-80b4-00c04fd430c8").is_ok());
        assert!(ReservationId::parse("6ba7b8109dad41d180b400c04fd430c8").is_err(), "one spelling");
        assert!(ReservationId::parse_client(&Uuid::nil().to_string()).is_err());
    }

    #[test]
    fn timestamps_survive_both_notations() {
        for micros in [0, 1, 1_795_000_000_123_456, -1] {
            let t = Timestamp(micros);
            assert_eq!(t.to_string().parse(), Ok(t));
            assert_eq!(Timestamp::from_proto(&t.to_proto()), t);
        }
        assert_eq!(Timestamp(1_795_000_000_120_000).to_string(), "2026-11-18T11:06:40.120000Z");
        for bad in ["0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_printable_ascii() {
        assert!(IdempotencyKey::parse(&"k".repeat(255)).is_ok());
        for bad in ["", &"k".repeat(256), "k\u{7f}", "k\t", "é"] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
