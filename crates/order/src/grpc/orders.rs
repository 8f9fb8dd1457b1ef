//! `orders.v1.OrderService`.

use std::sync::Arc;

use contracts::{
    Failure, Reason,
    failure::{BadFields, parse},
    orders::v1::{
        self as proto, CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
        ListOrdersResponse, OrderStatus, order_service_server::OrderService,
    },
    values::{IdempotencyKey, Invalid, Item, Quantity, ReservationId, Timestamp, Token},
};
use service::{
    environment::Env,
    planted::{self, Bug},
    rpc::{call, reply},
};
use tonic::{Request, Response, Status};

use crate::{
    attempt::Identity,
    ledger::{Ledger, ListQuery, Order},
    place_order::{PlaceOrder, Placement},
};

/// Most orders on a page.
pub const PAGE_SIZE_MAX: u32 = 500;
/// Orders on a page when none is asked for.
pub const PAGE_SIZE_DEFAULT: u32 = 50;

/// Serves orders.
pub struct OrderApi {
    env: Env,
    place_order: PlaceOrder,
    ledger: Arc<dyn Ledger>,
}

impl OrderApi {
    /// Over the use case and the ledger.
    pub fn new(env: Env, place_order: PlaceOrder, ledger: Arc<dyn Ledger>) -> Self {
        Self { env, place_order, ledger }
    }

    async fn create(&self, request: Request<CreateOrderRequest>) -> Result<CreateOrderResponse, Failure> {
        let call = call(&request);
        let placement = self.placement(request.get_ref())?;
        let placed = self.place_order.place(placement, call).await?;
        Ok(CreateOrderResponse { order: Some(to_proto(&placed.order)), replayed: placed.replayed })
    }

    fn placement(&self, request: &CreateOrderRequest) -> Result<Placement, Failure> {
        let mut bad = BadFields::default();
        let item = bad.check("item", Item::parse(&request.item));
        let quantity = bad.check("quantity", Quantity::parse(request.quantity));
        let key = request.idempotency_key.as_deref().map(IdempotencyKey::parse).transpose();
        let key = bad.check("idempotency_key", key);
        let attempt = request.attempt_id.as_deref().map(Token::parse).transpose();
        let attempt = bad.check("attempt_id", attempt);
        let reservation = request.reservation_id.as_deref().map(ReservationId::parse_client).transpose();
        let reservation = bad.check("reservation_id", reservation);
        let (Some(item), Some(quantity), Some(key), Some(attempt), Some(reservation)) =
            (item, quantity, key, attempt, reservation)
        else {
            return Err(bad.into_failure());
        };
        let identity = match (key, attempt) {
            (Some(key), _) => Identity::Key(key),
            (None, Some(attempt)) if !planted::is(Bug::FreshIdOnRetry) => Identity::Attempt(attempt),
            (None, _) => Identity::Attempt(self.env.uuid().into()),
        };
        Ok(Placement { item, quantity, identity, reservation })
    }

    async fn get(&self, request: Request<GetOrderRequest>) -> Result<GetOrderResponse, Failure> {
        let missing = || Failure::of(Reason::OrderNotFound);
        let id = ReservationId::parse(&request.into_inner().id).map_err(|_| missing())?;
        let order = self.ledger.order(id).await?.ok_or_else(missing)?;
        Ok(GetOrderResponse { order: Some(to_proto(&order)) })
    }

    async fn list(&self, request: Request<ListOrdersRequest>) -> Result<ListOrdersResponse, Failure> {
        let request = request.into_inner();
        let item = (!request.item.is_empty()).then(|| Item::parse(&request.item)).transpose();
        let after = (!request.page_token.is_empty()).then(|| parse_token(&request.page_token)).transpose();
        let page_size = match u32::try_from(request.page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size @ 1..=PAGE_SIZE_MAX) => size,
            _ => return Err(Failure::field("page_size", format!("must be 1 to {PAGE_SIZE_MAX}"))),
        };
        // One more than asked for tells whether there is a next page.
        let query = ListQuery { item: parse("item", item)?, after: parse("page_token", after)?, limit: page_size + 1 };
        let mut orders = self.ledger.orders(&query).await?;
        let more = orders.len() > page_size as usize;
        orders.truncate(page_size as usize);
        let next = orders.last().filter(|_| more).map(token);
        Ok(ListOrdersResponse {
            orders: orders.iter().map(to_proto).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }
}

/// Where the next page begins: after this order. Opaque to clients.
fn token(order: &Order) -> String {
    format!("{}.{}", order.created_at.0, order.id)
}

fn parse_token(token: &str) -> Result<(Timestamp, ReservationId), Invalid> {
    let parts = token.split_once('.').and_then(|(micros, id)| {
        let micros = micros.parse().ok().filter(|n: &i64| n.to_string() == micros)?;
        Some((Timestamp(micros), ReservationId::parse(id).ok()?))
    });
    parts.ok_or_else(|| Invalid("is not a next_page_token of this service".to_owned()))
}

fn to_proto(order: &Order) -> proto::Order {
    proto::Order {
        id: order.id.to_string(),
        item: order.item.to_string(),
        quantity: order.quantity.get(),
        status: OrderStatus::Confirmed.into(),
        create_time: Some(order.created_at.to_proto()),
    }
}

#[tonic::async_trait]
impl OrderService for OrderApi {
    async fn create_order(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<CreateOrderResponse>, Status> {
        reply(self.create(request).await)
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        reply(self.get(request).await)
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        reply(self.list(request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_as_written_and_nothing_else_is() {
        let order = Order {
            id: ReservationId(uuid::Uuid::from_u128(5)),
            item: Item::parse("widget").expect("valid"),
            quantity: Quantity::parse(1).expect("valid"),
            created_at: Timestamp(1_795_000_000_123_456),
        };
        assert_eq!(parse_token(&token(&order)), Ok((order.created_at, order.id)));
        for bad in [
            "",
            ".",
            "1",
            "x.y",
            "1.2",
            "+1.00000000-0000-0000-0000-000000000005",
            "01.00000000-0000-0000-0000-000000000005",
        ] {
            assert!(parse_token(bad).is_err(), "{bad}");
        }
    }
}
