//! The checker reads what real servers have.

use chaos::checker::{collect, evidence::ItemKeys};
use servers::{Postgres, Redis};
use uuid::Uuid;

const SCHEMA: &str = include_str!("../../order/migrations/postgres/0001_ledger.sql");
const ROWS: &str = "
    INSERT INTO stock_leases VALUES ('widget', 7, 10, 2, now()), ('日本', 0, 10, 0, NULL);
    INSERT INTO order_verdicts (id, state, item, quantity, epoch, number, request_key, fingerprint, created_at) VALUES
        ('00000000-0000-0000-0000-000000000002', 'confirmed', 'widget', 3, 7, 5, 'key:k', sha256('x'), 'epoch'::timestamptz + '3 us'),
        ('00000000-0000-0000-0000-000000000001', 'aborted', 'widget', NULL, 6, NULL, NULL, NULL, 'epoch');
    INSERT INTO restocks VALUES ('00000000-0000-0000-0000-000000000003', '日本', 4, 0, 'epoch'::timestamptz + '2 s');
    INSERT INTO outbox (order_id, item, quantity, payload, traceparent, created_at)
        VALUES ('00000000-0000-0000-0000-000000000002', 'widget', 3, '{}', '', now());";

#[tokio::test]
async fn the_ledger_is_read_as_it_stands() {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let name = database.rsplit('/').next().expect("a name");
    postgres.sql(name, &format!("{SCHEMA}{ROWS}")).await;
    let ledger = collect::ledger(&database).await.expect("read");

    let verdicts: Vec<_> = ledger
        .verdicts
        .iter()
        .map(|row| {
            (row.id.as_u128(), row.confirmed, row.quantity, row.epoch, row.number, row.key.as_deref(), row.created_at)
        })
        .collect();
    assert_eq!(verdicts, [(1, false, 0, 6, 0, None, 0), (2, true, 3, 7, 5, Some("key:k"), 3)]);
    let leases: Vec<_> = ledger.leases.iter().map(|(item, l)| (&**item, l.epoch, l.initial, l.settled)).collect();
    assert_eq!(leases, [("widget", 7, 10, 2), ("日本", 0, 10, 0)]);
    let restock = &ledger.restocks[0];
    assert_eq!((restock.id.as_u128(), &*restock.item, restock.quantity, restock.created_at), (3, "日本", 4, 2_000_000));
    let event = &ledger.outbox[0];
    assert_eq!((event.order, &*event.item, event.quantity), (Uuid::from_u128(2), "widget", 3));
}

#[tokio::test]
async fn the_stock_store_is_read_as_it_stands() {
    let redis = Redis::start().await;
    let replication = redis.cli(&["INFO", "replication"]).await;
    let life = replication.lines().find_map(|line| line.strip_prefix("master_replid:")).expect("it has one").trim();
    for (item, loaded_in) in [("widget", life), ("lost", "another")] {
        redis.cli(&["SET", item, "5"]).await;
        let fields = "epoch 7 lease 7 received 10 held 3 sold 2 number 9 holds 2 restocks 0 incarnation";
        let ledger = format!("{{{item}}}:ledger");
        let mut command = vec!["HSET", &ledger];
        command.extend(fields.split(' '));
        command.push(loaded_in);
        redis.cli(&command).await;
        redis.cli(&["HSET", &format!("{{{item}}}:holds"), "a", "1:8", "b", "2:9"]).await;
        redis.cli(&["ZADD", &format!("{{{item}}}:due"), "1", "a", "2", "b"]).await;
    }
    redis.cli(&["SET", "{widget}:surprise", "1"]).await;
    let stock = collect::stock(&redis.url()).await.expect("read");

    let keys = ItemKeys {
        open: true,
        epoch: 7,
        received: 10,
        available: 5,
        held: 3,
        sold: 2,
        holds: 2,
        entries: 2,
        deadlines: 2,
        units: 3,
    };
    let items: Vec<_> = stock.items.iter().map(|(item, keys)| (&**item, *keys)).collect();
    assert_eq!(items, [("lost", ItemKeys { open: false, ..keys }), ("widget", keys)]);
    assert_eq!(stock.stray, ["{widget}:surprise"]);
}
