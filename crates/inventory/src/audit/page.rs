//! `GET /audit` of the admin port: a page of items as they were looked at, as JSON. It heals nothing.

use axum::{
    Json, Router,
    extract::Query,
    response::{IntoResponse, Response},
    routing::get,
};
use contracts::{Failure, values::Item};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Audited, Auditor};
use crate::ledger::BooksOf;

/// Items of one answer.
pub const AUDIT_PAGE_ITEMS: usize = 100;

/// `?item=` for one item, else a page of them: `?after=` for the next one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    item: Option<String>,
    after: Option<String>,
}

/// The route.
pub fn router(auditor: Auditor) -> Router {
    Router::new().route("/audit", get(async move |Query(asked): Query<Asked>| page(&auditor, asked).await))
}

async fn page(auditor: &Auditor, asked: Asked) -> Response {
    let of = match (asked.item, asked.after) {
        (Some(item), None) => Item::parse(&item).map(BooksOf::Item),
        (None, after) => after.as_deref().map(Item::parse).transpose().map(BooksOf::After),
        (Some(_), Some(_)) => return problem(StatusCode::BAD_REQUEST, "either item or after"),
    };
    let of = match of {
        Ok(of) => of,
        Err(invalid) => return problem(StatusCode::BAD_REQUEST, &invalid.0),
    };
    match auditor.page(of, AUDIT_PAGE_ITEMS).await {
        Ok(audited) => {
            let next = audited.get(AUDIT_PAGE_ITEMS - 1).map(|last| last.books.item.as_str());
            let items: Vec<Value> = audited.iter().map(told).collect();
            ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "items": items, "next": next }))).into_response()
        }
        Err(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, &cause(&failure)),
    }
}

fn cause(failure: &Failure) -> String {
    format!("the ledger or the stock store does not answer: {failure}")
}

fn problem(status: StatusCode, error: &str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "error": error }))).into_response()
}

fn told(audited: &Audited) -> Value {
    let Audited { books, stock, drift } = audited;
    json!({
        "item": books.item.as_str(),
        "ledger": {
            "epoch": books.epoch.0,
            "received": books.received,
            "settled": books.settled,
            "outbox_units": books.outbox_units,
            "outbox_events": books.outbox_events,
            "orders": books.orders,
        },
        "stock": stock.map(|counts| json!({
            "epoch": counts.epoch.0,
            "received": counts.received,
            "available": counts.available,
            "held": counts.held,
            "sold": counts.sold,
            "holds": counts.holds,
        })),
        "drift": drift.iter().map(|kind| json!({ "kind": kind.name(), "heals": kind.heals() })).collect::<Vec<_>>(),
    })
}
