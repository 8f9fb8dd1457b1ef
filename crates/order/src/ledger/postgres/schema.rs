//! The schema: brought up to date by its owner, checked by everyone else.

use std::{future::Future, time::Duration};

use service::environment::Env;
use sqlx::{
    PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};

use super::connect;
use crate::ledger::LedgerError;

/// The role whose members may do what the application does: no login, no owner. Made by the migration.
pub const APPLICATION_ROLE: &str = "order_service";
/// How long checking, or connecting to migrate, may take, in milliseconds.
const CHECK_MAX_MS: u64 = 5_000;
/// How long one statement of a migration may take, in milliseconds.
const MIGRATION_STATEMENT_MAX_MS: u64 = 600_000;
/// How long it may wait for another instance that migrates, or for a table, in milliseconds. Others queue behind it.
const MIGRATION_LOCK_WAIT_MAX_MS: u64 = 10_000;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");
const ACCESS: &str = include_str!("access.sql");

/// Why the ledger cannot be used yet.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Postgres cannot be reached, or is set up so that it is refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Somebody has to migrate first.
    #[error("the schema is at version {found}, this version needs {needed}: run `order-service migrate`")]
    SchemaTooOld {
        /// 0: there is none.
        found: i64,
        /// The newest that this version knows.
        needed: i64,
    },
    /// A migration of this version is another one than was run.
    #[error("migration {0} of the schema is not the one of this version")]
    SchemaDiffers(i64),
    /// A migration failed.
    #[error("migrating failed: {0}")]
    Migration(#[source] Box<MigrateError>),
    /// The role may not do what the ledger has to.
    #[error(
        "role {role} may not use {table}: make it a member of {APPLICATION_ROLE}, which `order-service migrate` makes"
    )]
    NoAccess {
        /// Whose login it is.
        role: String,
        /// The first table that is closed to it.
        table: String,
    },
}

impl PrepareError {
    /// Whether nobody answers there, or only to say that Postgres is starting or full.
    pub fn is_for_now(&self) -> bool {
        let Self::Ledger(LedgerError::Store(source)) = self else { return false };
        match source.downcast_ref() {
            Some(sqlx::Error::Io(_)) => true,
            Some(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| ["57P03", "53300"].contains(&code.as_ref()))
            }
            _ => source.is::<NoAnswer>(),
        }
    }

    /// Why, without the word that every error of the ledger begins with.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Ledger(LedgerError::Store(source)) => source.to_string(),
            other => other.to_string(),
        }
    }
}

/// Within these milliseconds.
#[derive(Debug, thiserror::Error)]
#[error("Postgres gave no answer within {0} ms")]
struct NoAnswer(u64);

impl From<sqlx::Error> for PrepareError {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

pub(super) async fn prepare(env: &Env, options: &PgConnectOptions, migrate: bool) -> Result<(), PrepareError> {
    let mut connection = bounded(env, async { Ok(connect::connect(options).await?) }).await?;
    match bounded(env, check_version(&mut connection)).await {
        // Only who owns the schema may migrate; who finds it up to date need not.
        Err(PrepareError::SchemaTooOld { .. }) if migrate => run_migrations(&mut connection).await?,
        checked => checked?,
    }
    if migrate && bounded(env, is_access_to_be_granted(&mut connection)).await? {
        grant_access(&mut connection).await;
    }
    bounded(env, check_may(&mut connection, "current_user", &RIGHTS)).await
}

async fn bounded<T>(env: &Env, work: impl Future<Output = Result<T, PrepareError>>) -> Result<T, PrepareError> {
    let done = env.timeout(Duration::from_millis(CHECK_MAX_MS), work).await;
    done.unwrap_or_else(|_| Err(LedgerError::Store(NoAnswer(CHECK_MAX_MS).into()).into()))
}

/// The schema is at least at the version that is needed. Newer is no objection: migrations keep older versions running.
async fn check_version(connection: &mut PgConnection) -> Result<(), PrepareError> {
    let needed = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Err(PrepareError::SchemaTooOld { found: 0, needed });
    }
    check_may(connection, "current_user", &RIGHTS[..1]).await?;
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await?;
    for migration in MIGRATOR.iter() {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, checksum)) if checksum[..] == migration.checksum[..] => {}
            Some(_) => return Err(PrepareError::SchemaDiffers(migration.version)),
            None => {
                let found = applied.last().map_or(0, |(version, _)| *version);
                return Err(PrepareError::SchemaTooOld { found, needed });
            }
        }
    }
    Ok(())
}

/// What the ledger's methods do to each table.
const RIGHTS: [(&str, &str); 17] = [
    ("_sqlx_migrations", "SELECT"),
    ("stock_leases", "SELECT"),
    ("stock_leases", "INSERT"),
    ("stock_leases", "UPDATE"),
    ("restocks", "SELECT"),
    ("restocks", "INSERT"),
    ("order_verdicts", "SELECT"),
    ("order_verdicts", "INSERT"),
    ("order_verdicts", "UPDATE"),
    ("order_verdicts", "DELETE"),
    ("outbox", "SELECT"),
    ("outbox", "INSERT"),
    ("outbox", "UPDATE"),
    ("outbox", "DELETE"),
    ("pulse", "SELECT"),
    ("pulse", "INSERT"),
    ("pulse", "DELETE"),
];

/// Whether a role has these rights: `current_user`, or one by name.
async fn check_may(connection: &mut PgConnection, role: &str, rights: &[(&str, &str)]) -> Result<(), PrepareError> {
    let (tables, kinds): (Vec<&str>, Vec<&str>) = rights.iter().copied().unzip();
    let missing: Option<(String, String)> = sqlx::query_as(
        "SELECT a.role, r.t
        FROM (SELECT CASE $1 WHEN 'current_user' THEN current_user::text ELSE $1 END AS role) a,
            unnest($2::text[], $3::text[]) AS r (t, kind)
        WHERE NOT has_table_privilege(a.role, r.t, r.kind) LIMIT 1",
    )
    .bind(role)
    .bind(tables)
    .bind(kinds)
    .fetch_optional(connection)
    .await?;
    missing.map_or(Ok(()), |(role, table)| Err(PrepareError::NoAccess { role, table }))
}

/// One instance migrates while the others wait for its lock; then they find nothing to do.
async fn run_migrations(connection: &mut PgConnection) -> Result<(), PrepareError> {
    for (name, limit_ms) in
        [("statement_timeout", MIGRATION_STATEMENT_MAX_MS), ("lock_timeout", MIGRATION_LOCK_WAIT_MAX_MS)]
    {
        let set = sqlx::query("SELECT set_config($1, $2, false)").bind(name).bind(limit_ms.to_string());
        set.execute(&mut *connection).await?;
    }
    let done = MIGRATOR.run_direct(None, connection, false).await;
    done.map_err(|error| PrepareError::Migration(Box::new(error)))
}

/// The tables are this role's, and the application's role is missing or has not all of its rights.
async fn is_access_to_be_granted(connection: &mut PgConnection) -> Result<bool, PrepareError> {
    let (owns, exists): (bool, bool) = sqlx::query_as(
        "SELECT
            (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'order_verdicts'::regclass),
            EXISTS (SELECT FROM pg_roles WHERE rolname = $1)",
    )
    .bind(APPLICATION_ROLE)
    .fetch_one(&mut *connection)
    .await?;
    Ok(owns && !(exists && check_may(connection, APPLICATION_ROLE, &RIGHTS).await.is_ok()))
}

/// An owner that may make no roles can use the ledger itself.
async fn grant_access(connection: &mut PgConnection) {
    if let Err(error) = sqlx::raw_sql(ACCESS).execute(connection).await {
        tracing::warn!(
            %error,
            "only the owner of its tables can use this ledger: to let others, create role {APPLICATION_ROLE} as a \
             superuser (CREATE ROLE {APPLICATION_ROLE} NOLOGIN), then run `order-service migrate` again"
        );
    }
}
