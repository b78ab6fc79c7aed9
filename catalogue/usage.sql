-- What is done with assets: summing up what the triggers have seen, and reading it.
-- Readers add what is not summed up yet; one statement sees both at the same moment.

-- name: told_apart
-- The entries of {log}, by asset: those of layouts are taken apart.  Ids that are neither a
-- model's nor an asset's, nor were, are passed over: a layout can name anything.
SELECT l.asset_id, l.day, l.source, l.adds, l.removals, l.uses
  FROM {log} l WHERE l.asset_id IS NOT NULL
 UNION ALL
SELECT c.asset_id, c.day, c.source,
       (c.before = 0)::integer, (c.after = 0)::integer, greatest(c.after - c.before, 0)
  FROM (SELECT s.id, s.day, s.source, s.spelled::uuid AS asset_id,
               sum(s.before) AS before, sum(s.after) AS after
          -- Each spelling is looked at once in an entry: a pattern is dearer than all the rest.
          FROM (SELECT p.id, p.day, p.source, sum(p.before) AS before, sum(p.after) AS after,
                       CASE WHEN p.spelled
                                 ~ '^([0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}|[{][0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}[}])$'
                            THEN p.spelled END AS spelled
                  FROM (SELECT l.id, l.day, l.source, b.spelled, 1 AS before, 0 AS after
                          FROM {log} l
                         CROSS JOIN jsonb_array_elements_text(l.placed_before) AS b (spelled)
                         UNION ALL
                        SELECT l.id, l.day, l.source, a.spelled, 0, 1
                          FROM {log} l
                         CROSS JOIN jsonb_array_elements_text(l.placed_after) AS a (spelled)) p
                 GROUP BY p.id, p.day, p.source, p.spelled) s
         WHERE s.spelled IS NOT NULL
         GROUP BY s.id, s.day, s.source, s.spelled::uuid) c
 WHERE (c.after > c.before OR c.after = 0)
   AND (EXISTS (SELECT FROM models m WHERE m.id = c.asset_id)
        OR EXISTS (SELECT FROM assets a WHERE a.id = c.asset_id)
        OR EXISTS (SELECT FROM asset_usage u WHERE u.asset_id = c.asset_id))

-- name: roll_up
WITH taken AS (
    DELETE FROM asset_usage_log
     WHERE id IN (SELECT l.id FROM asset_usage_log l
                   ORDER BY l.id LIMIT %(limit)s)
    RETURNING *
), told_apart AS (
    {of_taken}
), by_asset AS (
    INSERT INTO asset_usage AS u (asset_id, day, source, adds, removals, uses)
    SELECT t.asset_id, t.day, t.source, sum(t.adds), sum(t.removals), sum(t.uses)
      FROM told_apart t GROUP BY t.asset_id, t.day, t.source
    ON CONFLICT (asset_id, day, source) DO UPDATE
       SET adds = u.adds + excluded.adds, removals = u.removals + excluded.removals,
           uses = u.uses + excluded.uses
), by_day AS (
    INSERT INTO asset_usage_days AS u (day, source, adds, removals, uses)
    SELECT t.day, t.source, sum(t.adds), sum(t.removals), sum(t.uses)
      FROM told_apart t GROUP BY t.day, t.source
    ON CONFLICT (day, source) DO UPDATE
       SET adds = u.adds + excluded.adds, removals = u.removals + excluded.removals,
           uses = u.uses + excluded.uses
)
SELECT count(*) FROM taken

-- name: totals
-- Everything that was ever counted, by source: a row for each day is little to read.
SELECT u.source, sum(u.adds)::bigint, sum(u.removals)::bigint, sum(u.uses)::bigint
  FROM (SELECT source, adds, removals, uses FROM asset_usage_days
         UNION ALL
        SELECT w.source, w.adds, w.removals, w.uses FROM ({waiting}) w) u
 GROUP BY u.source ORDER BY u.source

-- name: waiting
-- How many changes are not summed up yet.
SELECT count(*) FROM asset_usage_log

-- name: by_asset_and_day
-- Newest day first, the most used asset first; of one artist's assets, if one is given.
SELECT u.asset_id, u.day, u.source,
       sum(u.adds)::bigint AS adds, sum(u.removals)::bigint AS removals, sum(u.uses)::bigint AS uses
  FROM (SELECT asset_id, day, source, adds, removals, uses FROM asset_usage
         WHERE day BETWEEN %(since)s AND %(until)s
         UNION ALL
        SELECT w.asset_id, w.day, w.source, w.adds, w.removals, w.uses FROM ({waiting}) w
         WHERE w.day BETWEEN %(since)s AND %(until)s) u
 WHERE (%(asset)s::uuid IS NULL OR u.asset_id = %(asset)s::uuid)
   AND (%(artist)s::uuid IS NULL
        OR EXISTS (SELECT FROM assets a
                    WHERE a.id = u.asset_id AND a.artist_id = %(artist)s::uuid))
 GROUP BY u.asset_id, u.day, u.source
 ORDER BY u.day DESC, uses DESC, adds DESC, u.asset_id, u.source
 LIMIT %(limit)s
