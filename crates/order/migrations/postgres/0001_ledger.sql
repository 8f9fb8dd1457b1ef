-- The ledger: what is sold, what is lent, what came in, and which events wait to be published.
-- Texts are compared byte by byte (COLLATE "C"): an index does not depend on the operating system's locales.
-- outbox has no foreign keys: its rows are made by the statement that makes their orders, and each check would write a
-- lock into the row of the item, which many orders share.

-- One row for each item that was ever lent or restocked.
CREATE TABLE stock_leases (
    item      TEXT COLLATE "C" PRIMARY KEY CHECK (item <> ''),
    -- The newest lease; 0 while the item was only restocked.
    epoch     BIGINT      NOT NULL CHECK (epoch >= 0),
    -- Units at the first lease; never follows later changes of the setting.
    initial   BIGINT      NOT NULL CHECK (initial >= 0),
    -- Units of the orders whose outbox row is gone, so that sold = settled + the item's outbox.
    settled   BIGINT      NOT NULL CHECK (settled >= 0),
    leased_at TIMESTAMPTZ CHECK ((leased_at IS NULL) = (epoch = 0))
);

-- One verdict for each reservation that has one. An aborted one is a tombstone: of that item, at that epoch.
CREATE TABLE order_verdicts (
    id          UUID PRIMARY KEY,
    state       TEXT             NOT NULL CHECK (state IN ('confirmed', 'aborted')),
    item        TEXT COLLATE "C" NOT NULL CHECK (item <> ''),
    quantity    BIGINT,
    epoch       BIGINT           NOT NULL CHECK (epoch >= 0),
    number      BIGINT,
    -- `key:` and the client's key, or `attempt:` and an id that a proxy repeats.
    request_key TEXT COLLATE "C" CHECK (request_key <> ''),
    fingerprint BYTEA            CHECK (length(fingerprint) = 32),
    created_at  TIMESTAMPTZ      NOT NULL,
    CHECK ((request_key IS NULL) = (fingerprint IS NULL)),
    CHECK (
        CASE state
            WHEN 'confirmed' THEN
                epoch > 0 AND number IS NOT NULL AND number > 0 AND quantity IS NOT NULL
                AND quantity BETWEEN 1 AND 1000000
            ELSE number IS NULL AND quantity IS NULL AND request_key IS NULL
        END
    )
);

CREATE UNIQUE INDEX order_keys ON order_verdicts (request_key)
    WHERE state = 'confirmed' AND request_key IS NOT NULL;
CREATE INDEX orders_by_time ON order_verdicts (created_at DESC, id DESC) WHERE state = 'confirmed';
CREATE INDEX orders_by_item ON order_verdicts (item, created_at DESC, id DESC) WHERE state = 'confirmed';
CREATE INDEX tombstones ON order_verdicts (item, epoch) WHERE state = 'aborted';

-- For people.
CREATE VIEW orders AS
    SELECT id, item, quantity, created_at FROM order_verdicts WHERE state = 'confirmed';

CREATE TABLE restocks (
    id         UUID PRIMARY KEY,
    item       TEXT COLLATE "C" NOT NULL REFERENCES stock_leases (item),
    quantity   BIGINT           NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    epoch      BIGINT           NOT NULL CHECK (epoch >= 0),
    created_at TIMESTAMPTZ      NOT NULL
);

CREATE INDEX restocks_by_item ON restocks (item) INCLUDE (quantity);

CREATE TABLE outbox (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    UUID             NOT NULL UNIQUE,
    item        TEXT COLLATE "C" NOT NULL,
    quantity    BIGINT           NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    payload     TEXT             NOT NULL,
    traceparent TEXT             NOT NULL,
    created_at  TIMESTAMPTZ      NOT NULL
);

CREATE INDEX outbox_by_item ON outbox (item) INCLUDE (quantity);

-- Written, and emptied again, to see whether there is room for an order. Stored as it is: zeros would shrink to nothing.
CREATE TABLE pulse (filler BYTEA NOT NULL);
ALTER TABLE pulse ALTER COLUMN filler SET STORAGE EXTERNAL;
