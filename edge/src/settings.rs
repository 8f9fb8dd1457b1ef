//! What the environment sets.

use std::net::SocketAddr;

use http::Uri;
use service::settings::Settings;

/// Where the edge listens, unless told otherwise.
pub const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8080";
/// Where its metrics and health are, unless told otherwise, when it is a process of its own.
pub const ADMIN_ADDR_DEFAULT: &str = "127.0.0.1:9465";

/// Where the edge listens and whom it asks.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// `HTTP_ADDR`: HTTP/JSON.
    pub http_addr: SocketAddr,
    /// `ADMIN_ADDR`: metrics and health of the process.
    pub admin_addr: SocketAddr,
    /// `ORDER_URL`: the order service's gRPC, one URL or several.
    pub order_urls: Option<Vec<Uri>>,
    /// `INVENTORY_URL`: the inventory service's gRPC, one URL or several.
    pub inventory_urls: Option<Vec<Uri>>,
}

impl EdgeSettings {
    /// Reads all of them; what is bad is noted in `settings`.
    pub fn read(settings: &mut Settings, admin_default: &str) -> Self {
        Self {
            http_addr: settings.addr("HTTP_ADDR", HTTP_ADDR_DEFAULT),
            admin_addr: settings.addr("ADMIN_ADDR", admin_default),
            order_urls: settings.urls("ORDER_URL"),
            inventory_urls: settings.urls("INVENTORY_URL"),
        }
    }
}

/// The settings that a process of its own cannot do without.
pub const URL_REQUIRED: [&str; 2] = ["ORDER_URL", "INVENTORY_URL"];

/// What `edge --help` says.
pub const HELP: &str = "\
Serves orders and stock over HTTP/JSON.

Usage: edge [healthcheck | openapi | --help | --version]

healthcheck asks the edge of the same ADMIN_ADDR whether it is ready, and ends.
openapi prints the OpenAPI document that is served at /openapi.json, and ends.

Settings are environment variables:
  ORDER_URL                    the order service's gRPC, as in http://127.0.0.1:50051; several with commas  [required]
  INVENTORY_URL                the inventory service's gRPC, likewise                                       [required]
  HTTP_ADDR                    where HTTP/JSON listens                                        [default: 127.0.0.1:8080]
  ADMIN_ADDR                   where /metrics, /healthz and /readyz listen                    [default: 127.0.0.1:9465]
  DRAIN_DELAY_SECONDS          how long it serves on after SIGTERM, not ready any more, 0..15              [default: 1]
  LOG_FORMAT                   text or json                                                             [default: text]
  RUST_LOG                     what is logged, as in info,edge=debug                                    [default: info]
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, as in http://127.0.0.1:4317                             [default: none]

Exit codes: 0 drained after a signal, 1 failed, 64 called wrongly, 78 settings missing or bad.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_is_the_default_and_every_bad_setting_is_named() {
        let mut settings = Settings::from_pairs([]);
        let read = EdgeSettings::read(&mut settings, ADMIN_ADDR_DEFAULT);
        assert_eq!(read.http_addr.to_string(), HTTP_ADDR_DEFAULT);
        assert_eq!(read.admin_addr.to_string(), ADMIN_ADDR_DEFAULT);
        assert!(read.order_urls.is_none() && read.inventory_urls.is_none() && settings.finish().is_ok());

        let names = ["HTTP_ADDR", "ADMIN_ADDR", "ORDER_URL", "INVENTORY_URL"];
        let mut settings = Settings::from_pairs(names.map(|name| (name, "::nonsense")));
        EdgeSettings::read(&mut settings, ADMIN_ADDR_DEFAULT);
        let bad = settings.finish().expect_err("all are bad").to_string();
        assert!(names.iter().all(|name| bad.contains(name)), "{bad}");
    }

    #[test]
    fn help_shows_the_defaults_in_use() {
        for text in [HTTP_ADDR_DEFAULT, ADMIN_ADDR_DEFAULT, URL_REQUIRED[0], URL_REQUIRED[1]] {
            assert!(HELP.contains(text), "{text}");
        }
    }
}
