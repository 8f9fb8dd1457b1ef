//! The environment of each process. An input is one `NAME=value` a line.

use std::fmt::Debug;

use edge::EdgeSettings;
use proptest::{collection::vec, prelude::*, sample::select};
use service::settings::{BadSettings, Settings};

use crate::driver::{self, Inputs, Verdict};

/// What stands in secrets here, and nowhere else. No complaint repeats it.
const SECRET: &str = "hunter2";
const SECRETS: [&str; 6] =
    ["DB_URL", "REDIS_URL", "BROKER_URL", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "BROKER_PASSWORD"];

#[test]
fn settings_are_read_or_refused_by_name_and_no_secret_is_shown() {
    driver::run("settings", inputs(), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
        // What a file says is not the line's affair.
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let pairs: Vec<_> = pairs.filter(|(name, _)| !name.ends_with("_FILE")).collect();
        // A parameter behind `?` is no secret: the complaint says which value of it is unknown.
        let is_shown = |(name, value): &(&str, &str)| !SECRETS.contains(name) || value.contains('?');
        if pairs.iter().any(|pair| is_shown(pair) && pair.1.contains(SECRET)) {
            return Ok(());
        }
        // Elsewhere in a good URL it is a host or a user.
        let count = |text: &str, part| text.matches(part).count();
        let is_password =
            |name: &str, value| name.ends_with("_PASSWORD") || count(value, SECRET) == count(value, ":hunter2@");
        let hidden = pairs.iter().all(|(name, value)| is_password(name, value));
        let settings = || Settings::from_pairs(pairs.iter().copied());
        check(order::settings::ProcessSettings::read(settings()), hidden)?;
        check(inventory::settings::ProcessSettings::read(settings()), hidden)?;
        let mut read = settings();
        let edge = EdgeSettings::read(&mut read, "127.0.0.1:9465");
        check(read.finish().map(|()| edge), hidden)
    });
}

fn check<T: Debug>(read: Result<T, BadSettings>, hidden: bool) -> Verdict {
    let said = match read {
        Ok(settings) if hidden => format!("{settings:?}"),
        Ok(_) => String::new(),
        Err(bad) => {
            let text = bad.to_string();
            let named = text.lines().next().and_then(|line| line.split_once(": "));
            prop_assert!(named.is_some_and(|(name, why)| !name.is_empty() && !why.is_empty()), "{text}");
            text
        }
    };
    prop_assert!(!said.contains(SECRET), "{said}");
    Ok(())
}

fn inputs() -> Inputs {
    let urls: &[&str] = &[
        "postgres://u:hunter2@h:5432/d",
        "postgres://u:hunter2@h:x/d",
        "postgres://u:hunter2@",
        "postgres://hunter2",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
        "postgres://u:hunter2@h/d?hunter2=1",
        "mysql://u:hunter2@h",
        "redis://:hunter2@h:6379",
        "redis://u:hunter2@h:6379/x",
        "redis+sentinel://:hunter2@a:1,b:2/group",
        "redis+cluster://:hunter2@a:1,b:x",
        "rediss://:hunter2@h",
        "redis://:hunter2@[::1",
        "amqp://u:hunter2@h:5672/%2f",
        "amqp://u:hunter2@h:99999/v",
        "amqps://u:hunter2@h/v?heartbeat=hunter2",
        "amqp://u:hunter2%@h",
        "hunter2",
        "://hunter2",
    ];
    let values: &[&str] = &[
        "",
        " ",
        "1",
        "0",
        "-1",
        "86400",
        "86401",
        "1000000001",
        "99999999999999999999",
        "true",
        "no",
        "text",
        "json",
        "127.0.0.1:8080",
        "127.0.0.1",
        "[::1]:0",
        "http://a:1",
        "http://a:1,http://b:2/",
        "http://",
        "https://a:1",
        "::1",
        "h",
        "a b",
        "info,order=debug",
        "=",
        "order=[",
        "\u{e9}",
    ];
    let names: &[&str] = &[
        "ORDER_GRPC_ADDR",
        "INVENTORY_GRPC_ADDR",
        "HTTP_ADDR",
        "ADMIN_ADDR",
        "ORDER_URL",
        "INVENTORY_URL",
        "DEFAULT_STOCK",
        "RESERVATION_TTL_SECONDS",
        "MIGRATE",
        "LOG_FORMAT",
        "RUST_LOG",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_USER",
        "POSTGRES_DB",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_USER",
        "BROKER_HOST",
        "BROKER_PORT",
        "BROKER_USER",
    ];
    let plain = (select(names), select(values)).prop_map(|(name, value)| format!("{name}={value}"));
    let secret = (select(&SECRETS[..]), select(urls)).prop_map(|(name, value)| format!("{name}={value}"));
    let good = Just(vec![
        "DB_URL=postgres://u:hunter2@h/d",
        "REDIS_URL=redis://:hunter2@h",
        "BROKER_URL=amqp://u:hunter2@h/v",
        "ORDER_URL=http://a:1",
        "INVENTORY_URL=http://b:2",
    ]);
    let base = prop_oneof![good, Just(Vec::new())];
    (base, vec(prop_oneof![2 => plain, 1 => secret], 0..5))
        .prop_map(|(base, more)| {
            let lines: Vec<String> = base.into_iter().map(str::to_owned).chain(more).collect();
            lines.join("\n").into_bytes()
        })
        .boxed()
}
