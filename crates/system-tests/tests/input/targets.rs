//! Paths, queries and headers.

use system_tests::raw;

use crate::{ID, ORDER, Target};

#[tokio::test]
async fn a_malformed_or_misleading_path_is_refused() {
    let target = Target::start().await;
    let restock = format!(r#"{{"id":"{ID}","quantity":1}}"#);
    for (item, parameter) in [
        ("%", "path"),
        ("%4", "path"),
        ("%zz", "path"),
        ("widget%", "path"),
        ("%ff", "path"),
        ("%c0%af", "path"),
        ("%ed%a0%80", "path"),
        (".", "item"),
        ("..", "item"),
        ("%2e%2e", "item"),
        ("%20widget", "item"),
        ("widget%20", "item"),
        ("%7Bwidget%7D", "item"),
        ("widget%00", "item"),
        ("widget%0d%0a", "item"),
        ("wid%e2%80%aeteg", "item"),
        ("%ef%bb%bfwidget", "item"),
    ] {
        let path = format!("/inventory/{item}/restocks");
        let problem = target.refuses(&raw::post_json(&path, restock.as_bytes()), 400, "INVALID_REQUEST").await;
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{path}: {problem}");
        let get = format!("GET /inventory/{item} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let problem = target.refuses(get.as_bytes(), 400, "INVALID_REQUEST").await;
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{get}: {problem}");
    }
    for path in
        ["//orders", "/orders/", "/./orders", "/../orders", "/orders%2f", "/ORDERS", "/orders;x=1", "/orders%00"]
    {
        target.refuses(&raw::post_json(path, ORDER.as_bytes()), 404, "ROUTE_NOT_FOUND").await;
    }
    target.still_sells().await;
}

#[tokio::test]
async fn a_query_that_means_nothing_here_is_refused() {
    let target = Target::start().await;
    for (path, parameter) in [
        ("/orders?dry_run=true", "dry_run"),
        ("/reserve?x", "x"),
        ("/inventory/widget/restocks?quantity=1", "quantity"),
    ] {
        let bytes = raw::post_json(path, if path.contains("restocks") { b"{}" } else { ORDER.as_bytes() });
        let problem = target.refuses(&bytes, 400, "INVALID_REQUEST").await;
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{problem}");
    }
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.0", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=1&limit=1", "limit"),
        ("item=%7B", "item"),
        ("item=%ff", "item"),
        ("item=..", "item"),
        ("page_token=x", "page_token"),
        ("page_token=1.x", "page_token"),
        ("page_token=99999999999999999999.7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e", "page_token"),
        ("page_token='%20OR%201=1", "page_token"),
        ("offset=1", "offset"),
    ] {
        let get = format!("GET /orders?{query} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let problem = target.refuses(get.as_bytes(), 400, "INVALID_REQUEST").await;
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{query}: {problem}");
    }
    target.still_sells().await;
}

#[tokio::test]
async fn a_malformed_key_is_refused() {
    let target = Target::start().await;
    let long = "k".repeat(256);
    for keys in [
        &[""][..],
        &["\"\""],
        &["\"k"],
        &["\"k\"x"],
        &["\"k\";a=1"],
        &["\"k\\n\""],
        &["k\tk"],
        &["k\u{e9}"],
        &[&long],
        &["k", "k"],
        &["k", ""],
    ] {
        let keys = keys.iter().map(|key| format!("Idempotency-Key: {key}\r\n")).collect::<Vec<_>>().concat();
        let lines = format!("{keys}Content-Type: application/json\r\nContent-Length: {}\r\n", ORDER.len());
        let problem = target.refuses(&raw::post("/orders", &lines, ORDER.as_bytes()), 400, "INVALID_REQUEST").await;
        assert_eq!(problem["errors"][0]["header"], "Idempotency-Key", "{keys}: {problem}");
    }
    target.still_sells().await;
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let target = Target::start().await;
    let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", ORDER.len());
    let large = format!("{length}X: {}\r\n", "x".repeat(64 * 1024));
    let many = (0..200).map(|n| format!("X-{n}: x\r\n")).collect::<Vec<_>>().concat();
    for lines in [
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 30\r\nContent-Length: 31\r\n",
        "Content-Length: 1, 30\r\n",
        "Content Length: 30\r\n",
        " : x\r\n",
        "X\0: x\r\n",
        "X: \0\r\n",
        "no colon\r\n",
        &large,
        &format!("{length}{many}"),
    ] {
        target.rejects(&raw::post("/orders", lines, ORDER.as_bytes())).await;
    }
    for bytes in [
        b"\r\n\r\n\r\n\0".as_slice(),
        b"GET\r\n\r\n",
        b"POST /orders\r\n\r\n",
        b"POST /orders HTTP/9.9\r\n\r\n",
        b"POST  /orders HTTP/1.1\r\n\r\n",
        b"P\xffST /orders HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, but long enough for one",
    ] {
        target.rejects_or_closes(bytes).await;
    }
    target.still_sells().await;
}
