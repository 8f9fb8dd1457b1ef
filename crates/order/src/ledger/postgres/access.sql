-- Lets the members of a role without a login do what the ledger's methods do, and no more. Run by the owner of the tables.
-- One at a time: two that grant at once would meet in one row of the catalogue.
SELECT pg_advisory_xact_lock(hashtextextended('order_service access', 0));

-- A role belongs to the whole server, so another database of it may have made it, or be making it now.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'order_service') THEN
        CREATE ROLE order_service NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

DO $$
BEGIN
    IF NOT has_schema_privilege('order_service', current_schema(), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO order_service', current_schema());
    END IF;
END
$$;

GRANT SELECT ON _sqlx_migrations, orders TO order_service;
GRANT SELECT, INSERT, UPDATE ON stock_leases TO order_service;
GRANT SELECT, INSERT ON restocks TO order_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON order_verdicts TO order_service;
-- UPDATE is what locking a row takes.
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO order_service;
GRANT SELECT, INSERT, DELETE ON pulse TO order_service;
