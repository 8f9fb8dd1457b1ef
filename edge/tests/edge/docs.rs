//! `/docs`: a page that needs nothing from elsewhere.

use contracts::Reason;

use crate::support::System;

/// What a page loads or leads to, by its attributes.
pub fn links(html: &str) -> Vec<&str> {
    let attributes = ["src=\"", "href=\""];
    attributes.iter().flat_map(|start| html.split(start).skip(1)).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn everything_that_the_page_names_is_served_and_nothing_is_elsewhere() {
    let system = System::start().await;
    let page = system.get("/docs").await;
    page.check_headers();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = String::from_utf8(page.body).expect("text");
    let start = String::from_utf8(system.get("/docs/start.js").await.body).expect("text");
    assert!(!html.contains("://") && !start.contains("://"), "{html}{start}");
    assert!(start.contains("\"/openapi.json\""), "{start}");

    let links = links(&html);
    assert_eq!(links.len(), 5, "{links:?}");
    for link in links {
        let file = system.get(link).await;
        file.check_headers();
        let media_type = match link.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("png") => "image/png",
            Some("json") => "application/json",
            other => panic!("{other:?}"),
        };
        assert_eq!((file.status, file.header("content-type")), (200, Some(media_type)), "{link}");
        assert!(file.body.len() > 100, "{link}");
    }
}

#[tokio::test]
async fn the_browser_is_told_to_load_nothing_from_elsewhere() {
    let system = System::start().await;
    for path in ["/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js"] {
        let answer = system.get(path).await;
        let policy = answer.header("content-security-policy").expect(path);
        let (first, rest) = policy.split_once("; ").expect("several rules");
        assert_eq!(first, "default-src 'none'", "{path}");
        for source in rest.split([' ', ';']).filter(|word| word.contains([':', '.', '\''])) {
            assert!(["'self'", "'none'", "data:"].contains(&source), "{path}: {source}");
        }
    }
}

#[tokio::test]
async fn other_files_are_unknown() {
    let system = System::start().await;
    for path in ["/docs/", "/docs/nothing.js", "/docs/..", "/docs/..%2Findex.html", "/docs/index.html", "/docs/a/b"] {
        system.get(path).await.problem(Reason::RouteNotFound);
    }
    system.get("/docs?x=1").await.problem(Reason::InvalidRequest);
    system.get("/docs/start.js?x=1").await.problem(Reason::InvalidRequest);
}
