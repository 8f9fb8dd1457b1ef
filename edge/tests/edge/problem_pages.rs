//! The page behind each problem's `type`, for programs and for people.

use contracts::{Failure, Reason};
use serde_json::json;

use crate::{
    docs::links,
    support::{System, client::Answer, peers::Behaviour},
};

async fn get(system: &System, path: &str, accept: &str) -> Answer {
    system.send(format!("GET {path} HTTP/1.1\r\nHost: edge\r\nAccept: {accept}\r\n\r\n")).await
}

#[tokio::test]
async fn the_type_of_every_problem_leads_to_its_page() {
    let system = System::start().await;
    for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::MethodNotAllowed) {
        system.peers.behave(Behaviour::Fail(Failure::of(*reason)));
        let problem = system.post("/orders", r#"{"item":"widget","quantity":1}"#).await.problem(*reason);
        let page = system.get(problem["type"].as_str().expect("text")).await;
        assert_eq!((page.status, &page.json()["reason"]), (200, &problem["reason"]));
    }
}

#[tokio::test]
async fn every_reason_has_a_complete_page_in_json() {
    let system = System::start().await;
    let mut pages = Vec::new();
    for reason in Reason::ALL {
        let answer = system.get(&format!("/problems/{}", reason.name())).await;
        answer.check_headers();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        assert_eq!((answer.header("vary"), answer.header("content-security-policy")), (Some("Accept"), None));
        assert_eq!(
            answer.json(),
            json!({
                "type": format!("/problems/{}", reason.name()),
                "reason": reason.name(),
                "title": reason.title(),
                "status": reason.http_status(),
                "grpc_code": reason.code_name(),
                "meaning": reason.meaning(),
                "retry": reason.retry().advice(),
                "remedy": reason.remedy(),
            })
        );
        pages.push(answer.json());
    }
    assert_eq!(system.get("/problems").await.json(), json!({ "problems": pages }));
    for name in ["NONSENSE", "internal", "%49NTERNA"] {
        system.get(&format!("/problems/{name}")).await.problem(Reason::RouteNotFound);
    }
}

#[tokio::test]
async fn every_reason_has_a_complete_page_in_html() {
    let system = System::start().await;
    let list = String::from_utf8(get(&system, "/problems", "text/html").await.body).expect("text");
    for reason in Reason::ALL {
        let path = format!("/problems/{}", reason.name());
        assert!(links(&list).contains(&&*path), "{list}");
        let answer = get(&system, &path, "text/html").await;
        answer.check_headers();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert_eq!(answer.header("vary"), Some("Accept"));
        assert!(answer.header("content-security-policy").expect("one").starts_with("default-src 'none'; "));
        // Code is marked.
        let page = String::from_utf8(answer.body).expect("text").replace("<code>", "`").replace("</code>", "`");
        let status = reason.http_status().to_string();
        for text in [
            reason.name(),
            reason.title(),
            &status,
            &reason.code_name(),
            reason.meaning(),
            reason.retry().advice(),
            reason.remedy(),
        ] {
            let escaped = text.replace('&', "&amp;").replace('\'', "&#39;").replace('<', "&lt;").replace('"', "&quot;");
            assert!(page.contains(&escaped), "{escaped}: {page}");
        }
        assert!(!page.contains("<script") && !page.contains("://"), "{page}");
        for link in links(&page) {
            assert_eq!(get(&system, link, "*/*").await.status, 200, "{link}");
        }
    }
}

#[tokio::test]
async fn people_get_html_and_programs_json() {
    let system = System::start().await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
    for path in ["/problems", "/problems/INTERNAL"] {
        for accept in [browser, "text/html", "TEXT/HTML", "text/*", "application/json;q=0.5, text/html;level=1;q=0.6"] {
            let media_type = get(&system, path, accept).await.header("content-type").map(str::to_owned);
            assert_eq!(media_type.as_deref(), Some("text/html; charset=utf-8"), "{accept}");
        }
        for accept in [
            "*/*",
            "",
            "application/json",
            "application/json, text/html",
            "text/html;q=0.5, application/json",
            "text/html;q=0, */*",
            "text/html;q=0",
            "text/html;q=nonsense",
            "text/html;q=7, */*;q=0.1",
            "text/*;q=0.4, text/html;q=0.1, */*;q=0.2",
            "application/problem+json",
            "image/png",
        ] {
            let media_type = get(&system, path, accept).await.header("content-type").map(str::to_owned);
            assert_eq!(media_type.as_deref(), Some("application/json"), "{accept}");
        }
        assert_eq!(system.get(path).await.header("content-type"), Some("application/json"));
    }
}
