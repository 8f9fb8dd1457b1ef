//! Bodies.

use serde_json::json;
use system_tests::raw;

use crate::{ID, ORDER, Target};

const PATHS: [&str; 3] = ["/orders", "/reserve", "/inventory/widget/restocks"];

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let target = Target::start().await;
    let array_bomb = "[".repeat(10_000);
    let object_bomb = r#"{"a":"#.repeat(3_000);
    let inner_bomb = format!(r#"{{"item":{}"#, "[".repeat(10_000));
    let closed_bomb = format!(r#"{{"item":{}{},"quantity":1}}"#, "[".repeat(7_000), "]".repeat(7_000));
    let in_array = format!("[{ORDER}]");
    let in_text = json!(ORDER).to_string();
    let twice = format!("{ORDER}{ORDER}");
    let lines = format!("{ORDER}\n{ORDER}\n");
    let bom = format!("\u{feff}{ORDER}");
    let utf16: Vec<u8> = ORDER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [
        b"".as_slice(),
        b" \r\n",
        b"null",
        b"true",
        b"1",
        b"[]",
        b"[\"widget\",1]",
        in_array.as_bytes(),
        in_text.as_bytes(),
        twice.as_bytes(),
        lines.as_bytes(),
        bom.as_bytes(),
        &utf16,
        b"{",
        b"{\"item\":\"widget\",\"quantity\":1",
        b"{\"item\":\"widget\",\"quantity\":1,}",
        b"{item:\"widget\",\"quantity\":1}",
        b"{'item':'widget','quantity':1}",
        b"{\"item\":\"widget\",\"quantity\":1}\0",
        b"{\"item\":\"widget\",\"quantity\":01}",
        b"{\"item\":\"widget\",\"quantity\":+1}",
        b"{\"item\":\"widget\",\"quantity\":0x1}",
        b"{\"item\":\"widget\",\"quantity\":NaN}",
        b"{\"item\":\"widget\",\"quantity\":Infinity}",
        b"{\"item\":\"wid\xffget\",\"quantity\":1}",
        b"{\"item\":\"wid\xc0\xafget\",\"quantity\":1}",
        b"{\"item\":\"wid\xed\xa0\x80get\",\"quantity\":1}",
        b"{\"item\":\"wid\\ud800get\",\"quantity\":1}",
        b"{\"item\":\"wid\nget\",\"quantity\":1}",
        b"item=widget&quantity=1",
        array_bomb.as_bytes(),
        object_bomb.as_bytes(),
        inner_bomb.as_bytes(),
        closed_bomb.as_bytes(),
    ] {
        for path in PATHS {
            target.refuses_body(path, body, "").await;
        }
    }
    target.still_sells().await;
}

#[tokio::test]
async fn a_quantity_that_is_no_integer_in_range_is_refused() {
    let target = Target::start().await;
    for quantity in [
        "0",
        "-0",
        "-1",
        "1000001",
        "2147483648",
        "4294967297",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551617",
        "99999999999999999999999999",
        "1.0",
        "0.5",
        "1e0",
        "1E2",
        "1e-1",
        "1e300",
        "\"1\"",
        "\"\"",
        "true",
        "null",
        "[1]",
        "[]",
        "{}",
    ] {
        let order = format!(r#"{{"item":"widget","quantity":{quantity}}}"#);
        target.refuses_body("/orders", order.as_bytes(), "/quantity").await;
        target.refuses_body("/reserve", order.as_bytes(), "/quantity").await;
        let restock = format!(r#"{{"id":"{ID}","quantity":{quantity}}}"#);
        target.refuses_body("/inventory/widget/restocks", restock.as_bytes(), "/quantity").await;
    }
    for ttl in ["0", "-1", "86401", "1.0", "1e1", "\"60\"", "null", "99999999999999999999"] {
        let body = format!(r#"{{"item":"widget","quantity":1,"ttl_seconds":{ttl}}}"#);
        target.refuses_body("/reserve", body.as_bytes(), "/ttl_seconds").await;
    }
    target.still_sells().await;
}

#[tokio::test]
async fn an_item_that_could_mislead_is_refused() {
    let target = Target::start().await;
    let (long, wide) = ("w".repeat(129), "\u{20ac}".repeat(86));
    let items = [
        "",
        " ",
        " widget",
        "widget ",
        "widget\u{a0}",
        "widget\u{3000}",
        ".",
        "..",
        "{widget}",
        "wid{get",
        "wid}get",
        "widget\u{0}",
        "wid\tget",
        "wid\nget",
        "widget\r\n",
        "wid\u{7f}get",
        "wid\u{85}get",
        "wid\u{ad}get",
        "wid\u{200b}get",
        "wid\u{200d}get",
        "wid\u{200e}get",
        "wid\u{202e}teg",
        "wid\u{2066}get",
        "wid\u{61c}get",
        "wid\u{2028}get",
        "wid\u{2029}get",
        "\u{feff}widget",
        "wid\u{fff9}get",
        "wid\u{e0041}get",
        "wid\u{ffff}get",
        &long,
        &wide,
    ];
    for item in items {
        for name in ["item", "item_id"] {
            // Escaped or as it is: the same.
            let body = json!({ name: item, "quantity": 1 }).to_string();
            let pointer = format!("/{name}");
            target.refuses_body("/orders", body.as_bytes(), &pointer).await;
            target.refuses_body("/reserve", escaped(&body).as_bytes(), &pointer).await;
        }
    }
    for item in ["null", "true", "7", "[\"widget\"]", "{\"widget\":1}"] {
        let body = format!(r#"{{"item":{item},"quantity":1}}"#);
        target.refuses_body("/orders", body.as_bytes(), "/item").await;
    }
    target.still_sells().await;
}

/// JSON in ASCII.
fn escaped(json: &str) -> String {
    let escape = |unit: &u16| format!("\\u{unit:04x}");
    let mut text = String::new();
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            text.extend(c.encode_utf16(&mut [0; 2]).iter().map(escape));
        }
    }
    text
}

#[tokio::test]
async fn members_that_are_missing_repeated_or_unknown_are_refused() {
    let target = Target::start().await;
    for (body, pointer) in [
        (r#"{"quantity":1}"#, "/item"),
        (r#"{"item":"widget"}"#, "/quantity"),
        (r#"{"item":"widget","item":"widget","quantity":1}"#, "/item"),
        (r#"{"item":"widget","it\u0065m":"widget","quantity":1}"#, "/item"),
        (r#"{"item":"widget","quantity":1,"quantity":1}"#, "/quantity"),
        (r#"{"item":"widget","quantity":1,"quantity":2}"#, "/quantity"),
        (r#"{"item":"widget","item_id":"widget","quantity":1}"#, "/item_id"),
        (r#"{"item_id":"widget","item":"gadget","quantity":1}"#, "/item_id"),
        (r#"{"item":"widget","quantity":1,"Item":"widget"}"#, "/Item"),
        (r#"{"item":"widget","quantity":1,"":1}"#, "/"),
        (r#"{"item":"widget","quantity":1,"a/b~c":1}"#, "/a~1b~0c"),
        (r#"{"item":"widget","quantity":1,"price":0}"#, "/price"),
        (r#"{"item":"widget","quantity":1,"id":"7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e"}"#, "/id"),
        (r#"{"item":"widget","quantity":1,"idempotency_key":"k"}"#, "/idempotency_key"),
        (r#"{"item":"widget","quantity":1,"__proto__":{}}"#, "/__proto__"),
        (r#"{"item":"widget","quantity":1,"reservation_id":null}"#, "/reservation_id"),
        (r#"{"item":"widget","quantity":1,"reservation_id":7}"#, "/reservation_id"),
        (r#"{"item":"widget","quantity":1,"reservation_id":""}"#, "/reservation_id"),
        (
            r#"{"item":"widget","quantity":1,"reservation_id":"{7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e}"}"#,
            "/reservation_id",
        ),
        (r#"{"item":"widget","quantity":1,"reservation_id":"7b1c5f6e2f6b4d0b9d560f3a1c2b4d5e"}"#, "/reservation_id"),
        (
            r#"{"item":"widget","quantity":1,"reservation_id":"00000000-0000-0000-0000-000000000000"}"#,
            "/reservation_id",
        ),
        // Of the kind that the order service derives: nobody may bring one.
        (
            r#"{"item":"widget","quantity":1,"reservation_id":"7b1c5f6e-2f6b-8d0b-9d56-0f3a1c2b4d5e"}"#,
            "/reservation_id",
        ),
    ] {
        target.refuses_body("/orders", body.as_bytes(), pointer).await;
        target.refuses_body("/reserve", body.as_bytes(), pointer).await;
    }
    let restocks = "/inventory/widget/restocks";
    for (body, pointer) in [
        (r#"{"quantity":1}"#, "/id"),
        (r#"{"id":"x","quantity":1}"#, "/id"),
        (r#"{"id":7,"quantity":1}"#, "/id"),
        (r#"{"id":"7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e"}"#, "/quantity"),
        (r#"{"id":"7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e","quantity":1,"item":"widget"}"#, "/item"),
    ] {
        target.refuses_body(restocks, body.as_bytes(), pointer).await;
    }
    // All that is wrong is said at once.
    let many = raw::post_json("/orders", br#"{"item":"","quantity":0,"x":1,"reservation_id":"x"}"#);
    let problem = target.refuses(&many, 400, "INVALID_REQUEST").await;
    let errors = problem["errors"].as_array().expect("a list");
    let pointers: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().expect("text")).collect();
    assert_eq!(pointers, ["/item", "/quantity", "/reservation_id", "/x"]);
    target.still_sells().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let target = Target::start().await;
    for bytes in [16_385, 100_000, 900_000] {
        let mut body = ORDER.as_bytes().to_vec();
        body.resize(bytes, b' ');
        for path in PATHS {
            target.refuses(&raw::post_json(path, &body), 413, "BODY_TOO_LARGE").await;
        }
        target.refuses(&raw::post_chunked("/orders", &body, 1_000), 413, "BODY_TOO_LARGE").await;
        target.refuses(&raw::post_chunked("/orders", &body, bytes), 413, "BODY_TOO_LARGE").await;
    }
    let lines = "Content-Type: application/json\r\nContent-Length: 99999999999\r\n";
    let expect = format!("{lines}Expect: 100-continue\r\n");
    target.refuses(&raw::post("/orders", &expect, b""), 413, "BODY_TOO_LARGE").await;
    let mut largest = ORDER.as_bytes().to_vec();
    largest.resize(16_384, b' ');
    let addr = target.system.addr("HTTP");
    assert_eq!(raw::send(addr, &raw::post_json("/orders", &largest)).await.status, 201);
    assert_eq!(raw::send(addr, &raw::post_chunked("/orders", &largest, 1)).await.status, 201);
    target.still_sells().await;
}

#[tokio::test]
async fn a_body_that_is_not_said_to_be_json_is_refused() {
    let target = Target::start().await;
    for kind in [
        "",
        "Content-Type: \r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/json\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/problem+json\r\n",
        "Content-Type: application/jsonp\r\n",
        "Content-Type: application/json, text/plain\r\n",
        "Content-Type: application/json\r\nContent-Type: application/json\r\n",
        "Content-Type: \u{ff}\r\n",
    ] {
        let lines = format!("{kind}Content-Length: {}\r\n", ORDER.len());
        for path in PATHS {
            target.refuses(&raw::post(path, &lines, ORDER.as_bytes()), 415, "UNSUPPORTED_MEDIA_TYPE").await;
        }
    }
    target.still_sells().await;
}
