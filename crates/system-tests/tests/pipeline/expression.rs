//! The expressions of a workflow, as far as this one uses them. Whatever is not known here is an error, never a guess.

use std::collections::{BTreeMap, BTreeSet};

/// A value in an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::List(_) => None,
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(bool) => *bool,
            Self::Text(text) => !text.is_empty(),
            Self::List(_) => true,
        }
    }

    /// As which number it compares with a value of another kind: an absent fact equals `false` and `''`.
    fn number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(bool) => f64::from(*bool),
            Self::Text(text) if text.is_empty() => 0.0,
            Self::Text(text) => text.parse().unwrap_or(f64::NAN),
            Self::List(_) => f64::NAN,
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left.eq_ignore_ascii_case(right),
            (left, right) => (left.number() - right.number()).abs() < f64::EPSILON,
        }
    }
}

/// What an expression can ask about.
pub struct Facts<'a> {
    /// By full name, such as `github.ref`.
    pub names: &'a BTreeMap<&'static str, Value>,
    /// The results of the jobs that this one needs.
    pub needs: &'a BTreeMap<&'a str, &'static str>,
    /// The results of all jobs before this one, near and far.
    pub before: &'a BTreeSet<&'static str>,
}

/// An expression's value, and whether it asked how the jobs before went. One that does not ask gets `success() &&` in
/// front where it decides on a job.
pub fn evaluate(expression: &str, facts: &Facts) -> Result<(Value, bool), String> {
    let expression = expression.trim();
    let inner = expression.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")).unwrap_or(expression);
    let mut reader = Reader { tokens: tokens(inner)?, at: 0, facts, asked: false };
    let value = reader.either()?;
    match reader.tokens.get(reader.at) {
        None => Ok((value, reader.asked)),
        Some(token) => Err(format!("`{token}` is one too many in `{inner}`")),
    }
}

/// Operators, names, and literals with their opening quote.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let operator = ["==", "!=", "&&", "||", "!", "(", ")", ","].into_iter().find(|known| rest.starts_with(known));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '*');
        let length = if let Some(operator) = operator {
            operator.len()
        } else if first == '\'' {
            let end = rest[1..].find('\'').ok_or_else(|| format!("an open string in `{text}`"))?;
            if rest[end + 2..].starts_with('\'') {
                return Err(format!("a quote within a string in `{text}`"));
            }
            end + 2
        } else if first.is_ascii_alphabetic() {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else {
            return Err(format!("`{first}` in `{text}`"));
        };
        let (token, after) = rest.split_at(length);
        tokens.push(if first == '\'' { token[..length - 1].to_owned() } else { token.to_owned() });
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// Reads and evaluates at once. Nothing is left out where the left side decides, so that nothing unknown goes unseen.
struct Reader<'a> {
    tokens: Vec<String>,
    at: usize,
    facts: &'a Facts<'a>,
    asked: bool,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        let is_next = self.tokens.get(self.at).is_some_and(|next| next == token);
        self.at += usize::from(is_next);
        is_next
    }

    fn either(&mut self) -> Result<Value, String> {
        let mut left = self.both()?;
        while self.take("||") {
            let right = self.both()?;
            left = if left.is_true() { left } else { right };
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Value, String> {
        let mut left = self.compared()?;
        while self.take("&&") {
            let right = self.compared()?;
            left = if left.is_true() { right } else { left };
        }
        Ok(left)
    }

    fn compared(&mut self) -> Result<Value, String> {
        let left = self.single()?;
        if self.take("==") {
            return Ok(Value::Bool(left.equals(&self.single()?)));
        }
        if self.take("!=") {
            return Ok(Value::Bool(!left.equals(&self.single()?)));
        }
        Ok(left)
    }

    fn single(&mut self) -> Result<Value, String> {
        if self.take("!") {
            return Ok(Value::Bool(!self.single()?.is_true()));
        }
        if self.take("(") {
            let value = self.either()?;
            return if self.take(")") { Ok(value) } else { Err("a parenthesis stays open".into()) };
        }
        let token = self.tokens.get(self.at).cloned().ok_or("it ends too soon")?;
        self.at += 1;
        if let Some(text) = token.strip_prefix('\'') {
            return Ok(Value::text(text));
        }
        if self.take("(") {
            let arguments = self.arguments()?;
            return self.call(&token, &arguments);
        }
        match token.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            "needs.*.result" => Ok(Value::List(self.facts.needs.values().map(|result| Value::text(result)).collect())),
            name => self.named(name),
        }
    }

    fn named(&self, name: &str) -> Result<Value, String> {
        if let Some(job) = name.strip_prefix("needs.").and_then(|rest| rest.strip_suffix(".result")) {
            let result = self.facts.needs.get(job).ok_or_else(|| format!("`{job}` is not among the job's `needs`"))?;
            return Ok(Value::text(result));
        }
        self.facts.names.get(name).cloned().ok_or_else(|| format!("`{name}` is not known to this test"))
    }

    fn arguments(&mut self) -> Result<Vec<Value>, String> {
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.either()?);
            if self.take(")") {
                return Ok(arguments);
            }
            if !self.take(",") {
                return Err("arguments stay open".into());
            }
        }
    }

    fn call(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let before = self.facts.before;
        let value = match (name, arguments) {
            ("success", []) => before.iter().all(|result| *result == "success"),
            ("failure", []) => before.contains("failure"),
            ("cancelled", []) => before.contains("cancelled"),
            ("always", []) => true,
            ("startsWith", [Value::Text(text), Value::Text(start)]) => {
                text.to_ascii_lowercase().starts_with(&start.to_ascii_lowercase())
            }
            ("contains", [Value::Text(text), Value::Text(part)]) => {
                text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
            }
            ("contains", [Value::List(list), item]) => list.iter().any(|one| one.equals(item)),
            ("join", [Value::List(list), Value::Text(between)]) => {
                let texts: Option<Vec<&str>> = list.iter().map(|one| one.as_text()).collect();
                return texts.map(|texts| Value::Text(texts.join(between))).ok_or("join of what is no text".into());
            }
            (name, arguments) => return Err(format!("`{name}` of {arguments:?} is not known to this test")),
        };
        self.asked |= matches!(name, "success" | "failure" | "cancelled" | "always");
        Ok(Value::Bool(value))
    }
}

#[test]
fn expressions_mean_what_github_says() {
    let names = BTreeMap::from([
        ("github.ref", Value::text("refs/heads/main")),
        ("github.event.repository.fork", Value::Bool(false)),
        ("github.event.pull_request.head.repo.fork", Value::Null),
    ]);
    let needs = BTreeMap::from([("images", "skipped"), ("test", "success")]);
    let before = BTreeSet::from(["skipped", "success"]);
    let facts = Facts { names: &names, needs: &needs, before: &before };
    let cases = [
        ("github.ref == 'refs/heads/main'", true, false),
        ("github.ref == 'REFS/heads/main'", true, false),
        ("github.ref != 'refs/heads/main'", false, false),
        ("github.ref == ''", false, false),
        ("!github.event.repository.fork && startsWith(github.ref, 'refs/heads/')", true, false),
        // An absent fact is not false, and yet equals it.
        ("github.event.pull_request.head.repo.fork == false", true, false),
        ("github.event.pull_request.head.repo.fork == 'false'", false, false),
        ("false && false || true", true, false),
        ("false && (false || true)", false, false),
        ("!(true && false)", true, false),
        ("success()", false, true),
        ("!failure() && !cancelled()", true, true),
        ("${{ always() }}", true, true),
        ("needs.test.result == 'success'", true, false),
        ("contains(needs.*.result, 'skipped')", true, false),
        ("contains(github.ref, 'tags')", false, false),
        ("join(needs.*.result, ' ') == 'skipped success'", true, false),
    ];
    for (expression, is_true, asks) in cases {
        let (value, asked) = evaluate(expression, &facts).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!((value.is_true(), asked), (is_true, asks), "{expression}");
    }
    let unknown = [
        "github.actor == 'me'",
        "needs.lint.result == 'success'",
        "hashFiles('x')",
        "1 < 2",
        "'open",
        "(true",
        "true true",
        "",
        "success('all')",
        "github.event['ref']",
        "github.ref && ${{ true }}",
    ];
    for expression in unknown {
        assert!(evaluate(expression, &facts).is_err(), "`{expression}` is evaluated");
    }
}
