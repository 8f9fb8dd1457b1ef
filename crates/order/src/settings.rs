//! What an operator sets.

use std::net::SocketAddr;

use contracts::values::Ttl;
use http::Uri;
use service::settings::Settings;

/// Where the ledger is, when it is not embedded.
pub const LEDGER_SETTINGS: [&str; 2] = ["DB_URL", "POSTGRES_HOST"];
/// Where the broker is, when it is not embedded.
pub const BROKER_SETTINGS: [&str; 2] = ["BROKER_URL", "BROKER_HOST"];

/// The order service's settings.
#[derive(Debug, Clone)]
pub struct OrderSettings {
    /// `ORDER_GRPC_ADDR`.
    pub grpc_addr: SocketAddr,
    /// `INVENTORY_URL`; loopback when not set.
    pub inventory_urls: Option<Vec<Uri>>,
    /// `RESERVATION_TTL_SECONDS`: life of the holds of orders under way.
    pub hold_ttl: Ttl,
}

impl OrderSettings {
    /// Reads them; what is bad is recorded in `settings`.
    pub fn read(settings: &mut Settings) -> Self {
        let seconds = settings.parsed("RESERVATION_TTL_SECONDS", 30);
        let hold_ttl = Ttl::parse_seconds(seconds).unwrap_or_else(|invalid| {
            settings.bad("RESERVATION_TTL_SECONDS", invalid.0);
            Ttl::DEFAULT
        });
        Self {
            grpc_addr: settings.addr("ORDER_GRPC_ADDR", "127.0.0.1:50051"),
            inventory_urls: settings.urls("INVENTORY_URL"),
            hold_ttl,
        }
    }
}
