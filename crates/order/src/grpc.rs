//! The gRPC services: they parse, call, and answer; nothing is decided here.
//!
//! - [`orders`]: `orders.v1.OrderService`, for everyone
//! - [`ledger`]: `orders.v1.LedgerService`, for the inventory service

pub mod ledger;
pub mod orders;

/// Counts that leave the process are never negative or beyond what a page holds.
fn bounded<T>(field: &str, list: &[T], max: usize) -> Result<(), contracts::Failure> {
    if list.is_empty() || list.len() > max {
        return Err(contracts::Failure::field(field, format!("must have 1 to {max} entries")));
    }
    Ok(())
}
