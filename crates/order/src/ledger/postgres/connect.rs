//! A session with Postgres: what it is set to, and which server or setting is refused.

use std::{fmt, str::FromStr};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::ledger::LedgerError;

/// The oldest server that has what is used here, as Postgres numbers its versions.
pub const SERVER_VERSION_MIN: i32 = 130_000;
/// How long a statement may take, in milliseconds.
pub const STATEMENT_MAX_MS: u64 = 2_000;
/// How long a statement may wait for a lock, in milliseconds: longer than whoever has it may do nothing.
pub const LOCK_WAIT_MAX_MS: u64 = 1_300;
/// How long a transaction may do nothing, in milliseconds. Then the server ends it, and its locks are free: an order
/// service that is frozen inside one stops the others no longer.
pub const IDLE_IN_TRANSACTION_MAX_MS: u64 = 1_000;
/// When the server takes a peer that does not acknowledge what it sends to be gone, in milliseconds.
const PEER_SILENCE_MAX_MS: u64 = 10_000;
/// When the server asks a silent peer whether it is there, and how often, in seconds.
const KEEPALIVE_IDLE_S: u64 = 5;

/// Postgres' code for a wrong password, and for a user that it does not know either.
const PASSWORD_REFUSED: &str = "28P01";
/// Postgres' code for a user who may not sign in, whatever the password.
const USER_REFUSED: &str = "28000";

/// A URL that names no database of Postgres.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

/// Where a database is, and how to sign in: `postgres://user:password@host:port/database`.
#[derive(Clone)]
pub struct PostgresUrl(pub(super) PgConnectOptions);

impl FromStr for PostgresUrl {
    type Err = InvalidUrl;

    /// The session's settings are part of the connection's first message: they go before those of the role and the
    /// database.
    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(InvalidUrl("must begin with postgres:// or postgresql://".to_owned()));
        }
        // Else a part of a password would be taken for the host, the database or an option, and be shown.
        if url.splitn(4, ['/', '?', '#']).nth(3).is_some_and(|rest| rest.contains('@')) {
            return Err(InvalidUrl(
                "has an @ after its host: in names and passwords write %2F for /, %40 for @".to_owned(),
            ));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| InvalidUrl(error.to_string()))?;
        let options = if url.contains("sslmode=") || url.contains("ssl-mode=") {
            options
        } else {
            // What libpq does without a word on it: TLS where the server has it. Stated, because the library may change.
            options.ssl_mode(PgSslMode::Prefer)
        };
        Ok(Self(options.application_name("order-service").disable_statement_logging().options([
            ("statement_timeout", STATEMENT_MAX_MS.to_string()),
            ("lock_timeout", LOCK_WAIT_MAX_MS.to_string()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MAX_MS.to_string()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("default_transaction_read_only", "off".to_owned()),
            ("tcp_user_timeout", PEER_SILENCE_MAX_MS.to_string()),
            ("tcp_keepalives_idle", KEEPALIVE_IDLE_S.to_string()),
            ("tcp_keepalives_interval", KEEPALIVE_IDLE_S.to_string()),
            ("tcp_keepalives_count", "3".to_owned()),
        ])))
    }
}

/// Neither user nor password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.0;
        let database = options.get_database().unwrap_or("of the user's name");
        write!(f, "Postgres at {}:{}, database {database}", options.get_host(), options.get_port())
    }
}

/// The same.
impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Holds the session to the durability it was found with, whatever the server's configuration becomes.
const CHECK: &str = "
    SELECT
        current_setting('server_version_num')::int AS version,
        pg_is_in_recovery() AS is_standby,
        current_setting('server_encoding') AS encoding,
        set_config('synchronous_commit', current_setting('synchronous_commit'), false) AS synchronous_commit,
        (SELECT setting::bigint FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout') AS idle_ms,
        (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout') AS statement_ms,
        (SELECT setting::bigint FROM pg_settings WHERE name = 'lock_timeout') AS lock_ms";

#[derive(sqlx::FromRow)]
struct Server {
    version: i32,
    is_standby: bool,
    encoding: String,
    synchronous_commit: String,
    idle_ms: i64,
    statement_ms: i64,
    lock_ms: i64,
}

impl Server {
    /// Why no ledger can be kept there.
    fn objection(&self) -> Option<String> {
        if self.version < SERVER_VERSION_MIN {
            let (is, least) = (self.version / 10_000, SERVER_VERSION_MIN / 10_000);
            return Some(format!("Postgres {is} is too old: {least} or newer is needed"));
        }
        if self.is_standby {
            return Some("Postgres is a standby, which cannot be written".to_owned());
        }
        if self.encoding != "UTF8" {
            return Some(format!("the database is encoded as {}: UTF8 is needed", self.encoding));
        }
        if !["on", "remote_apply"].contains(&self.synchronous_commit.as_str()) {
            return Some(format!(
                "synchronous_commit is {}: a crash could lose orders that were answered; on or remote_apply is needed",
                self.synchronous_commit
            ));
        }
        let bounds = [self.idle_ms, self.statement_ms, self.lock_ms];
        let wanted = [IDLE_IN_TRANSACTION_MAX_MS, STATEMENT_MAX_MS, LOCK_WAIT_MAX_MS];
        if bounds.iter().zip(wanted).any(|(is, wanted)| u64::try_from(*is) != Ok(wanted)) {
            return Some(format!(
                "the session has time-outs {bounds:?} ms, not {wanted:?}: does a proxy drop its options?"
            ));
        }
        None
    }
}

/// Says to whoever has just changed a password or a user what that takes.
fn told_what_to_do(options: &PgConnectOptions, error: sqlx::Error) -> LedgerError {
    let (user, refusal) = (options.get_username(), error.as_database_error());
    let told = refusal.and_then(|refusal| match refusal.code()?.as_ref() {
        PASSWORD_REFUSED => Some(format!(
            "Postgres refuses the password of user \"{user}\": if POSTGRES_PASSWORD was changed after the database was \
             made, change it there too (ALTER ROLE \"{user}\" PASSWORD '...') or put the old one back"
        )),
        USER_REFUSED => Some(format!(
            "Postgres refuses user \"{user}\": {}; if POSTGRES_USER was changed after the database was made, put the \
             old one back",
            refusal.message()
        )),
        _ => None,
    });
    told.map_or_else(|| error.into(), |told| LedgerError::Store(told.into()))
}

/// Connects, and refuses a server or a setting that a ledger cannot be kept with.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, LedgerError> {
    let connected = PgConnection::connect_with(options).await;
    let mut connection = connected.map_err(|error| told_what_to_do(options, error))?;
    let server: Server = sqlx::query_as(CHECK).fetch_one(&mut connection).await?;
    match server.objection() {
        None => Ok(connection),
        Some(objection) => Err(LedgerError::Store(objection.into())),
    }
}
