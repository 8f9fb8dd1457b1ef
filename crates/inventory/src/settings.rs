//! What an operator sets.

use std::net::SocketAddr;

use contracts::values::INITIAL_STOCK_MAX;
use http::Uri;
use service::settings::Settings;

/// Where the stock store is, when it is not embedded.
pub const STOCK_SETTINGS: [&str; 2] = ["REDIS_URL", "REDIS_HOST"];
/// Where the broker is, when it is not embedded.
pub const BROKER_SETTINGS: [&str; 2] = ["BROKER_URL", "BROKER_HOST"];

/// The inventory service's settings.
#[derive(Debug, Clone)]
pub struct InventorySettings {
    /// `INVENTORY_GRPC_ADDR`.
    pub grpc_addr: SocketAddr,
    /// `ORDER_URL`: where the ledger is served; loopback when not set.
    pub order_urls: Option<Vec<Uri>>,
    /// `DEFAULT_STOCK`: units of an item that the ledger has never heard of.
    pub default_stock: i64,
}

impl InventorySettings {
    /// Reads them; what is bad is recorded in `settings`.
    pub fn read(settings: &mut Settings) -> Self {
        let mut default_stock = settings.parsed("DEFAULT_STOCK", 100);
        if !(0..=INITIAL_STOCK_MAX).contains(&default_stock) {
            settings.bad("DEFAULT_STOCK", format!("must be 0 to {INITIAL_STOCK_MAX}"));
            default_stock = 0;
        }
        Self {
            grpc_addr: settings.addr("INVENTORY_GRPC_ADDR", "127.0.0.1:50052"),
            order_urls: settings.urls("ORDER_URL"),
            default_stock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_stock_has_a_range() {
        for (text, good) in [("0", true), ("1000000000", true), ("-1", false), ("1000000001", false), ("x", false)] {
            let mut settings = Settings::from_pairs([("DEFAULT_STOCK", text)]);
            InventorySettings::read(&mut settings);
            assert_eq!(settings.finish().is_ok(), good, "{text}");
        }
    }
}
