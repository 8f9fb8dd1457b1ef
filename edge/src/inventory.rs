//! `/reserve`, `/reservations` and `/inventory`.

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use contracts::{
    Failure, Reason,
    inventory::v1::{
        GetStockRequest, ReleaseRequest, ReserveRequest, ReserveResponse, RestockRequest,
        inventory_service_client::InventoryServiceClient, reserve_response::Outcome,
    },
    values::{Item, Quantity, ReservationId, Token, Ttl},
};
use http::{StatusCode, Uri};
use serde_json::json;
use service::rpc_client::Repeat;
use sha2::{Digest, Sha256};
use uuid::Builder;

use crate::{
    body,
    fields::{BadFields, Place},
    front::Context,
    orders, path,
    problem::Problem,
    query,
    routes::{Edge, Shared},
};

/// `POST /reserve`. Not enough stock is an outcome, not a problem.
pub async fn reserve(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut bad = BadFields::default();
    query::none(&parts.uri, &mut bad);
    let mut body = body::object(&edge, &context, &parts.headers, body).await?;
    let (item, quantity) = (body.item(&mut bad), body.quantity(&mut bad));
    let ttl = body.optional("ttl_seconds", &mut bad, |value| Ttl::parse_seconds(body::integer(&value)?));
    let id = body.optional("reservation_id", &mut bad, |value| ReservationId::parse_client(&body::text(value)?));
    body.finish(&mut bad);
    let (Some(item), Some(quantity), true) = (item, quantity, bad.is_empty()) else {
        return Err(bad.into());
    };

    let made = attempt_s_id(&context.attempt_id, &item, quantity);
    let message = ReserveRequest {
        // Of one that is made here the ledger knows nothing.
        skip_verdict: id.is_none(),
        reservation_id: Some(id.unwrap_or(made).to_string()),
        item: item.to_string(),
        quantity: quantity.get(),
        ttl: ttl.map(|ttl| ttl.duration().try_into().expect("at most a day")),
        least_epoch: 0,
    };
    let answer = match ask(&edge, &context, message.clone()).await {
        // A gateway's first try made it, and it has ended since: the client has not heard of it.
        Err(failure) if failure.reason == Reason::ReservationReleased && id.is_none() => {
            let reservation_id = Some(edge.env.uuid().to_string());
            ask(&edge, &context, ReserveRequest { reservation_id, ..message }).await?
        }
        answer => answer?,
    };
    let body = match answer.outcome.ok_or_else(|| Failure::internal("an answer without its outcome"))? {
        Outcome::Held(held) => json!({
            "success": true,
            "remaining": held.remaining,
            "reservation_id": held.reservation_id,
            "expires_at": orders::time(held.expire_time.as_ref())?,
        }),
        Outcome::Insufficient(short) => json!({ "success": false, "remaining": short.remaining }),
    };
    Ok(Json(body).into_response())
}

async fn ask(edge: &Edge, context: &Context, message: ReserveRequest) -> Result<ReserveResponse, Failure> {
    edge.inventory
        .unary(
            &context.call,
            "inventory.v1.InventoryService/Reserve",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { InventoryServiceClient::new(channel).reserve(request).await },
        )
        .await
}

/// The id of a hold that the client gave none: every repeat of the attempt, here or by a gateway, meets the same hold.
/// Random in all that is not fixed by v4, as the id that a client would have made.
fn attempt_s_id(attempt: &Token, item: &Item, quantity: Quantity) -> ReservationId {
    // No line break is in a token or a number, so no two attempts give the same text.
    let text = format!("reserve 1\n{}\n{item}\n{}", attempt.as_str(), quantity.get());
    let hash = Sha256::digest(text.as_bytes());
    ReservationId(Builder::from_random_bytes(hash[..16].try_into().expect("half of 32 bytes")).into_uuid())
}

/// `DELETE /reservations/<id>`. What is no UUID names no reservation.
pub async fn release(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let id = path::segment(request.uri(), 2)?;
    let id = ReservationId::parse(&id).map_err(|_| Problem::of(Reason::ReservationNotFound))?;

    // The client does not name the item: an id that nobody knows is answered 404.
    let message = ReleaseRequest { reservation_id: id.to_string(), item: String::new() };
    let released = edge
        .inventory
        .unary(
            &context.call,
            "inventory.v1.InventoryService/Release",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { InventoryServiceClient::new(channel).release(request).await },
        )
        .await;
    released.map_err(Problem::in_url)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /inventory/<item>`.
pub async fn read(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let mut bad = BadFields::default();
    query::none(request.uri(), &mut bad);
    let item = item(request.uri(), &mut bad)?;
    let (Some(item), true) = (item, bad.is_empty()) else {
        return Err(bad.into());
    };

    let message = GetStockRequest { item: item.to_string() };
    let answer = edge
        .inventory
        .unary(
            &context.call,
            "inventory.v1.InventoryService/GetStock",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { InventoryServiceClient::new(channel).get_stock(request).await },
        )
        .await;
    let answer = answer.map_err(Problem::in_url)?;
    Ok(Json(json!({ "item": answer.item, "stock": answer.stock })).into_response())
}

/// `POST /inventory/<item>/restocks`.
pub async fn restock(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut bad = BadFields::default();
    query::none(&parts.uri, &mut bad);
    let item = item(&parts.uri, &mut bad)?;
    let mut body = body::object(&edge, &context, &parts.headers, body).await?;
    let id = body.required("id", &mut bad, |value| ReservationId::parse(&body::text(value)?));
    let quantity = body.quantity(&mut bad);
    body.finish(&mut bad);
    let (Some(item), Some(id), Some(quantity), true) = (item, id, quantity, bad.is_empty()) else {
        return Err(bad.into());
    };

    let message = RestockRequest { id: id.to_string(), item: item.to_string(), quantity: quantity.get() };
    let answer = edge
        .inventory
        .unary(
            &context.call,
            "inventory.v1.InventoryService/Restock",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { InventoryServiceClient::new(channel).restock(request).await },
        )
        .await?;
    Ok(Json(json!({ "item": answer.item, "stock": answer.stock })).into_response())
}

/// The item of `/inventory/<item>/...`.
fn item(uri: &Uri, bad: &mut BadFields) -> Result<Option<Item>, Problem> {
    let text = path::segment(uri, 2)?;
    Ok(bad.check(Place::parameter("item"), Item::parse(&text)))
}
