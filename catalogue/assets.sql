-- How models become assets of the catalogue, and layouts fill the tables' libraries.
-- Each statement says what it makes of a range of keys: above %(after)s, up to %(upto)s.

-- name: range_of_models
SELECT (array_agg(k.id ORDER BY k.id DESC))[1], count(*)
  FROM (SELECT m.id FROM models m
         WHERE %(after)s::uuid IS NULL OR m.id > %(after)s::uuid
         ORDER BY m.id LIMIT %(limit)s) k

-- name: range_of_tables
SELECT (array_agg(k.id ORDER BY k.id DESC))[1], count(*)
  FROM (SELECT t.id FROM tables t
         WHERE %(after)s::uuid IS NULL OR t.id > %(after)s::uuid
         ORDER BY t.id LIMIT %(limit)s) k

-- name: range_of_assets
SELECT (array_agg(k.id ORDER BY k.id DESC))[1], count(*)
  FROM (SELECT a.id FROM assets a
         WHERE %(after)s::uuid IS NULL OR a.id > %(after)s::uuid
         ORDER BY a.id LIMIT %(limit)s) k

-- name: text
-- A value inside JSON ({value}) if it is a string with something in it.
CASE WHEN jsonb_typeof({value}) = 'string' THEN nullif({value} #>> '{}', '') END

-- name: why_held
-- Why a model cannot be an asset, or NULL.
CASE WHEN {file_ref} IS NULL THEN 'model_without_file'
     WHEN m.base_price = 'NaN' THEN 'model_price_nan' END

-- name: held_models
SELECT m.id, h.reason, to_jsonb(m) FROM models m
 CROSS JOIN LATERAL (SELECT {why_held} AS reason) h
 WHERE h.reason IS NOT NULL
 ORDER BY m.id

-- name: count_held
SELECT h.reason, count(*) FROM models m
 CROSS JOIN LATERAL (SELECT {why_held} AS reason) h
 WHERE h.reason IS NOT NULL GROUP BY 1 ORDER BY 1

-- name: wanted
-- What the models of a range are as assets.  Category: the first that says something, else
-- the genre.  Tags: tags, categories, genre, in this order and each once.  An odd footprint
-- gives no dimensions; without one the bounding box does (x is the width, y the depth).
SELECT m.id, m.id AS model_id, m.artist_id, m.name, m.description,
       coalesce((SELECT c.c FROM unnest(m.categories) WITH ORDINALITY AS c (c, n)
                  WHERE c.c <> '' ORDER BY c.n LIMIT 1), nullif(m.genre, '')) AS category,
       ARRAY(SELECT t.t FROM (
                 SELECT t, 1 AS part, n FROM unnest(m.tags) WITH ORDINALITY AS t (t, n)
                 UNION ALL
                 SELECT c, 2, n FROM unnest(m.categories) WITH ORDINALITY AS c (c, n)
                 UNION ALL SELECT m.genre, 3, 1) t
              WHERE t.t <> '' GROUP BY t.t ORDER BY min(t.part), min(t.n)) AS tags,
       {file_ref} AS file_ref,
       {glb} AS glb_file_path,
       coalesce({preview}, {thumbnail}) AS preview_url,
       {thumbnail} AS thumbnail_path,
       CASE WHEN jsonb_typeof(m.footprint) = 'object' THEN m.footprint
            WHEN jsonb_typeof(m.aabb #> '{min,x}') = 'number' AND jsonb_typeof(m.aabb #> '{max,x}') = 'number'
             AND jsonb_typeof(m.aabb #> '{min,y}') = 'number' AND jsonb_typeof(m.aabb #> '{max,y}') = 'number'
             AND jsonb_typeof(m.aabb #> '{min,z}') = 'number' AND jsonb_typeof(m.aabb #> '{max,z}') = 'number'
            THEN jsonb_build_object(
                 'width', (m.aabb #> '{max,x}')::numeric - (m.aabb #> '{min,x}')::numeric,
                 'depth', (m.aabb #> '{max,y}')::numeric - (m.aabb #> '{min,y}')::numeric,
                 'height', (m.aabb #> '{max,z}')::numeric - (m.aabb #> '{min,z}')::numeric)
        END AS dimensions_mm,
       CASE WHEN jsonb_typeof(m.print_stats -> 'triangle_count') = 'number' THEN
            CASE WHEN (m.print_stats -> 'triangle_count')::numeric BETWEEN 0 AND 2147483647
                  AND trunc((m.print_stats -> 'triangle_count')::numeric)
                      = (m.print_stats -> 'triangle_count')::numeric
                 THEN (m.print_stats -> 'triangle_count')::numeric::integer END END AS triangle_count,
       m.base_price, m.status,
       CASE m.status WHEN 'published' THEN 'public' WHEN 'archived' THEN 'unlisted'
                     ELSE 'private' END AS visibility,
       CASE WHEN m.status = 'published' THEN m.created_at END AS published_at,
       m.view_count, m.created_at, m.updated_at
  FROM models m
 WHERE (%(after)s::uuid IS NULL OR m.id > %(after)s::uuid) AND m.id <= %(upto)s::uuid
   AND {why_held} IS NULL
   -- Somebody has made the asset of this model by hand.
   AND NOT EXISTS (SELECT FROM assets o WHERE o.model_id = m.id AND o.id <> m.id)

-- name: digest
-- What the copy wrote, in 32 characters: an asset that still says it has not been edited.
md5(jsonb_build_array({columns})::text)

-- name: copy_models
-- The counters are not part of the digest: they go on counting.  views only ever grow.
WITH wanted AS MATERIALIZED ({wanted}
), digested AS MATERIALIZED (
    SELECT w.*, {digest_of_wanted} AS copied FROM wanted w
), put AS (
    INSERT INTO assets AS a ({columns}, view_count, created_at, updated_at, copied)
    SELECT {columns}, view_count, created_at, updated_at, copied FROM digested
    ON CONFLICT (id) DO UPDATE
       SET {assignments}, updated_at = excluded.updated_at, copied = excluded.copied,
           view_count = greatest(a.view_count, excluded.view_count)
     WHERE a.copied = {digest_of_asset}
       AND (a.copied <> excluded.copied OR a.view_count < excluded.view_count)
    RETURNING a.id, xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM put WHERE is_new), (SELECT count(*) FROM put WHERE NOT is_new)

-- name: forecast_models
-- The same, only counted.
WITH wanted AS MATERIALIZED ({wanted}
), digested AS MATERIALIZED (
    SELECT w.*, {digest_of_wanted} AS copied FROM wanted w
)
SELECT count(*) FILTER (WHERE a.id IS NULL),
       count(*) FILTER (WHERE a.copied = {digest_of_asset}
                          AND (a.copied <> d.copied OR a.view_count < d.view_count))
  FROM digested d LEFT JOIN assets a ON a.id = d.id

-- name: edited_assets
-- Assets made from a model that somebody has edited since: they are left alone.
SELECT count(*) FROM assets a
 WHERE a.copied IS NOT NULL AND a.copied <> {digest_of_asset}

-- name: placed
-- How often the layouts of a range place each asset that there is.  An id is read as
-- PostgreSQL reads a uuid; what it cannot read is no asset.
SELECT t.id AS table_id, p.asset_id, count(*)::integer AS placed, t.updated_at AS last_used
  FROM tables t
 CROSS JOIN LATERAL jsonb_array_elements(
        CASE jsonb_typeof(t.layout -> 'models') WHEN 'array' THEN t.layout -> 'models'
                                                ELSE '[]' END) AS e (item)
 CROSS JOIN LATERAL (
        SELECT CASE WHEN e.item ->> 'asset_id'
                         ~ '^([0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}|[{][0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}[}])$'
                    THEN (e.item ->> 'asset_id')::uuid END AS asset_id) p
  JOIN {assets} a ON a.id = p.asset_id
 WHERE (%(after)s::uuid IS NULL OR t.id > %(after)s::uuid) AND t.id <= %(upto)s::uuid
 GROUP BY t.id, p.asset_id

-- name: assets_then
-- The assets that there will be once the models are copied.
SELECT a.id FROM assets a
 UNION
SELECT m.id FROM models m
 WHERE {why_held} IS NULL
   AND NOT EXISTS (SELECT FROM assets o WHERE o.model_id = m.id)

-- name: fill_libraries
-- A row whose quantity is what the last count said has not been edited: it follows the
-- layout, and goes when the layout has the asset no more.
WITH placed AS MATERIALIZED ({placed}
), gone AS (
    DELETE FROM table_assets l
     WHERE (%(after)s::uuid IS NULL OR l.table_id > %(after)s::uuid) AND l.table_id <= %(upto)s::uuid
       AND l.quantity = l.counted
       AND NOT EXISTS (SELECT FROM placed p WHERE p.table_id = l.table_id AND p.asset_id = l.asset_id)
    RETURNING 1
), put AS (
    INSERT INTO table_assets AS l (id, table_id, asset_id, quantity, counted, last_used)
    SELECT md5(p.table_id || ':' || p.asset_id)::uuid, p.table_id, p.asset_id, p.placed, p.placed,
           p.last_used
      FROM placed p
    ON CONFLICT (table_id, asset_id) DO UPDATE
       SET quantity = excluded.quantity, counted = excluded.counted, last_used = excluded.last_used
     WHERE l.quantity = l.counted AND l.quantity <> excluded.quantity
    RETURNING xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM put WHERE is_new), (SELECT count(*) FROM put WHERE NOT is_new),
       (SELECT count(*) FROM gone)

-- name: forecast_libraries
-- The same, only counted, with the assets that are still to be made.
WITH placed AS MATERIALIZED ({placed_then})
SELECT count(*) FILTER (WHERE l.id IS NULL),
       count(*) FILTER (WHERE l.quantity = l.counted AND p.placed <> l.quantity AND p.placed IS NOT NULL),
       count(*) FILTER (WHERE l.quantity = l.counted AND p.placed IS NULL)
  FROM placed p
  FULL JOIN (SELECT * FROM table_assets l
              WHERE (%(after)s::uuid IS NULL OR l.table_id > %(after)s::uuid)
                AND l.table_id <= %(upto)s::uuid) l
         ON l.table_id = p.table_id AND l.asset_id = p.asset_id

-- name: count_uses
UPDATE assets a SET add_count = c.tables, use_count = c.placements
  FROM (SELECT x.id, count(l.id)::integer AS tables, coalesce(sum(l.quantity), 0)::bigint AS placements
          FROM assets x LEFT JOIN table_assets l ON l.asset_id = x.id
         WHERE (%(after)s::uuid IS NULL OR x.id > %(after)s::uuid) AND x.id <= %(upto)s::uuid
         GROUP BY x.id) c
 WHERE a.id = c.id AND (a.add_count, a.use_count) IS DISTINCT FROM (c.tables, c.placements)
