//! Orders over HTTP, against the running all-in-one: nothing is oversold, one key is one order, and the answers are those
//! that the README promises.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use contracts::orders::v1::{GetStockRequest, ItemStock, ledger_service_client::LedgerServiceClient};
use futures::{StreamExt, future::join_all, stream};
use http::Method;
use serde_json::{Value, json};
use system_tests::{
    Answer, Client, System,
    books::{Listed, all_orders, at_rest, orders_from, page, sold},
    holds::release,
};

/// More than it takes to publish and handle every event on a busy machine.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// A log line for each of tens of thousands of requests would take longer than the requests.
const QUIET: (&str, &str) = ("RUST_LOG", "warn");

fn order(item: &str, quantity: i64) -> Value {
    json!({ "item": item, "quantity": quantity })
}

/// Units that are left, as a refused order says it.
#[track_caller]
fn remaining(refused: &Answer) -> i64 {
    let body = refused.problem(409, "INSUFFICIENT_STOCK");
    assert_eq!(body["error"], "insufficient_stock");
    body["remaining"].as_i64().expect("a number")
}

#[tokio::test]
async fn a_thousand_parallel_orders_on_a_stock_of_a_hundred_sell_exactly_a_hundred() {
    let system = System::start(&[("DEFAULT_STOCK", "100"), QUIET]).await;
    let items = ["plain-1", "keyed-1", "plain-2", "keyed-2", "plain-3"];
    for item in items {
        let posts = (0..1_000).map(|n| {
            let http = system.http.clone();
            tokio::spawn(async move {
                if item.starts_with("keyed") {
                    http.post_with_key("/orders", &format!("{item}-{n}"), &order(item, 1)).await
                } else {
                    http.post("/orders", &order(item, 1)).await
                }
            })
        });
        // All are under way before the first is waited for.
        let posts: Vec<_> = posts.collect();
        let answers = join_all(posts).await.into_iter().map(|answer| answer.expect("no panic"));
        let (created, refused): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.status == 201);
        assert_eq!((created.len(), refused.len()), (100, 900), "{item}: {:?}", refused.first());
        assert!(refused.iter().all(|answer| remaining(answer) == 0));
        assert_eq!(system.http.stock(item).await, 0);

        let listed = all_orders(&system.http, &format!("&limit=500&item={item}")).await;
        assert_eq!(sold(&listed)[item], 100);
        let answered: BTreeSet<_> = created.iter().map(Answer::id).collect();
        assert_eq!(answered, listed.into_iter().map(|order| order.id).collect(), "the orders are those answered");
    }
    at_rest(&system, &items.map(|item| (item, 100)), REST_LIMIT).await;
    assert_eq!(system.count("orders_processed_total").await, 500);
}

/// The first of them open the item while the others come.
#[tokio::test]
async fn a_crowd_on_an_item_that_was_never_sold_is_served() {
    const ORDERS: usize = 1_500;
    let system = System::start(&[("DEFAULT_STOCK", "1500")]).await;
    let one = order("widget", 1);
    let posts = (0..ORDERS).map(|_| system.http.post("/orders", &one));
    for answer in join_all(posts).await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(system.http.stock("widget").await, 0);
}

#[tokio::test]
async fn parallel_orders_of_many_sizes_sell_what_there_is_and_no_more() {
    let system = System::start(&[("DEFAULT_STOCK", "100"), QUIET]).await;
    let posts = (0..200).map(|n| {
        let http = system.http.clone();
        let quantity = 1 + n % 13;
        async move { (quantity, http.post("/orders", &order("widget", quantity)).await) }
    });
    let answers = join_all(posts).await;
    for (quantity, refused) in answers.iter().filter(|(_, answer)| answer.status != 201) {
        assert!(remaining(refused) < *quantity, "{refused:?}");
    }
    let created: i64 = answers.iter().filter(|(_, answer)| answer.status == 201).map(|(quantity, _)| quantity).sum();
    let left = system.http.stock("widget").await;
    assert_eq!(left, 100 - created);
    assert!(left < 13, "every size was refused at least once, so fewer than the largest are left");
    at_rest(&system, &[("widget", 100)], REST_LIMIT).await;
}

#[tokio::test]
async fn fifty_concurrent_posts_with_one_key_are_one_order() {
    const KEYS: usize = 1_000;
    const KEYS_AT_ONCE: usize = 4;
    let system = System::start(&[("DEFAULT_STOCK", "100000"), QUIET]).await;
    let http = &system.http;
    let one_key = async |n: usize| {
        let key = format!("key-{n}");
        let body = order("widget", 1);
        let posts: Vec<_> = (0..50)
            .map(|_| {
                let (http, key, body) = (http.clone(), key.clone(), body.clone());
                tokio::spawn(async move { http.post_with_key("/orders", &key, &body).await })
            })
            .collect();
        let answers: Vec<_> = join_all(posts).await.into_iter().map(|answer| answer.expect("no panic")).collect();
        let id = answers[0].id();
        for answer in &answers {
            assert_eq!(answer.status, 201, "{answer:?}");
            assert_eq!(answer.body, answers[0].body, "the same body");
            assert_eq!(answer.header("location"), format!("/orders/{id}"));
        }
        let first = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
        assert_eq!(first, 1, "one of them has placed the order, the others repeat its answer");
        id
    };
    let ids: HashSet<String> = stream::iter(0..KEYS).map(one_key).buffer_unordered(KEYS_AT_ONCE).collect().await;
    assert_eq!(ids.len(), KEYS);
    assert_eq!(all_orders(http, "&limit=500").await.len(), KEYS);
    assert_eq!(http.stock("widget").await, 99_000);
    at_rest(&system, &[("widget", 100_000)], REST_LIMIT).await;
    assert_eq!(system.count("orders_created_total").await, 1_000);
    assert_eq!(system.count("orders_processed_total").await, 1_000);
}

#[tokio::test]
async fn an_order_is_answered_read_and_listed_alike() {
    let system = System::start(&[]).await;
    let http = &system.http;
    let created = http.post("/orders", &order("café 7/8", 2)).await;
    assert_eq!((created.status.as_u16(), created.header("content-type")), (201, "application/json"));
    let body = created.json();
    assert_eq!(created.members(), ["created_at", "id", "item", "quantity", "status"]);
    assert_eq!((&body["item"], &body["quantity"]), (&json!("café 7/8"), &json!(2)));
    let id = created.id();
    assert_eq!(created.header("location"), format!("/orders/{id}"));
    assert_eq!(created.header("idempotent-replayed"), "");

    for id in [id.clone(), id.to_uppercase()] {
        let read = http.get(&format!("/orders/{id}")).await;
        assert_eq!((read.status.as_u16(), read.json()), (200, body.clone()));
    }
    let page = http.get("/orders?item=caf%C3%A9+7%2F8&limit=1").await;
    assert_eq!(page.json(), json!({ "orders": [body], "next_page_token": "" }));
    for unknown in ["7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e", "nonsense", &id[1..], "%20"] {
        http.get(&format!("/orders/{unknown}")).await.problem(404, "ORDER_NOT_FOUND");
    }

    // An item is compared in NFC, whichever way it is written, and has two names.
    let decomposed = http.post("/orders", &json!({ "item_id": "cafe\u{301} 7/8", "quantity": 1 })).await;
    assert_eq!((decomposed.status.as_u16(), &decomposed.json()["item"]), (201, &json!("café 7/8")));
    let stock = http.get("/inventory/cafe%CC%81%207%2F8").await;
    assert_eq!((stock.status.as_u16(), stock.json()), (200, json!({ "item": "café 7/8", "stock": 97 })));
    assert_eq!(remaining(&http.post("/orders", &order("café 7/8", 98)).await), 97);
    at_rest(&system, &[("café 7/8", 100)], REST_LIMIT).await;
}

#[tokio::test]
async fn a_key_repeats_its_order_and_refuses_another() {
    let system = System::start(&[]).await;
    let http = &system.http;
    let first = http.post_with_key("/orders", "k 1", &order("widget", 2)).await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""));
    for key in ["k 1", "\"k 1\""] {
        let again = http.post_with_key("/orders", key, &order("widget", 2)).await;
        assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (201, "true"));
        assert_eq!((again.json(), again.header("location")), (first.json(), first.header("location")));
    }
    for other in [order("widget", 3), order("gadget", 2)] {
        http.post_with_key("/orders", "k 1", &other).await.problem(422, "IDEMPOTENCY_KEY_REUSED");
    }
    // A refusal is not remembered: the key is free for an order that can be served.
    assert_eq!(remaining(&http.post_with_key("/orders", "k 2", &order("widget", 99)).await), 98);
    let restock = json!({ "id": "0e2f9a54-6f0c-4f7e-8a31-5f1f1f0f7c11", "quantity": 1 });
    assert_eq!(http.post("/inventory/widget/restocks", &restock).await.status, 200);
    assert_eq!(http.post_with_key("/orders", "k 2", &order("widget", 99)).await.status, 201);
    at_rest(&system, &[("widget", 101), ("gadget", 100)], REST_LIMIT).await;
    assert_eq!(system.count("orders_created_total").await, 2, "replays are no orders");
}

#[tokio::test]
async fn an_attempt_that_a_proxy_repeats_is_one_order() {
    let system = System::start(&[]).await;
    let headers = [("content-type", "application/json"), ("x-attempt-id", "a-1")];
    let body = order("widget", 2).to_string();
    let post = || system.http.send(Method::POST, "/orders", &headers, body.clone());
    let (first, again) = (post().await, post().await);
    assert_eq!((again.status.as_u16(), &again.body), (201, &first.body));
    assert_eq!(again.header("idempotent-replayed"), "", "the client sees one answer, which is the first");
    at_rest(&system, &[("widget", 100)], REST_LIMIT).await;
    assert_eq!(system.count("orders_created_total").await, 1);
}

/// Places `count` orders, some at a time.
async fn place(http: &Client, item: &str, count: usize) -> HashSet<String> {
    let post = async |_| http.post("/orders", &order(item, 1)).await.id();
    stream::iter(0..count).map(post).buffer_unordered(64).collect().await
}

/// Each once, newest first.
#[track_caller]
fn assert_walk(orders: &[Listed], expected: &HashSet<String>) {
    let ids: HashSet<_> = orders.iter().map(|order| order.id.clone()).collect();
    assert_eq!(ids.len(), orders.len(), "each once");
    assert_eq!(&ids, expected);
    assert!(orders.is_sorted_by(|a, b| (a.created_at, &a.id) >= (b.created_at, &b.id)), "newest first");
}

#[tokio::test]
async fn pages_visit_every_order_once_and_the_newest_first() {
    let system = System::start(&[("DEFAULT_STOCK", "10000"), QUIET]).await;
    let http = &system.http;
    let widgets = place(http, "widget", 900).await;
    let gadgets = place(http, "gadget", 300).await;
    let all: HashSet<_> = widgets.union(&gadgets).cloned().collect();
    assert_eq!(all.len(), 1_200);
    for limit in ["", "&limit=7", "&limit=400", "&limit=500"] {
        assert_walk(&all_orders(http, limit).await, &all);
    }
    assert_walk(&all_orders(http, "&limit=300&item=gadget").await, &gadgets);
    assert_eq!(all_orders(http, "&item=nothing").await, []);
    assert_eq!(http.get("/orders").await.json()["orders"].as_array().expect("a list").len(), 50);

    // Orders that come in meanwhile move nobody to another page.
    let (mut walk, token) = page(http, "", "&limit=100").await;
    place(http, "widget", 150).await;
    walk.extend(orders_from(http, &token, "&limit=500").await);
    assert_walk(&walk, &all);
}

const RESTOCK: &str = "7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e";
const OTHER_RESTOCK: &str = "2b8f6f0a-93c5-4b38-8a51-1de4c2c5a0f7";

#[tokio::test]
async fn a_restock_counts_once_and_outlives_the_process() {
    let mut system = System::start(&[]).await;
    let restock = json!({ "id": RESTOCK, "quantity": 10 });
    for path in ["/inventory/widget/restocks", "/inventory/never-sold/restocks"] {
        let restock = json!({ "id": if path.contains("never") { OTHER_RESTOCK } else { RESTOCK }, "quantity": 10 });
        let posts = (0..20).map(|_| system.http.post(path, &restock));
        for answer in join_all(posts).await {
            assert_eq!((answer.status.as_u16(), &answer.json()["stock"]), (200, &json!(110)), "{answer:?}");
            assert_eq!(answer.members(), ["item", "stock"]);
        }
    }
    for other in [json!({ "id": RESTOCK, "quantity": 11 }), json!({ "id": OTHER_RESTOCK, "quantity": 10 })] {
        system.http.post("/inventory/widget/restocks", &other).await.problem(409, "RESTOCK_MISMATCH");
    }
    assert_eq!(system.http.post("/orders", &order("widget", 110)).await.status, 201);
    system.kill().await;
    system.start_again().await;
    let again = system.http.post("/inventory/widget/restocks", &restock).await;
    assert_eq!((again.status.as_u16(), &again.json()["stock"]), (200, &json!(0)));
    at_rest(&system, &[("widget", 110), ("never-sold", 110)], REST_LIMIT).await;
}

#[tokio::test]
async fn reads_and_refusals_open_nothing() {
    let system = System::start(&[]).await;
    let http = &system.http;
    assert_eq!(http.stock("read").await, 100);
    assert_eq!(remaining(&http.post_with_key("/orders", "k", &order("refused", 101)).await), 100);
    assert_eq!(http.post("/reserve", &order("short", 101)).await.json()["success"], false);
    release(http, "11111111-1111-4111-8111-111111111111").await.problem(404, "RESERVATION_NOT_FOUND");
    let mut ledger = LedgerServiceClient::connect(system.url("order gRPC")).await.expect("it listens");
    let items = ["read", "refused", "short"].map(str::to_owned).to_vec();
    let stocks = ledger.get_stock(GetStockRequest { items, initial: 100 }).await.expect("answered").into_inner().stocks;
    let never_lent = ItemStock { epoch: 0, received: 100, sold: 0 };
    assert_eq!(stocks, vec![never_lent; 3]);
}

#[tokio::test]
async fn every_path_says_what_it_takes() {
    let system = System::start(&[]).await;
    let http = &system.http;
    for (path, allow) in [
        ("/orders", "GET,HEAD,POST"),
        ("/orders/x", "GET,HEAD"),
        ("/reserve", "POST"),
        ("/reservations/x", "DELETE"),
        ("/inventory/x", "GET,HEAD"),
        ("/inventory/x/restocks", "POST"),
        ("/healthz", "GET,HEAD"),
        ("/readyz", "GET,HEAD"),
    ] {
        let answer = http.send(Method::PATCH, path, &[], "").await;
        answer.problem(405, "METHOD_NOT_ALLOWED");
        let mut taken: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
        taken.sort_unstable();
        assert_eq!(taken.join(","), allow, "{path}");
    }
    for path in ["/", "/order", "/orders/", "/orders.v1.OrderService/CreateOrder", "/metrics"] {
        http.post(path, &json!({})).await.problem(404, "ROUTE_NOT_FOUND");
    }
    let created = http.post("/orders", &order("widget", 1)).await;
    for path in ["/orders", created.header("location"), "/inventory/widget", "/healthz", "/readyz"] {
        let (head, get) = (http.send(Method::HEAD, path, &[], "").await, http.get(path).await);
        assert_eq!((head.status.as_u16(), &head.body[..]), (200, &b""[..]), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    let admin = Client::new(system.addr("admin"));
    for (client, path) in [(http, "/healthz"), (http, "/readyz"), (&admin, "/healthz"), (&admin, "/readyz")] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let sane = http.send(Method::GET, "/orders/x", &[("x-request-id", "abc-1")], "").await;
    assert_eq!(sane.header("x-request-id"), "abc-1");
    assert_eq!(sane.problem(404, "ORDER_NOT_FOUND")["instance"], "urn:request:abc-1");
    for insane in ["a b", "a_b", &"a".repeat(65)] {
        let answer = http.send(Method::GET, "/orders/x", &[("x-request-id", insane)], "").await;
        assert_ne!(answer.header("x-request-id"), insane);
        answer.problem(404, "ORDER_NOT_FOUND");
    }
}
