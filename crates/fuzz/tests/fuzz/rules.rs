//! The rules about values, written once more from what users are told, with other libraries than the product's.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{GeneralCategory, WhiteSpace},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The item that a text names, in NFC; `None` if it names none.
pub fn item(text: &str) -> Option<String> {
    let item = ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned();
    let category = CodePointMapData::<GeneralCategory>::new();
    let forbidden = |c: char| {
        matches!(
            category.get(c),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::Unassigned
        ) || c == '{'
            || c == '}'
    };
    let space = |c: Option<char>| c.is_none_or(|c| CodePointSetData::new::<WhiteSpace>().contains(c));
    let bad = item.chars().count() > 128
        || item.len() > 255
        || space(item.chars().next())
        || space(item.chars().next_back())
        || item.chars().any(forbidden)
        || [".", ".."].contains(&&*item);
    (!bad).then_some(item)
}

/// What an `Idempotency-Key` of these bytes stands for.
pub fn key(value: &[u8]) -> Option<String> {
    let key = if value.starts_with(b"\"") {
        // Blanks around it are cut by HTTP before anybody reads it.
        let whole = value.ends_with(b"\"");
        let item: sfv::Item = sfv::Parser::new(value).parse().ok().filter(|_| whole)?;
        let bare = item.params.is_empty().then_some(item.bare_item)?;
        bare.as_string()?.as_str().to_owned()
    } else {
        String::from_utf8(value.to_vec()).ok()?
    };
    let printable = key.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    (printable && (1..=255).contains(&key.len())).then_some(key)
}

/// An integer of a JSON number as it is written, if it is in this range.
pub fn integer(number: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let is_integer = number.bytes().all(|b| b.is_ascii_digit() || b == b'-') && number != "-0";
    number.parse().ok().filter(|n| is_integer && range.contains(n))
}

/// A UUID in its usual form, in lower case.
pub fn uuid(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
    (hex && lengths == [8, 4, 4, 4, 12]).then(|| text.to_ascii_lowercase())
}

/// The same of version 4.
pub fn uuid_v4(text: &str) -> Option<String> {
    uuid(text).filter(|id| id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]))
}

/// A request or attempt id.
pub fn is_token(value: &[u8]) -> bool {
    (1..=64).contains(&value.len()) && value.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Without its percent-escapes; `None` if one is malformed or the text behind them is no UTF-8.
pub fn unescaped(text: &str) -> Option<String> {
    let whole = text.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2);
    percent_decode_str(text).decode_utf8().ok().filter(|_| whole).map(Into::into)
}

/// As a segment of a path.
pub fn escaped(text: &str) -> String {
    const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, SEGMENT).to_string()
}
