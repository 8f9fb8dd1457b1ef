//! `/openapi.json`, and `/docs`: a page that shows it. Everything that the page loads comes from here.

use axum::{
    extract::Request,
    response::{Html, IntoResponse, Response},
};
use contracts::Reason;
use http::{
    HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};

use crate::{openapi, path, problem::Problem, query};

/// A file that the build script has unpacked.
macro_rules! swagger_ui {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

/// How long a client may keep what only a new version of the edge changes.
pub const UNTIL_THE_NEXT_VERSION: (HeaderName, HeaderValue) =
    (CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
/// The page and its files load nothing from elsewhere, and send requests to where they come from only. Swagger UI draws its
/// icons from `data:` URLs.
const POLICY: (HeaderName, HeaderValue) = (
    CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
);
/// Every file that a page loads: its name, its media type and what it holds.
pub const FILES: [(&str, &str, &[u8]); 5] = [
    ("favicon-32x32.png", "image/png", swagger_ui!("favicon-32x32.png")),
    ("problems.css", "text/css; charset=utf-8", include_bytes!("docs/problems.css")),
    ("start.js", "text/javascript; charset=utf-8", include_bytes!("docs/start.js")),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", swagger_ui!("swagger-ui-bundle.js")),
    ("swagger-ui.css", "text/css; charset=utf-8", swagger_ui!("swagger-ui.css")),
];

/// `GET /openapi.json`.
pub async fn document(request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), UNTIL_THE_NEXT_VERSION];
    Ok((json, openapi::COMMITTED).into_response())
}

/// `GET /docs`.
pub async fn page(request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    Ok(([POLICY, UNTIL_THE_NEXT_VERSION], Html(include_str!("docs/index.html"))).into_response())
}

/// `GET /docs/<file>`.
pub async fn file(request: Request) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let name = path::segment(request.uri(), 2)?;
    let Some((_, media_type, bytes)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Err(Problem::of(Reason::RouteNotFound));
    };
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(media_type)), POLICY, UNTIL_THE_NEXT_VERSION], *bytes).into_response())
}
