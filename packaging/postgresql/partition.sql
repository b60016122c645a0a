-- Partitions the table of records by month, while servers run.  For PostgreSQL 14 or later, and ledgers of tens of
-- millions of records:
--
--     psql -v ON_ERROR_STOP=1 -f partition.sql postgresql://proxy@db.example.com/ledger
--     psql -c 'SELECT tornado_proxy.add_record_partitions(3)' ...             each month
--     psql -c 'SELECT tornado_proxy.drop_empty_record_partitions()' ...       after `tornado-proxy ledger prune`
--
-- The records that exist become the first partition as they are: no row is copied.  A record is stored once by its
-- request_id and started_at, which its intent has already.  All servers must be of a version that has this file.

SET search_path = tornado_proxy;

-- Without locks that writers wait for; minutes for tens of millions of records.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS records_first_request ON records (request_id, started_at);

SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY-MM-DD') AS next_month \gset

ALTER TABLE records DROP CONSTRAINT IF EXISTS records_first_time;
ALTER TABLE records
    ADD CONSTRAINT records_first_time CHECK (started_at IS NOT NULL AND started_at < :'next_month') NOT VALID;
ALTER TABLE records VALIDATE CONSTRAINT records_first_time;

CREATE OR REPLACE FUNCTION add_record_partitions(months integer) RETURNS void LANGUAGE plpgsql
SET search_path = tornado_proxy AS $$
DECLARE
    first timestamp;
    name text;
BEGIN
    FOR number IN 1..months LOOP
        first := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => number);
        name := to_char(first, '"records_"YYYY_MM');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I PARTITION OF records FOR VALUES FROM (%L) TO (%L)', name,
            to_char(first, 'YYYY-MM-DD'), to_char(first + interval '1 month', 'YYYY-MM-DD'));
        PERFORM guard_record_partition(name);
    END LOOP;
END $$;

-- The trigger of `records` is not fired by a statement that names a partition.
CREATE OR REPLACE FUNCTION guard_record_partition(name text) RETURNS void LANGUAGE plpgsql
SET search_path = tornado_proxy AS $$
BEGIN
    EXECUTE format('CREATE INDEX ON %I (seq)', name);
    EXECUTE format('CREATE TRIGGER records_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
        'FOR EACH STATEMENT EXECUTE FUNCTION append_only()', name);
END $$;

-- Partitions before the day of the last prune that have no record any more: their space is free at once.
CREATE OR REPLACE FUNCTION drop_empty_record_partitions() RETURNS SETOF text LANGUAGE plpgsql
SET search_path = tornado_proxy AS $$
DECLARE
    part record;
    is_empty boolean;
BEGIN
    FOR part IN
        SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'records'::regclass
        AND substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)') COLLATE "C"
            <= (SELECT value FROM meta WHERE key = 'pruned_before')
    LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM %I)', part.name) INTO is_empty;
        IF is_empty THEN
            EXECUTE format('DROP TABLE %I', part.name);
            RETURN NEXT part.name;
        END IF;
    END LOOP;
END $$;

-- Writers wait for this transaction: it changes the catalog alone.
BEGIN;
SET LOCAL lock_timeout = '10s';
LOCK TABLE records;
SELECT pg_get_viewdef('bills'::regclass) AS bills, coalesce(max(seq), 0) + 1 AS next_seq FROM records \gset
SELECT coalesce(max(pg_get_triggerdef(oid)), '') AS pruned_trigger FROM pg_trigger
WHERE tgrelid = 'records'::regclass AND tgname = 'records_pruned' \gset
DROP TRIGGER IF EXISTS records_pruned ON records;
DROP VIEW bills;
ALTER TABLE records ALTER seq DROP IDENTITY;
ALTER TABLE records RENAME TO records_first;
CREATE SEQUENCE records_number START :next_seq;
CREATE TABLE records (LIKE records_first) PARTITION BY RANGE (started_at);
ALTER TABLE records ALTER seq SET DEFAULT nextval('records_number');
ALTER TABLE records ATTACH PARTITION records_first FOR VALUES FROM (MINVALUE) TO (:'next_month');
CREATE UNIQUE INDEX records_once ON records (request_id, started_at);
CREATE INDEX records_by_project ON records (project_id, started_at);
CREATE INDEX records_by_time ON records (started_at);
CREATE INDEX records_by_pending ON records (request_id) WHERE basis = 'pending';
CREATE INDEX records_by_pending_time ON records (started_at, request_id, seq) WHERE basis = 'pending';
CREATE INDEX records_by_idempotency ON records (idempotency_hash) WHERE idempotency_hash IS NOT NULL;
CREATE TRIGGER records_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON records
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER records_announce BEFORE INSERT ON records FOR EACH STATEMENT EXECUTE FUNCTION announce_writer();
-- A trigger for each row, if the ledger has been pruned; each partition gets it.
:pruned_trigger ;
CREATE VIEW bills AS :bills
-- Records of a month that has no partition yet: none is ever refused.
CREATE TABLE records_other PARTITION OF records DEFAULT;
SELECT guard_record_partition('records_other');
SELECT add_record_partitions(3);
DROP INDEX IF EXISTS records_request;
COMMIT;

ANALYZE records;
