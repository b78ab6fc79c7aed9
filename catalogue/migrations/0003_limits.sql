-- How many active tables a visitor may keep, and how many different assets a table may
-- hold.  The database says so, because two applications and many clients write here.
--
-- Writers that would exceed a limit together take turns: each waits for the others to
-- commit and counts again.  Under REPEATABLE READ a count would not see what others have
-- committed since, so there the row with the limit is written: whoever comes second is
-- told to start over (a serialization failure).  SERIALIZABLE finds that out by itself.
--
-- The functions look in the schema that they were made in, or moved to, and ignore the path of
-- their caller.
--
-- What is carried over from the old application, or copied, was there before any limit:
-- the setting terrain.sync, on within such a transaction, lets it pass.

CREATE OR REPLACE FUNCTION terrain_table_limit() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
DECLARE
    allowed integer;
    there bigint;
BEGIN
    IF current_setting('terrain.sync', true) = 'on' THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') = 'repeatable read' THEN
        UPDATE anonymous_sessions s SET table_limit = s.table_limit
         WHERE s.id = NEW.session_id RETURNING s.table_limit INTO allowed;
    ELSE
        SELECT s.table_limit INTO allowed FROM anonymous_sessions s
         WHERE s.id = NEW.session_id FOR NO KEY UPDATE;
    END IF;
    SELECT count(*) INTO there FROM tables t
     WHERE t.session_id = NEW.session_id AND t.status = 'active';
    IF there > allowed THEN
        RAISE EXCEPTION 'A visitor without an account may keep % active tables, and session % has them.',
                        allowed, NEW.session_id
            USING ERRCODE = 'TB001',
                  HINT = 'Sign in, delete or archive a table, or raise the session''s table limit.';
    END IF;
    RETURN NULL;
END $body$;

CREATE OR REPLACE TRIGGER terrain_table_limit_insert AFTER INSERT ON tables
    FOR EACH ROW WHEN (NEW.session_id IS NOT NULL AND NEW.status = 'active')
    EXECUTE FUNCTION terrain_table_limit();

CREATE OR REPLACE TRIGGER terrain_table_limit_update AFTER UPDATE ON tables
    FOR EACH ROW WHEN (NEW.session_id IS NOT NULL AND NEW.status = 'active'
                       AND (OLD.session_id IS DISTINCT FROM NEW.session_id
                            OR OLD.status <> NEW.status))
    EXECUTE FUNCTION terrain_table_limit();

-- The lock is an advisory one: a lock on the table's row would make the old application
-- wait whenever it saves that table.
CREATE OR REPLACE FUNCTION terrain_check_assets(_table uuid) RETURNS void
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
DECLARE
    allowed integer;
    there bigint;
BEGIN
    IF current_setting('transaction_isolation') = 'repeatable read' THEN
        UPDATE tables t SET max_assets = t.max_assets WHERE t.id = _table;
    END IF;
    PERFORM pg_advisory_xact_lock(2118426883, hashtext(_table::text));
    SELECT t.max_assets INTO allowed FROM tables t WHERE t.id = _table;
    SELECT count(*) INTO there FROM table_assets a WHERE a.table_id = _table;
    IF there > allowed THEN
        RAISE EXCEPTION 'Table % may hold % different assets, and this would make %.',
                        _table, allowed, there
            USING ERRCODE = 'TB001',
                  HINT = 'Take an asset off the table, or raise its max assets.';
    END IF;
END $body$;

CREATE OR REPLACE FUNCTION terrain_asset_limit_insert() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    IF current_setting('terrain.sync', true) IS DISTINCT FROM 'on' THEN
        -- Always in the same order, so that two statements never wait for each other.
        PERFORM terrain_check_assets(t.table_id)
           FROM (SELECT DISTINCT a.table_id FROM added a ORDER BY 1) t;
    END IF;
    RETURN NULL;
END $body$;

CREATE OR REPLACE FUNCTION terrain_asset_limit_update() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    IF current_setting('terrain.sync', true) IS DISTINCT FROM 'on' THEN
        PERFORM terrain_check_assets(NEW.table_id);
    END IF;
    RETURN NULL;
END $body$;

CREATE OR REPLACE TRIGGER terrain_asset_limit_insert AFTER INSERT ON table_assets
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION terrain_asset_limit_insert();

CREATE OR REPLACE TRIGGER terrain_asset_limit_update AFTER UPDATE ON table_assets
    FOR EACH ROW WHEN (OLD.table_id <> NEW.table_id)
    EXECUTE FUNCTION terrain_asset_limit_update();
