//! Whether statements find their rows by an index, and never by reading a whole table that only grows.

use std::{sync::Arc, time::Duration};

use order::ledger::{
    BooksOf, Ledger, ListQuery, ResolveQuery, Restock,
    conformance::{item, units},
};
use servers::Postgres;
use sqlx::PgConnection;

use crate::fixture::{PostgresFixture, number, opened, outside, real, sql};

const HISTORY: &str = "
    INSERT INTO stock_leases SELECT 'item ' || n, 2, 1000000, 1, now() FROM generate_series(1, 500) n;
    INSERT INTO order_verdicts
        SELECT gen_random_uuid(), 'confirmed', 'item ' || n % 500 + 1, 1, 1, n, 'key:' || n, decode(repeat('07', 32), 'hex'),
            timestamptz '2020-01-01' + n * interval '1 second'
        FROM generate_series(1, 50000) n;
    INSERT INTO order_verdicts
        SELECT gen_random_uuid(), 'aborted', 'item ' || n % 500 + 1, NULL, 2, NULL, NULL, NULL, now()
        FROM generate_series(1, 5000) n;
    INSERT INTO restocks SELECT gen_random_uuid(), 'item ' || n % 500 + 1, 1, 1, now() FROM generate_series(1, 20000) n;
    INSERT INTO outbox (order_id, item, quantity, payload, traceparent, created_at)
        SELECT id, item, 1, '{}', '', now() FROM order_verdicts WHERE state = 'confirmed' LIMIT 20000;
    ANALYZE";

/// How often each table was read as a whole.
async fn whole_reads(look: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query_as(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables
        WHERE relname IN ('order_verdicts', 'restocks', 'outbox') ORDER BY relname",
    )
    .fetch_all(look)
    .await
    .expect("answers")
}

#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let server = Arc::new(Postgres::shared().await);
    let (bench, ledger, url) = PostgresFixture::bench(server).await;
    let mut root = outside(&url).await;
    sql(&mut root, HISTORY).await;
    drop(root);
    let mut root = settled(&url).await;
    let before = whole_reads(&mut root).await;

    // Often enough that plans are made which do not look at the values.
    for round in 0..8 {
        let lease = bench.lease(&item("item 7"), 10).await;
        let orders: Vec<_> = (0..50).map(|n| bench.keyed_order(&lease, &format!("{round} {n}"))).collect();
        bench.commit(&orders).await;
        bench.commit(&orders).await;
        let (key, _) = orders[0].key.as_ref().expect("it has one");
        assert!(ledger.order_by_key(key).await.expect("answers").is_some());
        let first = ledger.order(orders[0].id).await.expect("answers").expect("it is sold");
        for of in [None, Some(item("item 7"))] {
            for after in [None, Some((first.created_at, first.id))] {
                let page = ledger.orders(&ListQuery { item: of.clone(), after, limit: 50 }).await.expect("answers");
                assert!(!page.is_empty());
            }
        }
        let items: Vec<_> = (1..=100).map(|n| item(&format!("item {n}"))).collect();
        ledger.stock(&items, 10).await.expect("answers");
        for of in [BooksOf::Item(item("item 7")), BooksOf::After(Some(item("item 7")))] {
            assert!(ledger.books(&of).await.expect("answers").is_some());
        }
        let queries: Vec<ResolveQuery> =
            (0..50).map(|_| ResolveQuery { id: bench.id(), stamp: Some(bench.order(&lease).stamp) }).collect();
        ledger.resolve(&queries).await.expect("answers");
        let restock = Restock { id: bench.env().uuid(), item: item("item 7"), quantity: units(1) };
        ledger.record_restock(&restock, 10).await.expect("answers");
        ledger.prune_tombstones(100).await.expect("answers");
        let batch = ledger.take_outbox(200).await.expect("answers");
        batch.settle(&[true; 200]).await.expect("answers");
    }
    drop((bench, ledger, root));
    let mut root = settled(&url).await;
    assert_eq!(whole_reads(&mut root).await, before);
}

#[tokio::test]
async fn a_ping_reads_a_table() {
    let server = Arc::new(Postgres::shared().await);
    let url = server.database().await;
    let ledger = opened(&url, real()).await;
    let reads = "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'stock_leases'";
    let before = number(&mut settled(&url).await, reads).await;
    ledger.ping().await.expect("answers");
    drop(ledger);
    assert_eq!(number(&mut settled(&url).await, reads).await, before + 1);
}

/// A connection, when all others have ended and reported what they read.
async fn settled(url: &str) -> PgConnection {
    let mut root = outside(url).await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'";
    while number(&mut root, others).await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    root
}
