//! `/problems`: the page behind each problem's `type`, in HTML for people and JSON for programs, made from the table of
//! reasons.

use axum::{
    Json,
    extract::Request,
    response::{Html, IntoResponse, Response},
};
use contracts::Reason;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, CONTENT_SECURITY_POLICY, VARY},
};
use serde_json::{Value, json};

use crate::{
    docs::UNTIL_THE_NEXT_VERSION,
    path,
    problem::{PROBLEMS, Problem, page_of},
    query,
};

/// A page has one style sheet and nothing else.
const POLICY: (HeaderName, HeaderValue) = (
    CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
);
const BY_ACCEPT: (HeaderName, HeaderValue) = (VARY, HeaderValue::from_static("Accept"));

/// `GET /problems`.
pub async fn list(request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let json = || json!({ "problems": Reason::ALL.iter().map(|reason| page(*reason)).collect::<Vec<_>>() });
    Ok(answer(request.headers(), json, list_html))
}

/// `GET /problems/<REASON>`.
pub async fn read(request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let name = path::segment(request.uri(), 2)?;
    let reason = Reason::from_name(&name).ok_or_else(|| Problem::of(Reason::RouteNotFound))?;
    Ok(answer(request.headers(), || page(reason), || page_html(reason)))
}

fn answer(headers: &HeaderMap, json: impl FnOnce() -> Value, html: impl FnOnce() -> String) -> Response {
    let common = [BY_ACCEPT, UNTIL_THE_NEXT_VERSION];
    if wants_html(headers) {
        (common, [POLICY], Html(html())).into_response()
    } else {
        (common, Json(json())).into_response()
    }
}

/// A reason's page for programs.
pub fn page(reason: Reason) -> Value {
    json!({
        "type": page_of(reason),
        "reason": reason.name(),
        "title": reason.title(),
        "status": reason.http_status(),
        "grpc_code": reason.code_name(),
        "meaning": reason.meaning(),
        "retry": reason.retry().advice(),
        "remedy": reason.remedy(),
    })
}

/// Whether a client would rather have HTML than JSON. One that says nothing, or likes both as much, is a program.
fn wants_html(headers: &HeaderMap) -> bool {
    quality(headers, "text/html") > quality(headers, "application/json")
}

/// How much a client wants a media type, in thousandths, as RFC 9110 reads `Accept`: the most specific range counts.
fn quality(headers: &HeaderMap, wanted: &str) -> u16 {
    let (kind, _) = wanted.split_once('/').expect("a media type");
    let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let matching = lines.flat_map(|line| line.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let specific = match parts.next()?.to_ascii_lowercase() {
            range if range == wanted => 2,
            range if range.strip_suffix("/*") == Some(kind) => 1,
            range if range == "*/*" => 0,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((specific, weight.map_or(Some(1000), thousandths).unwrap_or(0)))
    });
    matching.max().map_or(0, |(_, quality)| quality)
}

/// Of `0.5`, 500. A weight that is none counts as 0: what it was meant to say is not known.
fn thousandths(weight: &str) -> Option<u16> {
    let weight: f32 = weight.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0) as u16)
}

fn page_html(reason: Reason) -> String {
    let facts = [
        ("Reason", reason.name().to_owned()),
        ("HTTP status", reason.http_status().to_string()),
        ("gRPC code", reason.code_name()),
        ("What it means", reason.meaning().to_owned()),
        ("Is repeating safe?", reason.retry().advice().to_owned()),
        ("What to do", reason.remedy().to_owned()),
    ];
    let facts = facts.map(|(name, text)| format!("<dt>{name}</dt>\n<dd>{}</dd>\n", marked(&text)));
    let back = format!("<p><a href=\"{PROBLEMS}\">All problems</a></p>\n");
    html(reason.title(), &format!("<dl>\n{}</dl>\n{back}", facts.concat()))
}

fn list_html() -> String {
    let row = |reason: &Reason| {
        let (page, name) = (page_of(*reason), reason.name());
        let (status, meaning) = (reason.http_status(), marked(reason.meaning()));
        format!("<tr><td>{status}</td><td><a href=\"{page}\">{name}</a></td><td>{meaning}</td></tr>\n")
    };
    let rows: String = Reason::ALL.iter().map(row).collect();
    let head = "<tr><th>Status</th><th>Reason</th><th>What it means</th></tr>";
    html("Problems", &format!("<table>\n<thead>{head}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n"))
}

fn html(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/docs/problems.css\">\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// What stands between backticks is code.
fn marked(text: &str) -> String {
    let parts = escape(text);
    let mut parts = parts.split('`');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.enumerate().fold(first, |html, (n, part)| html + if n % 2 == 0 { "<code>" } else { "</code>" } + part)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_marked() {
        assert_eq!(marked("`a` or `<b>`: c"), "<code>a</code> or <code>&lt;b&gt;</code>: c");
        assert!(Reason::ALL.iter().all(|reason| {
            [reason.meaning(), reason.remedy(), reason.retry().advice()]
                .iter()
                .all(|text| text.matches('`').count() % 2 == 0)
        }));
    }

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
