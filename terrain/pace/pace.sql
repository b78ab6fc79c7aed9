-- Orders, what runs say of themselves, and what can be seen of their effect on the shop.
-- All of it is for a plain owner of the database; what such a role does not see is NULL.

-- name: exists
SELECT to_regclass('terrain_pace_state') IS NOT NULL

-- name: read_orders
SELECT paused_at, paused_by, coalesce(percent, 100), throttled_by, ignored
  FROM terrain_pace_order

-- name: states
-- Of sessions of other roles backend_start is NULL.
SELECT s.step, s.state, s.why, s.since, s.pid
  FROM terrain_pace_state s
  JOIN pg_stat_activity a ON a.pid = s.pid
   AND coalesce(a.backend_start = s.backend_start, true)
 ORDER BY s.id

-- name: put_state
INSERT INTO terrain_pace_state (step, state, why, pid, backend_start)
SELECT %(step)s, %(state)s, %(why)s, pid, backend_start
  FROM pg_stat_activity WHERE pid = %(pid)s
RETURNING id

-- name: change_state
UPDATE terrain_pace_state
   SET state = %(state)s, why = %(why)s,
       since = CASE WHEN state = %(state)s THEN since ELSE statement_timestamp() END
 WHERE id = %(id)s

-- name: take_state_away
-- With it goes what killed runs have left.
DELETE FROM terrain_pace_state s
 WHERE s.id = %(id)s
    OR NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = s.pid
                      AND coalesce(a.backend_start = s.backend_start, true))

-- name: waiting
-- Sessions that wait for a lock of ours, and how long the first of them has, in seconds.
-- From pg_locks, which every role sees whole; of pg_stat_activity it sees its own sessions.
-- pg_blocking_pids stops the lock manager for a moment, so it is asked of those only who wait.
SELECT count(*), coalesce(max(extract(epoch FROM clock_timestamp() - since)), 0)::float
  FROM (SELECT pid, min(waitstart) AS since FROM pg_locks
         WHERE NOT granted AND pid <> ALL (%(ours)s::integer[])
         GROUP BY pid OFFSET 0) w
 WHERE pg_blocking_pids(pid) && %(ours)s::integer[]

-- name: position
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint

-- name: replicas
-- A plain role sees who they are, and NULL for how far behind.
SELECT coalesce(nullif(application_name, ''), host(client_addr), 'unnamed'),
       pg_wal_lsn_diff(coalesce(replay_lsn, flush_lsn, write_lsn), '0/0')::bigint,
       extract(epoch FROM replay_lag)::float
  FROM pg_stat_replication
 WHERE coalesce(state, 'streaming') IN ('streaming', 'catchup')
   AND application_name NOT IN ('pg_basebackup', 'pg_dump')

-- name: slots
SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
  FROM pg_replication_slots
 WHERE restart_lsn IS NOT NULL AND NOT temporary

-- name: archive
SELECT pg_walfile_name(pg_current_wal_lsn()), last_archived_wal,
       pg_size_bytes(current_setting('wal_segment_size')),
       CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity')
            THEN extract(epoch FROM clock_timestamp() - last_failed_time)::float END,
       failed_count
  FROM pg_stat_archiver
 WHERE current_setting('archive_mode') <> 'off'

-- name: sessions
-- How many there have been; it counts those too who come and go between two looks.
SELECT sessions FROM pg_stat_database WHERE datname = current_database()

-- name: size
SELECT coalesce(pg_relation_size(to_regclass(%(table)s)), 0)
