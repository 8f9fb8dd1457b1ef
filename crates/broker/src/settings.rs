//! What an operator sets, of every process that publishes or consumes.

use service::settings::{LoginSettings, ServerSettings};

/// Where the broker is, when it is not embedded.
pub const BROKER: ServerSettings = ServerSettings {
    name: "RabbitMQ",
    url: "BROKER_URL",
    scheme: "amqp",
    host: "BROKER_HOST",
    port: ("BROKER_PORT", 5672),
    login: Some(LoginSettings { user: ("BROKER_USER", "guest"), password: "BROKER_PASSWORD" }),
    database: None,
};
