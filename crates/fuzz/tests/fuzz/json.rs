//! JSON as RFC 8259 writes it, read by hand: what the edge and the events are held against must not be the parser that
//! they use.

/// Values in values that every reader takes. How deep it goes beyond that is its own affair (RFC 8259, section 9).
const DEPTH_MAX: usize = 100;

/// A value, as far as a rule about members needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Text(String),
    /// As written.
    Number(String),
    Other,
}

/// What a text is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// An object, with its members in order.
    Object(Vec<(String, Json)>),
    /// An object that a reader may refuse: for its depth, a number beyond a double, or half a surrogate pair.
    Doubtful(Vec<(String, Json)>),
    /// Another value, or no JSON.
    None,
}

/// Reads a text.
pub fn read(bytes: &[u8]) -> Reading {
    let Ok(text) = std::str::from_utf8(bytes) else { return Reading::None };
    let mut reader = Reader { rest: text, doubtful: false };
    reader.blank();
    match reader.object(0).filter(|_| reader.rest.is_empty()) {
        Some(members) if reader.doubtful => Reading::Doubtful(members),
        Some(members) => Reading::Object(members),
        None => Reading::None,
    }
}

struct Reader<'a> {
    rest: &'a str,
    doubtful: bool,
}

impl Reader<'_> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes a token and the blanks behind it.
    fn token(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        self.blank();
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<Vec<(String, Json)>> {
        self.token("{")?;
        let mut members = Vec::new();
        if self.token("}").is_some() {
            return Some(members);
        }
        loop {
            let name = self.text()?;
            self.token(":")?;
            members.push((name, self.value(depth)?));
            if self.token("}").is_some() {
                return Some(members);
            }
            self.token(",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.token("[")?;
        if self.token("]").is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.token("]").is_some() {
                return Some(());
            }
            self.token(",")?;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.doubtful |= depth > DEPTH_MAX;
        match self.rest.chars().next()? {
            '{' => self.object(depth + 1).map(|_| Json::Other),
            '[' => self.array(depth + 1).map(|()| Json::Other),
            '"' => self.text().map(Json::Text),
            't' => self.token("true").map(|()| Json::Other),
            'f' => self.token("false").map(|()| Json::Other),
            'n' => self.token("null").map(|()| Json::Other),
            _ => self.number().map(Json::Number),
        }
    }

    fn digits(text: &str) -> usize {
        text.bytes().take_while(u8::is_ascii_digit).count()
    }

    fn number(&mut self) -> Option<String> {
        let text = self.rest;
        let mut length = usize::from(text.starts_with('-'));
        let whole = Self::digits(&text[length..]);
        if whole == 0 || (whole > 1 && text[length..].starts_with('0')) {
            return None;
        }
        length += whole;
        if text[length..].starts_with('.') {
            let fraction = Self::digits(&text[length + 1..]);
            length += 1 + Some(fraction).filter(|n| *n > 0)?;
        }
        if text[length..].starts_with(['e', 'E']) {
            let sign = usize::from(text[length + 1..].starts_with(['+', '-']));
            let exponent = Self::digits(&text[length + 1 + sign..]);
            length += 1 + sign + Some(exponent).filter(|n| *n > 0)?;
        }
        let number = text[..length].to_owned();
        self.doubtful |= number.parse::<f64>().is_ok_and(f64::is_infinite);
        self.rest = &text[length..];
        self.blank();
        Some(number)
    }

    fn text(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('"')?;
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(escape(&mut chars, &mut self.doubtful)?),
                '\0'..='\u{1f}' => return None,
                other => text.push(other),
            }
        }
        self.rest = chars.as_str();
        self.blank();
        Some(text)
    }
}

fn escape(chars: &mut std::str::Chars, doubtful: &mut bool) -> Option<char> {
    Some(match chars.next()? {
        same @ ('"' | '\\' | '/') => same,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let mut units = vec![unit(chars)?];
            if let (0xd800..0xdc00, Some(rest)) = (units[0], chars.as_str().strip_prefix("\\u")) {
                *chars = rest.chars();
                units.push(unit(chars)?);
            }
            let text = String::from_utf16(&units);
            *doubtful |= text.is_err();
            text.ok().and_then(|text| text.chars().next()).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        _ => return None,
    })
}

fn unit(chars: &mut std::str::Chars) -> Option<u16> {
    (0..4).try_fold(0, |unit: u16, _| Some(unit * 16 + u16::try_from(chars.next()?.to_digit(16)?).ok()?))
}

#[test]
fn the_reading_by_hand_knows_its_grammar() {
    let text = |text: &str| Json::Text(text.to_owned());
    let number = |text: &str| Json::Number(text.to_owned());
    let all = br#" { "a\u0062\/" : "\ud83d\ude00\n" , "n":-0.5e+7,"o":[{},[1,null]], "a":true } "#;
    assert_eq!(
        read(all),
        Reading::Object(vec![
            ("ab/".to_owned(), text("\u{1f600}\n")),
            ("n".to_owned(), number("-0.5e+7")),
            ("o".to_owned(), Json::Other),
            ("a".to_owned(), Json::Other),
        ])
    );
    for bad in
        ["", "[]", "1", "{", "{}x", "{\"a\"}", "{\"a\":1,}", "{\"a\":01}", "{\"a\":1.}", "{\"a\":.1}", "{\"a\":+1}"]
    {
        assert_eq!(read(bad.as_bytes()), Reading::None, "{bad}");
    }
    for bad in ["\"\n\"", "\"\\x\"", "\"", "1e", "nul", "NaN", "'a'"] {
        assert_eq!(read(format!("{{\"a\":{bad}}}").as_bytes()), Reading::None, "{bad}");
    }
    for odd in ["\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "1e999"] {
        assert!(matches!(read(format!("{{\"a\":{odd}}}").as_bytes()), Reading::Doubtful(_)), "{odd}");
    }
    assert!(matches!(
        read(format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)).as_bytes()),
        Reading::Doubtful(_)
    ));
}
