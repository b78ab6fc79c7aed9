-- What is measured of the move while it is under way, and of what is left to do.

-- name: quarantine
SELECT q.legacy_table, q.kind, q.reason,
       CASE WHEN q.decided_at IS NULL THEN 'no' ELSE 'yes' END, count(*)
  FROM @new.legacy_quarantine q GROUP BY 1, 2, 3, 4

-- name: steps
-- The last run of each step: its state, rows done, rows expected, seconds at work, when it
-- ended, and how long its last batch was.
SELECT r.step, r.state,
       CASE WHEN r.state = 'done' THEN r.rows ELSE coalesce(b.rows, r.rows) END,
       r.total, CASE WHEN r.state = 'done' THEN r.seconds ELSE coalesce(b.seconds, r.seconds) END,
       extract(epoch FROM r.finished_at), l.rows, l.seconds
  FROM (SELECT DISTINCT ON (r.step) r.* FROM @new.legacy_run r ORDER BY r.step, r.id DESC) r
  LEFT JOIN LATERAL (SELECT sum(b.rows) AS rows, sum(b.seconds) AS seconds
                       FROM @new.legacy_batch b WHERE b.run_id = r.id) b ON r.state <> 'done'
  LEFT JOIN LATERAL (SELECT b.rows, b.seconds FROM @new.legacy_batch b
                      WHERE b.run_id = r.id ORDER BY b.id DESC LIMIT 1) l ON true

-- name: verification
-- Whether the last verification passed, and when it was.
SELECT coalesce((r.detail ->> 'passed')::boolean, false), extract(epoch FROM r.started_at)
  FROM @new.legacy_run r WHERE r.step = 'verify' ORDER BY r.id DESC LIMIT 1

-- name: at_work
-- Whether a command that changes the database is running.
SELECT EXISTS (SELECT FROM pg_locks l
                WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0
                  AND l.objid = %(lock)s
                  AND l.database = (SELECT d.oid FROM pg_database d
                                     WHERE d.datname = current_database()))

-- name: settling
-- How many rows wait to be settled, and the longest for how many seconds.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(q.queued_at)), 0)
  FROM rebuilt.queue q

-- name: use
-- How often each legacy table was read and written, since its statistics began.
SELECT s.relname, s.seq_scan, s.idx_scan, s.n_tup_ins, s.n_tup_upd, s.n_tup_del
  FROM pg_stat_all_tables s
 WHERE s.relid IN (SELECT to_regclass(t.name) FROM unnest(ARRAY[
       '@legacy.artists', '@legacy.assets', '@legacy.user_tables', '@legacy.example_tables',
       '@legacy.orders', '@legacy.stripe_transfers']) AS t (name))

-- name: sessions
-- Sessions of other programs than this one.  Those of another role hide their names.
SELECT a.usename, count(*) FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.usename IS NOT NULL
   AND coalesce(a.backend_type, 'client backend') = 'client backend'
   AND a.application_name IS DISTINCT FROM 'terrain'
 GROUP BY 1

-- name: written
-- When each role last wrote to a legacy table by a statement of its own (see usage.py).
SELECT u.legacy_table, u.role, extract(epoch FROM max(u.at)) FROM rebuilt.used u GROUP BY 1, 2
