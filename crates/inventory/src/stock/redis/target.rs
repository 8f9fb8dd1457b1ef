//! Where Redis is, as an operator says it.

use std::{fmt, str::FromStr};

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// Port of a server whose URL names none.
pub const REDIS_PORT: u16 = 6379;
/// Port of a Sentinel whose URL names none.
pub const SENTINEL_PORT: u16 = 26_379;
/// Most addresses of one URL.
pub const ADDRESSES_MAX: usize = 32;

/// Where Redis is, and how to sign in.
///
/// - `redis://[[user]:password@]host[:port][/database]`: one server
/// - `redis+sentinel://[[user]:password@]host[:port],…/name[/database]`: the master that these Sentinels know by the name
/// - `redis+cluster://[[user]:password@]host[:port],…`: the cluster that these nodes belong to
///
/// `rediss`, `rediss+sentinel` and `rediss+cluster` mean the same over TLS. User and password are percent-encoded, and
/// those of the servers: Sentinels are asked without any.
#[derive(Clone)]
pub enum RedisTarget {
    /// One server.
    Single(ConnectionInfo),
    /// The present master of a group.
    Sentinel {
        /// Where Sentinels are.
        sentinels: Vec<ConnectionInfo>,
        /// What they call the group.
        name: String,
        /// How to sign in to its servers; the address is of no meaning.
        server: ConnectionInfo,
    },
    /// A cluster, by some of its nodes.
    Cluster(Vec<ConnectionInfo>),
}

impl RedisTarget {
    /// Parses a URL. The error says what is wrong without repeating the URL: it may contain a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("must be a URL such as redis://host:6379")?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err(unknown_scheme()),
        };
        if rest.contains(['?', '#']) {
            return Err("must not have a query or a fragment".to_owned());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last `@`: one in a password need not be encoded.
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let parts = Parts { tls, user, hosts, path };
        match kind {
            "" => parts.single(),
            "sentinel" => parts.sentinel(),
            "cluster" => parts.cluster(),
            _ => Err(unknown_scheme()),
        }
    }
}

fn unknown_scheme() -> String {
    "must begin with redis://, redis+sentinel:// or redis+cluster:// (rediss for TLS)".to_owned()
}

struct Parts<'a> {
    tls: bool,
    user: &'a str,
    hosts: &'a str,
    path: &'a str,
}

impl Parts<'_> {
    fn single(&self) -> Result<RedisTarget, String> {
        if self.hosts.contains(',') {
            return Err("names several hosts: redis+sentinel:// and redis+cluster:// can".to_owned());
        }
        address(self.tls, self.user, self.hosts, REDIS_PORT, self.path).map(RedisTarget::Single)
    }

    fn sentinel(&self) -> Result<RedisTarget, String> {
        let (name, database) = self.path.split_once('/').unwrap_or((self.path, ""));
        if name.is_empty() {
            return Err("must name the group: redis+sentinel://host:26379/mymaster".to_owned());
        }
        Ok(RedisTarget::Sentinel {
            sentinels: self.addresses("", SENTINEL_PORT)?,
            name: name.to_owned(),
            server: address(self.tls, self.user, "server", REDIS_PORT, database)?,
        })
    }

    fn cluster(&self) -> Result<RedisTarget, String> {
        if !self.path.is_empty() {
            return Err("a cluster has no databases".to_owned());
        }
        self.addresses(self.user, REDIS_PORT).map(RedisTarget::Cluster)
    }

    fn addresses(&self, user: &str, port: u16) -> Result<Vec<ConnectionInfo>, String> {
        let hosts: Vec<&str> = self.hosts.split(',').map(str::trim).collect();
        if hosts.len() > ADDRESSES_MAX {
            return Err(format!("must name at most {ADDRESSES_MAX} hosts"));
        }
        hosts.into_iter().map(|host| address(self.tls, user, host, port, "")).collect()
    }
}

fn address(tls: bool, user: &str, host: &str, port: u16, database: &str) -> Result<ConnectionInfo, String> {
    let ends_with_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if host.is_empty() || host.starts_with(':') {
        return Err("must name a host".to_owned());
    }
    if !database.is_empty() && u16::from_str(database).is_err() {
        return Err("the database must be a number".to_owned());
    }
    let scheme = if tls { "rediss" } else { "redis" };
    let user = if user.is_empty() { String::new() } else { format!("{}@", user.replace('@', "%40")) };
    let port = if ends_with_port { String::new() } else { format!(":{port}") };
    let url = format!("{scheme}://{user}{host}{port}/{database}");
    // What the library says about it may repeat the password.
    let info = url.into_connection_info().map_err(|_| "has a bad host, port, user or password".to_owned())?;
    // Else it would say its name by a command that a user of few rights is refused.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings))
}

/// Addresses only.
impl fmt::Display for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |infos: &[ConnectionInfo]| {
            let addresses: Vec<String> = infos.iter().map(|info| info.addr().to_string()).collect();
            addresses.join(",")
        };
        match self {
            Self::Single(info) => write!(f, "Redis at {}", info.addr()),
            Self::Sentinel { sentinels, name, .. } => write!(f, "Redis {name} of the Sentinels {}", list(sentinels)),
            Self::Cluster(seeds) => write!(f, "Redis Cluster of {}", list(seeds)),
        }
    }
}

/// The same: neither user nor password.
impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The same server settings at another address.
pub fn moved_to(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(addr)
}

/// The host of an address; empty for a socket file.
pub fn host_of(info: &ConnectionInfo) -> &str {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match RedisTarget::parse(url) {
            Ok(target) => target.to_string(),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    fn every_form_is_understood() {
        assert_eq!(shown("redis://cache"), "Redis at cache:6379");
        assert_eq!(shown("rediss://cache:6380/2"), "Redis at cache:6380");
        assert_eq!(shown("redis://[::1]"), "Redis at ::1:6379");
        assert_eq!(shown("redis+sentinel://a,b:7/mymaster"), "Redis mymaster of the Sentinels a:26379,b:7");
        assert_eq!(shown("rediss+cluster://a,b:7/"), "Redis Cluster of a:6379,b:7");
    }

    #[test]
    fn passwords_databases_and_tls_arrive() {
        let Ok(RedisTarget::Single(info)) = RedisTarget::parse("rediss://us%3Aer:p@ss%2F@cache/3") else { panic!() };
        let settings = info.redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("us:er"), Some("p@ss/")));
        assert_eq!(settings.db(), 3);
        assert!(settings.skip_set_lib_name(), "no command that a user of few rights is refused");
        assert!(matches!(info.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));

        let Ok(target) = RedisTarget::parse("redis+sentinel://:secret@a,b/main/4") else { panic!() };
        let RedisTarget::Sentinel { sentinels, name, server } = target else { panic!() };
        assert_eq!((name.as_str(), server.redis_settings().db()), ("main", 4));
        assert_eq!(server.redis_settings().password(), Some("secret"));
        assert_eq!(sentinels[0].redis_settings().password(), None);

        let Ok(RedisTarget::Cluster(seeds)) = RedisTarget::parse("redis+cluster://:secret@a,b") else { panic!() };
        assert!(seeds.iter().all(|seed| seed.redis_settings().password() == Some("secret")));
        let other = moved_to(&seeds[0], "c", 9);
        assert_eq!((other.addr().to_string(), other.redis_settings().password()), ("c:9".to_owned(), Some("secret")));
    }

    #[test]
    fn a_bad_url_is_refused_without_repeating_it() {
        for bad in [
            "",
            "hunter2",
            "http://:hunter2@cache",
            "redis+ring://:hunter2@cache",
            "redis://:hunter2@",
            "redis://:hunter2@:6379",
            "redis://:hunter2@a,b",
            "redis://:hunter2@cache:port",
            "redis://:hunter2@cache:70000",
            "redis://:hunter2@cache/x",
            "redis://:hunter2@cache?db=1",
            "redis+sentinel://:hunter2@a,b",
            "redis+sentinel://:hunter2@a,b/main/x",
            "redis+cluster://:hunter2@a,b/1",
            "redis+cluster://:hunter2@a,,b",
        ] {
            let error = RedisTarget::parse(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_printed_has_no_secrets() {
        for url in ["redis://us:hunter2@a", "redis+sentinel://us:hunter2@a/m", "redis+cluster://us:hunter2@a"] {
            let target = RedisTarget::parse(url).expect("sane");
            assert!(!format!("{target} {target:?}").contains("hunter2"));
        }
    }
}
