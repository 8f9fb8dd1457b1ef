-- Queues and their messages. Who holds which message at the moment is not stored: after a restart nobody does.

CREATE TABLE queues (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    length_max INTEGER NOT NULL,
    -- Both are null in a dead-letter queue, which has no limit of deliveries and no dead letters of its own.
    redeliveries_max INTEGER,
    dead_letters INTEGER UNIQUE REFERENCES queues (id),
    -- Its messages, kept by the triggers below: counting them at every publish would cost more the longer the queue.
    length INTEGER NOT NULL DEFAULT 0 CHECK (length BETWEEN 0 AND length_max),
    CHECK ((redeliveries_max IS NULL) = (dead_letters IS NULL))
) STRICT;

CREATE TABLE messages (
    -- Order of delivery. A number is never used twice.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL REFERENCES queues (id),
    message_id TEXT NOT NULL,
    -- A JSON object of strings.
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    -- How often it was handed to a consumer, counted before it is handed out: a crash does not hide a delivery.
    deliveries INTEGER NOT NULL DEFAULT 0,
    -- 1: is to be a dead letter and waits for room there; it is delivered to nobody.
    doomed INTEGER NOT NULL DEFAULT 0 CHECK (doomed IN (0, 1)),
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX messages_ready ON messages (queue, seq) WHERE doomed = 0;
CREATE INDEX messages_doomed ON messages (queue, seq) WHERE doomed = 1;

CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    UPDATE queues SET length = length + 1 WHERE id = NEW.queue;
END;

CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
    UPDATE queues SET length = length - 1 WHERE id = OLD.queue;
END;

CREATE TRIGGER message_moved AFTER UPDATE OF queue ON messages BEGIN
    UPDATE queues SET length = length - 1 WHERE id = OLD.queue;
    UPDATE queues SET length = length + 1 WHERE id = NEW.queue;
END;
