//! Places an order over gRPC with tonic.
//! Usage: `cargo run -p example [http://HOST:PORT of the order service] [of the inventory service]`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a client, which says what it did")]

use std::error::Error;

use contracts::inventory::v1::{GetStockRequest, inventory_service_client::InventoryServiceClient};
use contracts::orders::v1::{CreateOrderRequest, order_service_client::OrderServiceClient};
use tonic_types::StatusExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut urls = std::env::args().skip(1);
    let mut url = |default: &str| urls.next().unwrap_or_else(|| default.to_owned());
    let mut orders = OrderServiceClient::connect(url("http://127.0.0.1:50051")).await?;
    let mut inventory = InventoryServiceClient::connect(url("http://127.0.0.1:50052")).await?;

    // The key is new for each order, and the same for its repeats.
    let key = uuid::Uuid::new_v4().to_string();
    let request =
        CreateOrderRequest { item: "widget".into(), quantity: 1, idempotency_key: Some(key), ..Default::default() };
    let placed = orders.create_order(request.clone()).await?.into_inner().order.ok_or("no order")?;
    println!("ordered {}", placed.id);
    let repeated = orders.create_order(request).await?.into_inner();
    assert!(repeated.replayed && repeated.order.as_ref() == Some(&placed), "{repeated:?}");
    println!("repeated: the same order");
    let stock = inventory.get_stock(GetStockRequest { item: "widget".into() }).await?.into_inner().stock;
    println!("in stock: {stock}");
    let request = CreateOrderRequest { item: "widget".into(), quantity: 1_000_000, ..Default::default() };
    let refusal = orders.create_order(request).await.err().ok_or("a million widgets were sold")?;
    let reason = refusal.get_details_error_info().ok_or("no reason")?.reason;
    println!("refused: {reason}");
    assert_eq!(reason, "INSUFFICIENT_STOCK");
    Ok(())
}
