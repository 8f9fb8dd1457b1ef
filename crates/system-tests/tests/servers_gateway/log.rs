//! The access log: one JSON object a line, whatever the client sends.

use serde_json::{Value, json};
use system_tests::{gateway::Gateway, raw};

use crate::{
    request,
    stand_in::{Act, StandIn},
};

#[tokio::test]
async fn every_request_is_a_line_of_json_with_what_became_of_it() {
    let edge = StandIn::start(Act::Answers).await;
    let gateway = Gateway::start(&[edge.addr]).await;
    let by_edge = edge.addr.to_string();
    let cases: [(&str, Vec<u8>, Value); 9] = [
        (
            "an answer of the edge",
            raw::post("/orders?x=1", "X-Request-Id: req-7\r\nContent-Length: 0\r\n", b""),
            json!({ "method": "POST", "uri": "/orders?x=1", "status": 200, "bytes": 2, "request_id": "req-7",
                    "client": "127.0.0.1", "upstream": by_edge, "upstream_status": "200" }),
        ),
        (
            "quotes and backslashes",
            request("GET", b"/\"\\\\\",\"status\":\"200\xe2\x80\xa8", ""),
            json!({ "uri": "(not ASCII)", "status": 200 }),
        ),
        ("quotes", request("GET", b"/\"\\n\\\"}", ""), json!({ "uri": "/\"\\n\\\"}", "status": 200 })),
        ("no UTF-8", request("GET", b"/\xff\xfe\xc0", ""), json!({ "uri": "(not ASCII)", "status": 200 })),
        ("a hostile id", request("GET", b"/", "X-Request-Id: \"},{\u{ff}\r\n"), json!({ "uri": "/", "status": 200 })),
        (
            "refused here",
            request("DELETE", b"/inventory/x", ""),
            json!({ "method": "DELETE", "uri": "/inventory/x", "status": 405, "upstream": "", "upstream_status": "" }),
        ),
        ("no path", request("GET", b"/\x01\"", ""), json!({ "status": 400, "upstream": "" })),
        ("no request", b"\"\\\xff\r\n\r\n".to_vec(), json!({ "method": "", "uri": "", "status": 400, "upstream": "" })),
        ("no version", b"GET /\r\n".to_vec(), json!({ "method": "GET", "uri": "/", "status": 200 })),
    ];
    for (number, (what, bytes, expected)) in cases.into_iter().enumerate() {
        let mut stream = raw::connect(gateway.addr()).await;
        raw::write(&mut stream, &bytes).await;
        stream.readable().await.expect("it answers");
        // It would wait for more of what it has refused, and log the request then.
        drop(stream);
        let lines = gateway.access_log(number + 1).await;
        assert_eq!(lines.len(), number + 1, "{what}: {lines:?}");
        let line = &lines[number];
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&line[name], value, "{what}, {name}: {line}");
        }
        assert!(line["seconds"].is_number() && line["time"].as_str().is_some_and(|time| time.len() == 25), "{line}");
        assert_eq!(line["attempt_id"].as_str().map(str::len), Some(32), "{line}");
    }
}
