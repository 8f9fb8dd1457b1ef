//! Schemas, parameters, headers, bodies and answers, with the limits that the parsers go by.

use contracts::{
    Reason,
    values::{IDEMPOTENCY_KEY_CHARS_MAX, ITEM_CHARS_MAX, QUANTITY_MAX, TTL_SECONDS_DEFAULT, TTL_SECONDS_MAX},
};
use serde_json::{Map, Value, json};

use super::{reference, references};
use crate::{docs, headers::IDEMPOTENCY_KEY, headers::X_REQUEST_ID, orders::PAGE_ORDERS_MAX};

const UUID: &str = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}";
const UUID_V4: &str = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$";
/// Bare, or a string as in RFC 9651.
const KEY: &str = r#"^([!#-~][ -~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#;
/// What an item must not hold, besides characters that Unicode has not assigned and format characters beyond U+FFFF.
const NOT_IN_ITEMS: &[(char, char)] = &[
    ('\0', '\u{1f}'),
    ('{', '{'),
    ('}', '}'),
    ('\u{7f}', '\u{9f}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
];

const ORDER_ID: &str = "faacf91c-56be-8246-ad91-e7a110366d44";
const RESERVATION_ID: &str = "7b1c5f6e-2f6b-4d0b-9d56-0f3a1c2b4d5e";
const TIME: &str = "2026-11-22T17:46:45.547308Z";

/// All of them but those of problems.
pub fn all() -> Map<String, Value> {
    let components = json!({
        "schemas": schemas(),
        "parameters": parameters(),
        "requestBodies": bodies(),
        "headers": headers(),
        "responses": responses(),
        "examples": {},
    });
    let Value::Object(components) = components else { unreachable!("it is an object") };
    components
}

fn schemas() -> Value {
    let mut schemas = inputs();
    schemas.append(&mut answers());
    schemas.into()
}

fn inputs() -> Map<String, Value> {
    let item = reference("schemas", "Item");
    let quantity = reference("schemas", "Quantity");
    let v4 = |description: &str| json!({ "description": description, "type": "string", "pattern": UUID_V4 });
    // Exactly one of the two names.
    let item_or_alias = json!([{ "required": ["item"] }, { "required": ["item_id"] }]);
    let alias = json!({ "description": "An alias of `item`; send one of them.", "$ref": "#/components/schemas/Item" });
    let schemas = json!({
        "Item": {
            "description": "What is sold, compared in Unicode NFC: no control, format or unassigned characters, no outer \
                            spaces, no braces, at most 255 bytes of UTF-8, not `.` or `..`.",
            "type": "string",
            "minLength": 1,
            "maxLength": ITEM_CHARS_MAX,
            "pattern": item_pattern(),
            "examples": ["widget"],
        },
        "Quantity": {
            "description": "Units, written as a JSON integer: `1.0` and `1e0` are refused.",
            "type": "integer",
            "format": "int32",
            "minimum": 1,
            "maximum": QUANTITY_MAX,
            "examples": [2],
        },
        "NewOrder": {
            "type": "object",
            "additionalProperties": false,
            "required": ["quantity"],
            "properties": {
                "item": item,
                "item_id": alias,
                "quantity": quantity,
                "reservation_id": v4(
                    "A hold of the same item and quantity, which becomes the order: a version 4 UUID. Under an id that is \
                     not known the order is placed from free stock.",
                ),
            },
            "oneOf": item_or_alias,
        },
        "NewReservation": {
            "type": "object",
            "additionalProperties": false,
            "required": ["quantity"],
            "properties": {
                "item": item,
                "item_id": alias,
                "quantity": quantity,
                "ttl_seconds": {
                    "description": "How long the hold is kept, in seconds; a JSON integer.",
                    "type": "integer",
                    "format": "int32",
                    "minimum": 1,
                    "maximum": TTL_SECONDS_MAX,
                    "default": TTL_SECONDS_DEFAULT,
                },
                "reservation_id": v4("Names the hold, so that the request can be repeated: a version 4 UUID."),
            },
            "oneOf": item_or_alias,
        },
        "NewRestock": {
            "type": "object",
            "additionalProperties": false,
            "required": ["id", "quantity"],
            "properties": {
                "id": {
                    "description": "Names the restock, which is done once however often it is sent.",
                    "type": "string",
                    "format": "uuid",
                    "pattern": format!("^{UUID}$"),
                },
                "quantity": quantity,
            },
        },
    });
    let Value::Object(schemas) = schemas else { unreachable!("it is an object") };
    schemas
}

fn item_pattern() -> String {
    let escape = |c: char| if c.is_ascii_graphic() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    let ranges = NOT_IN_ITEMS.iter().map(|(first, last)| {
        if first == last { escape(*first) } else { format!("{}-{}", escape(*first), escape(*last)) }
    });
    format!(r"^(?!\s)(?!\.\.?$)[^{}]+(?<!\s)$", ranges.collect::<String>())
}

fn answers() -> Map<String, Value> {
    let item = reference("schemas", "Item");
    let quantity = reference("schemas", "Quantity");
    let units = reference("schemas", "Units");
    let time = reference("schemas", "Time");
    let id = json!({ "type": "string", "format": "uuid", "pattern": format!("^{UUID}$") });
    let text = json!({ "type": "string" });
    let part = json!({ "type": "string", "enum": ["ok", "failing"] });
    let status = |statuses: &[&str]| json!({ "type": "string", "enum": statuses });
    let schemas = json!({
        "Units": { "type": "integer", "format": "int64", "minimum": 0 },
        "Time": { "description": "RFC 3339, UTC.", "type": "string", "format": "date-time" },
        "Order": object(&[
            ("id", &id),
            ("item", &item),
            ("quantity", &quantity),
            ("status", &status(&["confirmed"])),
            ("created_at", &time),
        ]),
        "OrderPage": object(&[
            ("orders", &json!({
                "description": "The newest first.",
                "type": "array",
                "maxItems": PAGE_ORDERS_MAX,
                "items": reference("schemas", "Order"),
            })),
            ("next_page_token", &json!({ "description": "Empty on the last page.", "type": "string" })),
        ]),
        "Reservation": {
            "description": "Whether there was stock to hold.",
            "oneOf": [reference("schemas", "Held"), reference("schemas", "NotHeld")],
        },
        "Held": object(&[
            ("success", &json!({ "type": "boolean", "const": true })),
            ("remaining", &units),
            ("reservation_id", &id),
            ("expires_at", &time),
        ]),
        "NotHeld": object(&[("success", &json!({ "type": "boolean", "const": false })), ("remaining", &units)]),
        "Stock": object(&[("item", &item), ("stock", &units)]),
        "Alive": object(&[("status", &status(&["ok"]))]),
        "Ready": object(&[("status", &status(&["ready", "degraded"])), ("parts", &reference("schemas", "Parts"))]),
        "Parts": object(&[("order", &part), ("inventory", &part)]),
        "ProblemPage": object(&[
            ("type", &text),
            ("reason", &reason()),
            ("title", &text),
            ("status", &json!({ "type": "integer", "minimum": 400, "maximum": 599 })),
            ("grpc_code", &text),
            ("meaning", &text),
            ("retry", &text),
            ("remedy", &text),
        ]),
        "ProblemPages": object(&[
            ("problems", &json!({ "type": "array", "items": reference("schemas", "ProblemPage") })),
        ]),
        "BadField": {
            "description": "What is wrong, and where.",
            "type": "object",
            "required": ["detail"],
            "properties": {
                "pointer": { "description": "In the body, as in RFC 6901; empty for all of it.", "type": "string" },
                "parameter": { "description": "In the URL.", "type": "string" },
                "header": { "description": "In the head.", "type": "string" },
                "detail": { "type": "string" },
            },
            "oneOf": [{ "required": ["pointer"] }, { "required": ["parameter"] }, { "required": ["header"] }],
        },
    });
    let Value::Object(schemas) = schemas else { unreachable!("it is an object") };
    schemas
}

fn reason() -> Value {
    json!({ "type": "string", "enum": Reason::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>() })
}

/// Of members that are always there.
fn object(members: &[(&str, &Value)]) -> Value {
    let required: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<_, _> = members.iter().map(|(name, schema)| ((*name).to_owned(), (*schema).clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn parameters() -> Value {
    let in_path = |name: &str, description: &str, schema: Value, example: &str| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": schema,
            "example": example,
        })
    };
    // Empty counts as left out.
    let in_query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "allowEmptyValue": true, "schema": schema });
    let id = json!({ "type": "string", "format": "uuid", "pattern": format!("^{UUID}$") });
    let limit = json!({
        "type": "integer", "format": "int32", "minimum": 1, "maximum": PAGE_ORDERS_MAX, "default": 50
    });
    json!({
        "RequestId": {
            "name": X_REQUEST_ID,
            "in": "header",
            "description": "Names the request, for logs and problems: taken if it is 1 to 64 letters, digits and hyphens, \
                            else another is made.",
            "schema": { "type": "string" },
        },
        "IdempotencyKey": {
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "description": format!(
                "Names the order: however often the request is sent, it is one order. 1 to {IDEMPOTENCY_KEY_CHARS_MAX} \
                 printable ASCII characters, bare or as a quoted string (RFC 9651)."
            ),
            "schema": { "type": "string", "pattern": KEY },
            "example": "my-order-1",
        },
        "OrderId": in_path("id", "The order's id.", id.clone(), ORDER_ID),
        "ReservationId": in_path("id", "The hold's id.", id, RESERVATION_ID),
        "Item": in_path("item", "What is sold.", reference("schemas", "Item"), "widget"),
        "ItemWanted": in_query("item", "Only orders of this item.", reference("schemas", "Item")),
        "Limit": in_query("limit", "How many at most.", limit),
        "PageToken": in_query(
            "page_token",
            "The `next_page_token` of the page before.",
            json!({ "type": "string", "pattern": format!(r"^(0|-?[1-9][0-9]{{0,17}})\.{UUID}$") }),
        ),
        "DocsFile": in_path("file", "A file that the page names.", json!({ "type": "string", "enum": docs::FILES.map(|(name, ..)| name) }), "swagger-ui.css"),
        "Reason": in_path("reason", "A problem's `reason`.", reason(), Reason::InsufficientStock.name()),
    })
}

fn bodies() -> Value {
    let body = |description: &str, schema: &str, examples: Value| {
        json!({
            "description": description,
            "required": true,
            "content": { "application/json": { "schema": reference("schemas", schema), "examples": examples } },
        })
    };
    json!({
        "NewOrder": body("What to order, at most 16 KiB.", "NewOrder", json!({
            "order": { "summary": "From free stock", "value": { "item": "widget", "quantity": 2 } },
            "order_of_hold": {
                "summary": "Of a hold",
                "value": { "item": "widget", "quantity": 5, "reservation_id": RESERVATION_ID },
            },
        })),
        "NewReservation": body("What to set aside, at most 16 KiB.", "NewReservation", json!({
            "hold": { "summary": "For a while", "value": { "item": "widget", "quantity": 5 } },
            "named_hold": {
                "summary": "Under an id of one's own",
                "value": { "item": "widget", "quantity": 5, "ttl_seconds": 60, "reservation_id": RESERVATION_ID },
            },
        })),
        "NewRestock": body("What came in, at most 16 KiB.", "NewRestock", json!({
            "restock": {
                "summary": "Ten units",
                "value": { "id": "0e2f9a54-6f0c-4f7e-8a31-5f1f1f0f7c11", "quantity": 10 },
            },
        })),
    })
}

fn headers() -> Value {
    let header = |required: bool, description: &str, schema: Value| json!({ "description": description, "required": required, "schema": schema });
    let text = || json!({ "type": "string" });
    json!({
        "RequestId": header(true, "The request's id.", json!({ "type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$" })),
        "ContentTypeOptions": header(true, "Always `nosniff`.", json!({ "type": "string", "const": "nosniff" })),
        "CacheControl": header(true, "How long the answer may be kept.", text()),
        "Location": header(true, "Where the order is.", json!({ "type": "string", "format": "uri-reference" })),
        "IdempotentReplayed": header(
            false,
            "Is there when an earlier request has placed the order.",
            json!({ "type": "string", "const": "true" }),
        ),
        "RetryAfter": header(true, "Seconds to wait before the next try.", json!({ "type": "integer", "minimum": 1 })),
        "Allow": header(true, "The methods that the resource takes.", text()),
        "ContentSecurityPolicy": header(true, "What the page may load and do.", text()),
        "PageContentSecurityPolicy": header(false, "What the page may load and do, where it is HTML.", text()),
        "Vary": header(true, "The answer depends on `Accept`.", text()),
    })
}

/// The headers of every answer.
pub fn answer_headers() -> Map<String, Value> {
    references(
        "headers",
        [
            (X_REQUEST_ID, "RequestId"),
            ("X-Content-Type-Options", "ContentTypeOptions"),
            ("Cache-Control", "CacheControl"),
        ],
    )
}

fn responses() -> Value {
    let order = json!({
        "id": ORDER_ID, "item": "widget", "quantity": 2, "status": "confirmed", "created_at": TIME
    });
    let held = json!({ "success": true, "remaining": 92, "reservation_id": RESERVATION_ID, "expires_at": TIME });
    let ready = |status: &str, inventory: &str| json!({ "value": { "status": status, "parts": { "order": "ok", "inventory": inventory } } });
    let page = crate::problem_pages::page(Reason::InsufficientStock);
    let html = json!({ "text/html": { "schema": { "type": "string" } } });
    let both = |schema: &str, example: Value| {
        let mut content = json_content(schema, &json!({ "page": { "value": example } }));
        content["text/html"] = html["text/html"].clone();
        content
    };
    let of_page = [("Vary", "Vary"), ("Content-Security-Policy", "PageContentSecurityPolicy")];
    let of_docs = [("Content-Security-Policy", "ContentSecurityPolicy")];
    json!({
        "OrderPlaced": with_links(
            answer(
                "The order, placed by this request or, with its key, by an earlier one.",
                &[("Location", "Location"), ("Idempotent-Replayed", "IdempotentReplayed")],
                json_content("Order", &json!({ "order": { "value": order } })),
            ),
            json!({
                "order": link("getOrder", &json!({ "id": "$response.body#/id" }), "The order."),
                "stock": link("getStock", &json!({ "item": "$response.body#/item" }), "What is left."),
            }),
        ),
        "Order": answer("The order.", &[], json_content("Order", &json!({ "order": { "value": order } }))),
        "OrderPage": with_links(
            answer(
                "A page of orders, the newest first.",
                &[],
                json_content("OrderPage", &json!({ "last": { "value": { "orders": [order], "next_page_token": "" } } })),
            ),
            json!({
                "next": link("listOrders", &json!({ "page_token": "$response.body#/next_page_token" }), "The next page."),
                "newest": link("getOrder", &json!({ "id": "$response.body#/orders/0/id" }), "The newest order."),
            }),
        ),
        "Reservation": with_links(
            answer(
                "The hold, or how little there is: too little stock is no problem here.",
                &[],
                json_content("Reservation", &json!({
                    "held": { "value": held },
                    "not_held": { "value": { "success": false, "remaining": 3 } },
                })),
            ),
            json!({
                "release": link(
                    "releaseReservation",
                    &json!({ "id": "$response.body#/reservation_id" }),
                    "Gives the stock back.",
                ),
                "order": {
                    "operationId": "createOrder",
                    "requestBody": {
                        "item": "$request.body#/item",
                        "quantity": "$request.body#/quantity",
                        "reservation_id": "$response.body#/reservation_id",
                    },
                    "description": "Makes the hold an order.",
                },
            }),
        ),
        "Released": answer("The stock is back, by this request or an earlier one.", &[], json!({})),
        "Stock": answer(
            "Units that are free.",
            &[],
            json_content("Stock", &json!({ "stock": { "value": { "item": "widget", "stock": 98 } } })),
        ),
        "Alive": answer("It lives.", &[], json_content("Alive", &json!({ "alive": { "value": { "status": "ok" } } }))),
        "Ready": answer(
            "Orders can be placed; `degraded` if not all of them.",
            &[],
            json_content("Ready", &json!({ "ready": ready("ready", "ok"), "degraded": ready("degraded", "failing") })),
        ),
        "OpenApi": answer(
            "This document.",
            &[],
            json!({ "application/json": { "schema": object(&[("openapi", &json!({ "type": "string" }))]) } }),
        ),
        "Docs": answer("A page that shows this document and sends requests.", &of_docs, html.clone()),
        "DocsFile": answer(
            "The file.",
            &of_docs,
            json!({
                "text/css": { "schema": { "type": "string" } },
                "text/javascript": { "schema": { "type": "string" } },
                "image/png": {},
            }),
        ),
        "ProblemPages": answer("Every reason for a refusal.", &of_page, both("ProblemPages", json!({ "problems": [page] }))),
        "ProblemPage": answer("What it means, and what to do.", &of_page, both("ProblemPage", page)),
    })
}

fn json_content(schema: &str, examples: &Value) -> Value {
    json!({ "application/json": { "schema": reference("schemas", schema), "examples": examples } })
}

fn answer(description: &str, more_headers: &[(&str, &str)], content: Value) -> Value {
    let mut headers = answer_headers();
    headers.extend(references("headers", more_headers.iter().copied()));
    let mut answer = json!({ "description": description, "headers": headers });
    if content.as_object().is_some_and(|content| !content.is_empty()) {
        answer["content"] = content;
    }
    answer
}

fn with_links(mut answer: Value, links: Value) -> Value {
    answer["links"] = links;
    answer
}

fn link(operation: &str, parameters: &Value, description: &str) -> Value {
    json!({ "operationId": operation, "parameters": parameters, "description": description })
}

#[cfg(test)]
mod tests {
    use contracts::values::Item;

    use super::*;

    #[test]
    fn the_characters_that_items_must_not_hold_are_those_that_are_refused() {
        let listed = |c| NOT_IN_ITEMS.iter().any(|(first, last)| (*first..=*last).contains(&c));
        // Beyond, only the unassigned ones are refused, which no pattern can list.
        for c in ('\0'..'\u{300}').chain('\u{2000}'..='\u{206f}').chain('\u{fff9}'..='\u{fffd}') {
            assert_eq!(Item::parse(&format!("a{c}a")).is_err(), listed(c), "{c:?}");
        }
        for c in NOT_IN_ITEMS.iter().flat_map(|(first, last)| *first..=*last) {
            assert!(Item::parse(&format!("a{c}a")).is_err(), "{c:?}");
        }
    }
}
