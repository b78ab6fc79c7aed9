-- What is done with assets: summing up what the triggers have seen, and reading it.
-- Readers add what is not summed up yet; one statement sees both at the same moment.

-- name: roll_up
WITH taken AS (
    DELETE FROM public.asset_usage_log
     WHERE id IN (SELECT l.id FROM public.asset_usage_log l
                   ORDER BY l.id LIMIT %(limit)s)
    RETURNING asset_id, day, source, adds, removals, uses
), by_asset AS (
    INSERT INTO public.asset_usage AS u (asset_id, day, source, adds, removals, uses)
    SELECT t.asset_id, t.day, t.source, sum(t.adds), sum(t.removals), sum(t.uses)
      FROM taken t GROUP BY t.asset_id, t.day, t.source
    ON CONFLICT (asset_id, day, source) DO UPDATE
       SET adds = u.adds + excluded.adds, removals = u.removals + excluded.removals,
           uses = u.uses + excluded.uses
), by_day AS (
    INSERT INTO public.asset_usage_days AS u (day, source, adds, removals, uses)
    SELECT t.day, t.source, sum(t.adds), sum(t.removals), sum(t.uses)
      FROM taken t GROUP BY t.day, t.source
    ON CONFLICT (day, source) DO UPDATE
       SET adds = u.adds + excluded.adds, removals = u.removals + excluded.removals,
           uses = u.uses + excluded.uses
)
SELECT count(*) FROM taken

-- name: totals
-- Everything that was ever counted, by source: a row for each day is little to read.
SELECT u.source, sum(u.adds)::bigint, sum(u.removals)::bigint, sum(u.uses)::bigint
  FROM (SELECT source, adds, removals, uses FROM public.asset_usage_days
         UNION ALL
        SELECT source, adds, removals, uses FROM public.asset_usage_log) u
 GROUP BY u.source ORDER BY u.source

-- name: waiting
-- How many changes are not summed up yet.
SELECT count(*) FROM public.asset_usage_log

-- name: by_asset_and_day
-- Newest day first, the most used asset first; of one artist's assets, if one is given.
SELECT u.asset_id, u.day, u.source,
       sum(u.adds)::bigint AS adds, sum(u.removals)::bigint AS removals, sum(u.uses)::bigint AS uses
  FROM (SELECT asset_id, day, source, adds, removals, uses FROM public.asset_usage
         WHERE day BETWEEN %(since)s AND %(until)s
         UNION ALL
        SELECT asset_id, day, source, adds, removals, uses FROM public.asset_usage_log
         WHERE day BETWEEN %(since)s AND %(until)s) u
 WHERE (%(asset)s::uuid IS NULL OR u.asset_id = %(asset)s::uuid)
   AND (%(artist)s::uuid IS NULL
        OR EXISTS (SELECT FROM public.assets a
                    WHERE a.id = u.asset_id AND a.artist_id = %(artist)s::uuid))
 GROUP BY u.asset_id, u.day, u.source
 ORDER BY u.day DESC, uses DESC, adds DESC, u.asset_id, u.source
 LIMIT %(limit)s
