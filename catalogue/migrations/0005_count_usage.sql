-- Counting what is done with assets, as it happens and whoever does it.
--
-- Two things are watched.  A table's layout, which both applications save: the old one's
-- changes arrive here by the triggers that keep the schemas in step.  And a table's
-- library, as far as somebody's hand is in it: a row whose quantity is what was last
-- counted merely follows the layout and says nothing of its own.
--
-- Only changes are counted, each from the row before and the row after it, under the lock
-- that the writer has on the row anyway.  So each is counted once, whatever else goes on,
-- and from the moment of installation adds minus removals is the change of what is there.
--
-- A counter that is updated would make writers wait for each other until they commit.  So
-- changes are appended to asset_usage_log, which has no unique key but its own number and
-- no foreign key, and summed up later (catalogue/usage.py).
--
-- The functions write as their owner: the old application's changes come with other rights.
-- They look in the schema that they were made in, or moved to, and ignore the path of their caller.
-- Each call has exactly the types of a function of pg_catalog, so that a role that may create
-- functions in that schema cannot have one of its own called instead.

CREATE OR REPLACE FUNCTION terrain_count_layout_1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $body$
DECLARE
    -- What each placement calls its asset.  Strict, because a lax path would also look into
    -- arrays within the array; whatever has another shape than it should places nothing.
    named CONSTANT jsonpath := jsonpath 'strict $.models[*] ? (exists (@.asset_id)).asset_id';
    was jsonb := '[]';
    is_ jsonb := '[]';
BEGIN
    IF TG_OP <> 'INSERT' THEN
        was := coalesce(jsonb_path_query_array(OLD.layout, named, jsonb '{}', true), '[]');
    END IF;
    IF TG_OP <> 'DELETE' THEN
        is_ := coalesce(jsonb_path_query_array(NEW.layout, named, jsonb '{}', true), '[]');
    END IF;
    -- Mostly a piece has been moved or turned, and the same assets are placed as before.
    -- As text: to jsonb 2.0 and 2 are the same.
    IF was::text <> is_::text THEN
        -- Which of them are assets, and how many of each, is for whoever sums it up: the client
        -- that saves its table need not wait for that.
        INSERT INTO asset_usage_log (day, source, placed_before, placed_after)
        VALUES ((now() AT TIME ZONE 'UTC')::date, 'layout', was, is_);
    END IF;
    RETURN NULL;
END $body$;

CREATE OR REPLACE FUNCTION terrain_count_library_1() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO asset_usage_log (asset_id, day, source, adds, removals, uses)
        SELECT a.asset_id, (now() AT TIME ZONE 'UTC')::date, 'library',
               count(*), 0, sum(a.quantity)
          FROM rows_after a
         WHERE a.quantity IS DISTINCT FROM a.counted
         GROUP BY a.asset_id;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO asset_usage_log (asset_id, day, source, adds, removals, uses)
        SELECT b.asset_id, (now() AT TIME ZONE 'UTC')::date, 'library', 0, count(*), 0
          FROM rows_before b
         WHERE b.quantity IS DISTINCT FROM b.counted
         GROUP BY b.asset_id;
    ELSE
        INSERT INTO asset_usage_log (asset_id, day, source, adds, removals, uses)
        SELECT c.asset_id, (now() AT TIME ZONE 'UTC')::date, 'library',
               sum(greatest(c.own_after - c.own_before, 0)),
               sum(greatest(c.own_before - c.own_after, 0)),
               sum(CASE c.own_after WHEN 1 THEN greatest(c.after - c.before, 0) ELSE 0 END)
          FROM (SELECT x.asset_id, sum(x.own_before) AS own_before, sum(x.own_after) AS own_after,
                       sum(x.before) AS before, sum(x.after) AS after
                  FROM (SELECT b.id, b.asset_id, b.quantity AS before, 0 AS after,
                               (b.quantity IS DISTINCT FROM b.counted)::integer AS own_before,
                               0 AS own_after
                          FROM rows_before b
                         UNION ALL
                        SELECT a.id, a.asset_id, 0, a.quantity, 0,
                               (a.quantity IS DISTINCT FROM a.counted)::integer
                          FROM rows_after a) x
                 GROUP BY x.id, x.asset_id) c
         WHERE c.own_before <> c.own_after OR c.own_after = 1 AND c.after > c.before
         GROUP BY c.asset_id;
    END IF;
    RETURN NULL;
END $body$;

REVOKE ALL ON FUNCTION terrain_count_layout_1(), terrain_count_library_1()
    FROM PUBLIC;

CREATE OR REPLACE TRIGGER terrain_usage_insert AFTER INSERT ON tables
    FOR EACH ROW WHEN (NEW.layout -> 'models' IS NOT NULL)
    EXECUTE FUNCTION terrain_count_layout_1();
CREATE OR REPLACE TRIGGER terrain_usage_update AFTER UPDATE ON tables
    FOR EACH ROW WHEN (OLD.layout -> 'models' IS DISTINCT FROM NEW.layout -> 'models')
    EXECUTE FUNCTION terrain_count_layout_1();
CREATE OR REPLACE TRIGGER terrain_usage_delete AFTER DELETE ON tables
    FOR EACH ROW WHEN (OLD.layout -> 'models' IS NOT NULL)
    EXECUTE FUNCTION terrain_count_layout_1();

CREATE OR REPLACE TRIGGER terrain_usage_insert AFTER INSERT ON table_assets
    REFERENCING NEW TABLE AS rows_after FOR EACH STATEMENT
    EXECUTE FUNCTION terrain_count_library_1();
CREATE OR REPLACE TRIGGER terrain_usage_update AFTER UPDATE ON table_assets
    REFERENCING OLD TABLE AS rows_before NEW TABLE AS rows_after FOR EACH STATEMENT
    EXECUTE FUNCTION terrain_count_library_1();
CREATE OR REPLACE TRIGGER terrain_usage_delete AFTER DELETE ON table_assets
    REFERENCING OLD TABLE AS rows_before FOR EACH STATEMENT
    EXECUTE FUNCTION terrain_count_library_1();
