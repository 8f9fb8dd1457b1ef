//! `/openapi.json`: that it is what the routes say, and that they do what it says.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::support::{
    System,
    client::Answer,
    peers::{Behaviour, ORDER_ID, RESERVATION_ID},
};

const COMMITTED: &str = include_str!("../../openapi.json");

fn document() -> Value {
    serde_json::from_str(COMMITTED).expect("JSON")
}

/// What a reference leads to; what is none is itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.trim_start_matches('#')).unwrap_or_else(|| panic!("{pointer}")),
        None => value,
    }
}

#[test]
fn the_committed_document_is_the_one_that_the_command_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_edge")).env_clear().arg("openapi").output().expect("it runs");
    assert!(printed.status.success());
    assert!(printed.stdout == COMMITTED.as_bytes(), "edge/openapi.json has drifted: `just openapi-write` mends it");
}

#[tokio::test]
async fn the_committed_document_is_served() {
    let system = System::start().await;
    let answer = system.get("/openapi.json").await;
    answer.check_headers();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert!(answer.body == COMMITTED.as_bytes());
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(pointer) = members.get("$ref") {
                    found.insert(pointer.as_str().expect("text").to_owned());
                }
                members.values().for_each(|member| walk(member, found));
            }
            Value::Array(elements) => elements.iter().for_each(|element| walk(element, found)),
            _ => {}
        }
    }
    let document = document();
    let mut used = BTreeSet::new();
    walk(&document, &mut used);
    let kinds = document["components"].as_object().expect("an object").iter();
    let there = kinds.flat_map(|(kind, components)| {
        components.as_object().expect("an object").keys().map(move |name| format!("#/components/{kind}/{name}"))
    });
    assert_eq!(used, there.collect(), "the references (left) and the components (right)");
}

/// What an answer has that its description does not speak of, and the other way round.
fn differences(document: &Value, id: &str, answer: &Answer) -> Vec<String> {
    let mut differences = Vec::new();
    let paths = document["paths"].as_object().expect("an object").values();
    let operation =
        paths.flat_map(|path| path.as_object().expect("an object").values()).find(|o| o["operationId"] == id);
    let operation = operation.unwrap_or_else(|| panic!("{id} is not documented"));
    let Some(response) = operation["responses"].get(answer.status.to_string()) else {
        return vec![format!("{id}: {} is not documented", answer.status)];
    };
    let response = resolve(document, response);

    let headers = response["headers"].as_object().expect("an object");
    for (name, header) in headers {
        let required = resolve(document, header)["required"] == true;
        if required && answer.header(&name.to_ascii_lowercase()).is_none() {
            differences.push(format!("{id}: {name} is missing"));
        }
    }
    // Those of HTTP itself are not documented.
    let own = ["content-type", "content-length", "date"];
    let names = answer.headers.iter().map(|(name, _)| name).filter(|name| !own.contains(&name.as_str()));
    let known = |name: &str| headers.keys().any(|header| header.eq_ignore_ascii_case(name));
    differences.extend(names.filter(|name| !known(name)).map(|name| format!("{id}: {name} is not documented")));

    let media_type = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let Some(content) = response["content"].get(media_type) else {
        if !answer.body.is_empty() || response.get("content").is_some() {
            differences.push(format!("{id}: {media_type:?} is not documented"));
        }
        return differences;
    };
    if media_type == "application/json" && id != "getOpenApi" {
        let schema = resolve(document, &content["schema"]);
        let one_of = schema["oneOf"].as_array().map_or(vec![schema], |schemas| schemas.iter().collect());
        let members: BTreeSet<_> = answer.json().as_object().expect("an object").keys().cloned().collect();
        let fits = |schema: &&Value| {
            let properties = resolve(document, schema)["properties"].as_object().expect("an object");
            properties.keys().cloned().collect::<BTreeSet<_>>() == members
        };
        if !one_of.iter().any(fits) {
            differences.push(format!("{id}: {members:?} is not what is documented"));
        }
    }
    differences
}

#[tokio::test]
async fn every_operation_answers_what_is_documented() {
    let (system, document) = (System::start().await, document());
    let order = r#"{"item":"widget","quantity":1}"#;
    let restock = format!(r#"{{"id":"{RESERVATION_ID}","quantity":1}}"#);
    let mut answers = vec![
        ("createOrder", system.post("/orders", order).await),
        ("createOrder", system.post("/orders", "{}").await),
        ("createOrder", system.post("/orders", &"x".repeat(20_000)).await),
        ("listOrders", system.get("/orders").await),
        ("getOrder", system.get(&format!("/orders/{ORDER_ID}")).await),
        ("getOrder", system.get("/orders/7").await),
        ("reserve", system.post("/reserve", order).await),
        ("releaseReservation", system.delete(&format!("/reservations/{RESERVATION_ID}")).await),
        ("releaseReservation", system.delete("/reservations/7").await),
        ("getStock", system.get("/inventory/widget").await),
        ("getStock", system.get("/inventory/%zz").await),
        ("restock", system.post("/inventory/widget/restocks", &restock).await),
        ("restock", system.delete("/inventory/widget/restocks").await),
        ("isAlive", system.get("/healthz").await),
        ("isReady", system.get("/readyz").await),
        ("getOpenApi", system.get("/openapi.json").await),
        ("getDocs", system.get("/docs").await),
        ("getDocsFile", system.get("/docs/swagger-ui.css").await),
        ("getDocsFile", system.get("/docs/nothing").await),
        ("listProblems", system.get("/problems").await),
        ("getProblem", system.get("/problems/INTERNAL").await),
        ("getProblem", system.get("/problems/NOTHING").await),
    ];
    let html = "Host: edge\r\nAccept: text/html\r\n\r\n";
    answers.push(("listProblems", system.send(format!("GET /problems HTTP/1.1\r\n{html}")).await));
    system.peers.behave(Behaviour::Replay);
    answers.push(("createOrder", system.post("/orders", order).await));
    system.peers.behave(Behaviour::Insufficient(3));
    answers.push(("reserve", system.post("/reserve", order).await));
    system.peers.behave(Behaviour::Empty);
    answers.push(("getOrder", system.get(&format!("/orders/{ORDER_ID}")).await));
    system.health.say("orders.v1.OrderService", false);
    answers.push(("isReady", system.get("/readyz").await));

    let differences: Vec<_> = answers.iter().flat_map(|(id, answer)| differences(&document, id, answer)).collect();
    assert!(differences.is_empty(), "{differences:#?}");
    let paths = document["paths"].as_object().expect("an object").values();
    let operations = paths.flat_map(|path| path.as_object().expect("an object").values());
    let all: BTreeSet<_> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
    assert_eq!(answers.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), all, "those tried here and all of them");
}
