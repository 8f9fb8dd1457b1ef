//! `/orders`.

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use contracts::{
    Failure, Reason,
    orders::v1::{
        CreateOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderStatus,
        order_service_client::OrderServiceClient,
    },
    values::{Invalid, Item, ReservationId, Timestamp},
};
use http::{HeaderName, HeaderValue, StatusCode, header::LOCATION};
use serde::Serialize;
use service::rpc_client::Repeat;

use crate::{
    body,
    fields::{BadFields, Place},
    front::Context,
    headers, path,
    problem::Problem,
    query,
    routes::Shared,
};

/// Most orders on a page.
pub const PAGE_ORDERS_MAX: i32 = 500;
/// Says that an earlier request has placed the order.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[derive(Serialize)]
struct OrderBody {
    id: String,
    item: String,
    quantity: i64,
    status: &'static str,
    created_at: String,
}

impl OrderBody {
    fn new(order: Option<Order>) -> Result<Self, Failure> {
        let order = order.ok_or_else(|| Failure::internal("an answer without its order"))?;
        let status = match order.status() {
            OrderStatus::Confirmed => "confirmed",
            OrderStatus::Unspecified => return Err(Failure::internal("an order without a status")),
        };
        let created_at = time(order.create_time.as_ref())?;
        Ok(Self { id: order.id, item: order.item, quantity: order.quantity, status, created_at })
    }
}

/// RFC 3339.
pub fn time(timestamp: Option<&prost_types::Timestamp>) -> Result<String, Failure> {
    use std::fmt::Write;

    let missing = || Failure::internal("an answer without its time");
    let mut text = String::new();
    write!(text, "{}", Timestamp::from_proto(timestamp.ok_or_else(missing)?)).map_err(Failure::internal)?;
    Ok(text)
}

/// `POST /orders`.
pub async fn create(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut bad = BadFields::default();
    query::none(&parts.uri, &mut bad);
    let key = headers::idempotency_key(&parts.headers, &mut bad);
    let mut body = body::object(&edge, &context, &parts.headers, body).await?;
    let (item, quantity) = (body.item(&mut bad), body.quantity(&mut bad));
    let reservation =
        body.optional("reservation_id", &mut bad, |value| ReservationId::parse_client(&body::text(value)?));
    body.finish(&mut bad);
    let (Some(item), Some(quantity), true) = (item, quantity, bad.is_empty()) else {
        return Err(bad.into());
    };

    let message = CreateOrderRequest {
        item: item.to_string(),
        quantity: quantity.get(),
        idempotency_key: key.map(|key| key.as_str().to_owned()),
        reservation_id: reservation.map(|id| id.to_string()),
        attempt_id: Some(context.attempt_id.to_string()),
    };
    let answer = edge
        .orders
        .unary(
            &context.call,
            "orders.v1.OrderService/CreateOrder",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { OrderServiceClient::new(channel).create_order(request).await },
        )
        .await?;
    let order = OrderBody::new(answer.order)?;
    let location = [(LOCATION, format!("/orders/{}", order.id))];
    let mut response = (StatusCode::CREATED, location, Json(order)).into_response();
    if answer.replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// `GET /orders/<id>`. What is no UUID names no order.
pub async fn read(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    query::refuse(request.uri())?;
    let id = path::segment(request.uri(), 2)?;
    let id = ReservationId::parse(&id).map_err(|_| Problem::of(Reason::OrderNotFound))?;

    let message = GetOrderRequest { id: id.to_string() };
    let answer = edge
        .orders
        .unary(
            &context.call,
            "orders.v1.OrderService/GetOrder",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { OrderServiceClient::new(channel).get_order(request).await },
        )
        .await
        .map_err(Problem::in_url)?;
    Ok(Json(OrderBody::new(answer.order)?).into_response())
}

#[derive(Serialize)]
struct PageBody {
    orders: Vec<OrderBody>,
    /// Empty on the last page.
    next_page_token: String,
}

/// `GET /orders?item=&limit=&page_token=`, newest first.
pub async fn list(
    State(edge): State<Shared>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let mut bad = BadFields::default();
    let [item, limit, page_token] = query::parse(request.uri(), ["item", "limit", "page_token"], &mut bad);
    let item = item.and_then(|text| bad.check(Place::parameter("item"), Item::parse(&text)));
    let limit = limit.and_then(|text| bad.check(Place::parameter("limit"), page_size(&text)));
    if !bad.is_empty() {
        return Err(bad.into());
    }

    let message = ListOrdersRequest {
        item: item.map_or_else(String::new, |item| item.to_string()),
        // 0 leaves it to the order service, which has the default.
        page_size: limit.unwrap_or(0),
        page_token: page_token.unwrap_or_default(),
    };
    let answer = edge
        .orders
        .unary(
            &context.call,
            "orders.v1.OrderService/ListOrders",
            Repeat::SafeElsewhere,
            message,
            |channel, request| async move { OrderServiceClient::new(channel).list_orders(request).await },
        )
        .await
        .map_err(Problem::in_url)?;
    let orders = answer.orders.into_iter().map(|order| OrderBody::new(Some(order))).collect::<Result<_, _>>()?;
    Ok(Json(PageBody { orders, next_page_token: answer.next_page_token }).into_response())
}

fn page_size(text: &str) -> Result<i32, Invalid> {
    let size = text.parse().ok().filter(|size| (1..=PAGE_ORDERS_MAX).contains(size));
    match size {
        Some(size) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(size),
        _ => Err(Invalid(format!("must be an integer of 1 to {PAGE_ORDERS_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_size() {
        assert_eq!(page_size("1"), Ok(1));
        assert_eq!(page_size("500"), Ok(500));
        for bad in ["0", "501", "-1", "+5", "1.0", "1e1", " 1", "x", "99999999999", "\u{663}"] {
            assert!(page_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_peer_s_nonsense_is_an_internal_error_and_no_panic() {
        let order = Order { status: OrderStatus::Confirmed.into(), ..Order::default() };
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: -1 };
        for order in
            [None, Some(Order::default()), Some(order.clone()), Some(Order { create_time: Some(far), ..order })]
        {
            assert!(OrderBody::new(order).is_err_and(|f| f.reason == Reason::Internal));
        }
    }
}
