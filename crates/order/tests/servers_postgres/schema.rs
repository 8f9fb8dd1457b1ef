//! Migrations, roles, and what is refused.

use std::sync::Arc;

use contracts::values::{Epoch, ReservationId};
use order::ledger::{
    CommitOutcome, Ledger, LedgerError, OpenOutcome, Restock,
    conformance::{Bench, item, racing, units},
    postgres::{PostgresLedger, PostgresUrl, PrepareError},
};
use servers::Postgres;

use crate::fixture::{PostgresFixture, number, outside, real, sql};

async fn unopened(url: &str, migrate: bool) -> (Arc<PostgresLedger>, Result<(), PrepareError>) {
    let ledger = PostgresLedger::new(&url.parse().expect("a valid URL"), real());
    let prepared = ledger.prepare(migrate).await;
    (ledger, prepared)
}

#[tokio::test]
async fn several_order_services_may_migrate_at_once() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    let prepared = futures::future::join_all((0..4).map(|_| unopened(&url, true))).await;
    for (ledger, prepared) in prepared {
        prepared.expect("it is migrated, by whomever");
        ledger.ping().await.expect("answers");
        ledger.prepare(true).await.expect("again");
    }
    let mut connection = outside(&url).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM _sqlx_migrations").await, 1);
}

#[tokio::test]
async fn without_migrating_only_the_version_is_checked() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    let (ledger, refused) = unopened(&url, false).await;
    let refused = refused.expect_err("there is no schema");
    assert_eq!(refused.to_string(), "the schema is at version 0, this version needs 1: run `order-service migrate`");
    assert!(
        ledger.ping().await.is_err() && ledger.order(ReservationId(real().uuid())).await.is_err(),
        "it is not open"
    );
    let mut connection = outside(&url).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);

    unopened(&url, true).await.1.expect("migrates");
    ledger.prepare(false).await.expect("the version is right now");
    ledger.ping().await.expect("it is open");

    // A newer version has migrated; this one goes on.
    sql(&mut connection, "INSERT INTO _sqlx_migrations SELECT 2, 'newer', now(), true, '', 0").await;
    unopened(&url, false).await.1.expect("newer is no objection");
    unopened(&url, true).await.1.expect("newer is no objection");
    sql(&mut connection, "UPDATE _sqlx_migrations SET checksum = 'other' WHERE version = 1").await;
    let differs = unopened(&url, true).await.1.expect_err("it was another migration");
    assert!(matches!(differs, PrepareError::SchemaDiffers(1)), "{differs}");
}

/// Every method of the port once, as a service would.
async fn use_all(ledger: &dyn Ledger, bench: &Bench) -> Result<(), LedgerError> {
    let OpenOutcome::Lease(lease) = ledger.open_stock(&item("widget"), 10, Epoch(1)).await? else {
        panic!("it was named dead")
    };
    let (order, dead) = (bench.keyed_order(&lease, "k"), bench.order(&lease));
    assert!(matches!(ledger.commit(std::slice::from_ref(&order)).await?.remove(0)?, CommitOutcome::Created(_)));
    assert!(ledger.order(order.id).await?.is_some());
    let query = order::ledger::ListQuery { item: None, after: None, limit: 10 };
    assert_eq!(ledger.orders(&query).await?.len(), 1);
    let (key, _) = order.key.as_ref().expect("it has one");
    assert!(ledger.order_by_key(key).await?.is_some());
    let query = order::ledger::ResolveQuery { id: dead.id, stamp: Some(dead.stamp) };
    ledger.resolve(&[query]).await?;
    let restock = Restock { id: bench.env().uuid(), item: item("gadget"), quantity: units(5) };
    ledger.record_restock(&restock, 10).await?;
    assert_eq!(ledger.outbox_backlog().await?.events, 1);
    let books = ledger.books(&order::ledger::BooksOf::After(Some(item("gadget")))).await?.expect("it is lent");
    assert_eq!(books.outbox_events, 1);
    let batch = ledger.take_outbox(10).await?;
    batch.settle(&[true]).await?;
    assert_eq!(ledger.stock(&[item("widget")], 10).await?[0].sold, 1);
    ledger.open_stock(&item("widget"), 10, lease.epoch).await?;
    assert_eq!(ledger.prune_tombstones(10).await?, 1);
    ledger.ping().await
}

#[tokio::test]
async fn the_application_s_role_may_do_all_that_the_ledger_does_and_no_more() {
    let server = Arc::new(Postgres::start().await);
    let (bench, ..) = PostgresFixture::bench(server.clone()).await;
    let mut root = outside(&server.url("postgres")).await;
    sql(&mut root, "CREATE ROLE owner LOGIN CREATEROLE").await;
    sql(&mut root, "CREATE DATABASE shop OWNER owner").await;
    sql(&mut root, "CREATE ROLE app LOGIN; CREATE ROLE stranger LOGIN").await;
    let url = |role: &str| server.url("shop").replace("postgres@", &format!("{role}@"));

    unopened(&url("owner"), true).await.1.expect("the owner migrates");
    for migrate in [false, true] {
        let refused = unopened(&url("stranger"), migrate).await.1.expect_err("it has no rights");
        assert!(matches!(&refused, PrepareError::NoAccess { role, .. } if role == "stranger"), "{refused}");
    }
    sql(&mut root, "GRANT order_service TO app").await;
    for migrate in [false, true] {
        let (ledger, prepared) = unopened(&url("app"), migrate).await;
        prepared.expect("it has the rights, and nothing is to be migrated");
        ledger.ping().await.expect("answers");
        if migrate {
            use_all(&*ledger, &bench).await.expect("it may do all of it");
        }
    }
    let mut app = outside(&url("app")).await;
    for forbidden in [
        "CREATE TABLE mine (n INT)",
        "ALTER TABLE outbox ADD COLUMN n INT",
        "DROP TABLE outbox",
        "TRUNCATE outbox",
        "DELETE FROM stock_leases",
        "UPDATE restocks SET quantity = 1",
        "DELETE FROM restocks",
        "UPDATE _sqlx_migrations SET version = 0",
        "CREATE ROLE other",
    ] {
        assert!(sqlx::query(forbidden).execute(&mut app).await.is_err(), "{forbidden}");
    }
}

#[tokio::test]
async fn an_owner_that_may_make_no_roles_uses_the_ledger_itself() {
    let server = Arc::new(Postgres::start().await);
    let mut root = outside(&server.url("postgres")).await;
    sql(&mut root, "CREATE ROLE owner LOGIN").await;
    sql(&mut root, "CREATE DATABASE shop OWNER owner").await;
    let url = server.url("shop").replace("postgres@", "owner@");
    let (ledger, prepared) = unopened(&url, true).await;
    prepared.expect("it owns what it uses");
    ledger.ping().await.expect("answers");
    // Made by a superuser later, the role gets its rights from the next migration.
    sql(&mut root, "CREATE ROLE order_service NOLOGIN; CREATE ROLE app LOGIN IN ROLE order_service").await;
    let app = server.url("shop").replace("postgres@", "app@");
    unopened(&app, false).await.1.expect_err("it has no rights yet");
    ledger.prepare(true).await.expect("again");
    unopened(&app, false).await.1.expect("now it has");
    let (bench, ..) = PostgresFixture::bench(server).await;
    use_all(&*ledger, &bench).await.expect("and so has the owner");
}

#[tokio::test]
async fn without_synchronous_commit_it_refuses_to_run() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    let name = url.rsplit('/').next().expect("a name").to_owned();
    unopened(&url, true).await.1.expect("it is on");
    let mut connection = outside(&url).await;
    for setting in ["off", "local", "remote_write"] {
        sql(&mut connection, &format!("ALTER DATABASE {name} SET synchronous_commit = {setting}")).await;
        for migrate in [true, false] {
            let refused = unopened(&url, migrate).await.1.expect_err("answered orders could be lost");
            assert!(refused.to_string().contains(&format!("synchronous_commit is {setting}")), "{refused}");
        }
    }
    sql(&mut connection, &format!("ALTER DATABASE {name} SET synchronous_commit = remote_apply")).await;
    unopened(&url, false).await.1.expect("it waits for more than is needed");
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    let name = url.rsplit('/').next().expect("a name").to_owned() + "_latin";
    let mut connection = outside(&url).await;
    let create = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    sql(&mut connection, &format!("CREATE DATABASE {name} {create}")).await;
    let refused = unopened(&server.url(&name), true).await.1.expect_err("items are Unicode");
    assert!(refused.to_string().contains("UTF8 is needed"), "{refused}");
}

#[tokio::test]
async fn a_database_that_is_not_there_and_a_url_that_names_none_are_errors() {
    let server = Postgres::shared().await;
    let refused = unopened(&server.url("nowhere"), true).await.1.expect_err("there is no such database");
    assert!(refused.to_string().contains("\"nowhere\" does not exist"), "{refused}");
    for bad in ["", "nowhere", "mysql://host/db", "postgres://host:port/db"] {
        assert!(bad.parse::<PostgresUrl>().is_err(), "{bad}");
    }
}

#[test]
fn a_url_that_is_cut_inside_its_password_is_refused_without_showing_it() {
    for password in ["1234/secret", "1234?secret=1", "1234#secret", "1/2/secret"] {
        let url = format!("postgres://u:{password}@db/x");
        let refused = url.parse::<PostgresUrl>().expect_err("the password is cut").to_string();
        assert!(refused.contains("%2F") && !refused.contains("secret"), "{refused}");
    }
    let url: PostgresUrl = "postgres://u:1%2F%40secret@db:7/x%40y?sslmode=disable".parse().expect("a valid URL");
    assert_eq!(url.to_string(), "Postgres at db:7, database x@y");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stricter_isolation_by_default_changes_nothing() {
    let server = Arc::new(Postgres::shared().await);
    let url = server.database().await;
    let name = url.rsplit('/').next().expect("a name").to_owned();
    for setting in ["default_transaction_isolation = 'serializable'", "default_transaction_read_only = on"] {
        sql(&mut outside(&server.url("postgres")).await, &format!("ALTER DATABASE {name} SET {setting}")).await;
    }
    let (bench, ..) = PostgresFixture::bench_over(server, url).await;
    racing::every_lease_has_counted_exactly_the_orders_before_it(&bench).await;
}

#[tokio::test]
async fn the_view_of_orders_can_be_read_by_people() {
    let server = Arc::new(Postgres::shared().await);
    let (bench, _, url) = PostgresFixture::bench(server.clone()).await;
    // With the grace before the lease: seven microseconds after a whole second.
    bench.clock.jump(750_007);
    let order = bench.order(&bench.lease(&item("widget"), 10).await);
    bench.sell(&order).await;
    bench.resolve(bench.id(), Some(&order.stamp)).await;
    let seen = server.sql(url.rsplit('/').next().expect("a name"), "SET timezone = 'UTC'; SELECT * FROM orders").await;
    let time = order.created_at.to_string().replace('T', " ").replace('Z', "+00");
    assert_eq!(seen.trim(), format!("{}|widget|1|{time}", order.id));
}
