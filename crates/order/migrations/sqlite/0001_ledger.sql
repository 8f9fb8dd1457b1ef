-- The ledger: what is sold, what is lent, what came in, and which events wait to be published.
-- Ids are UUIDs in their hyphenated lower-case form. Times are microseconds since the Unix epoch, UTC.

-- One row for each item that was ever lent or restocked.
CREATE TABLE stock_leases (
    item      TEXT    NOT NULL PRIMARY KEY CHECK (item <> ''),
    -- The newest lease; 0 while the item was only restocked.
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    -- Units at the first lease; never follows later changes of the setting.
    initial   INTEGER NOT NULL CHECK (initial >= 0),
    -- Units of the orders whose outbox row is gone, so that sold = settled + the item's outbox.
    settled   INTEGER NOT NULL CHECK (settled >= 0),
    leased_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One verdict for each reservation that has one. An aborted one is a tombstone: of that item, at that epoch.
CREATE TABLE order_verdicts (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    state           TEXT    NOT NULL CHECK (state IN ('confirmed', 'aborted')),
    item            TEXT    NOT NULL CHECK (item <> ''),
    quantity        INTEGER,
    epoch           INTEGER NOT NULL CHECK (epoch >= 0),
    number          INTEGER,
    -- `key:` and the client's key, or `attempt:` and an id that a proxy repeats.
    request_key     TEXT    CHECK (request_key <> ''),
    fingerprint     BLOB    CHECK (length(fingerprint) = 32),
    created_at      INTEGER NOT NULL,
    CHECK ((request_key IS NULL) = (fingerprint IS NULL)),
    CHECK (
        CASE state
            WHEN 'confirmed' THEN
                epoch > 0 AND number IS NOT NULL AND number > 0 AND quantity IS NOT NULL
                AND quantity BETWEEN 1 AND 1000000
            ELSE number IS NULL AND quantity IS NULL AND request_key IS NULL
        END
    )
) STRICT;

CREATE UNIQUE INDEX order_keys ON order_verdicts (request_key)
    WHERE state = 'confirmed' AND request_key IS NOT NULL;
CREATE INDEX orders_by_time ON order_verdicts (created_at DESC, id DESC) WHERE state = 'confirmed';
CREATE INDEX orders_by_item ON order_verdicts (item, created_at DESC, id DESC) WHERE state = 'confirmed';
CREATE INDEX tombstones ON order_verdicts (item, epoch) WHERE state = 'aborted';

-- For people: times are RFC 3339.
CREATE VIEW orders AS
    SELECT
        id,
        item,
        quantity,
        strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000000, 'unixepoch')
            || printf('.%06dZ', created_at % 1000000) AS created_at
    FROM order_verdicts
    WHERE state = 'confirmed';

CREATE TABLE restocks (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    item       TEXT    NOT NULL REFERENCES stock_leases (item),
    quantity   INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    epoch      INTEGER NOT NULL CHECK (epoch >= 0),
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX restocks_by_item ON restocks (item, quantity);

CREATE TABLE outbox (
    -- Never used again, so that a relay cannot settle an event that it did not take.
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id    TEXT    NOT NULL UNIQUE REFERENCES order_verdicts (id),
    item        TEXT    NOT NULL REFERENCES stock_leases (item),
    quantity    INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    payload     TEXT    NOT NULL,
    traceparent TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_by_item ON outbox (item, quantity);

-- Written, and emptied again, to see whether there is room for an order.
CREATE TABLE pulse (filler BLOB NOT NULL) STRICT;
