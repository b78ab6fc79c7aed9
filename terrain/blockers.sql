-- Who stands in the way of a lock.  A plain owner may see every lock in pg_locks, and of
-- other roles' sessions no more than process, role and application: so what can be told
-- from a lock, or from a process being there at all, is.

-- name: holders
-- Who holds a lock on one of the tables in one of the modes, whoever has been there
-- longest first.  Parameters: tables (qualified names), modes (as pg_locks has them).
WITH held AS (
    SELECT l.pid, l.virtualtransaction, l.relation
      FROM pg_locks l
     WHERE l.locktype = 'relation' AND l.granted
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND l.relation = ANY (SELECT to_regclass(t) FROM unnest(%(tables)s::text[]) t)
       AND l.mode = ANY (%(modes)s)
)
SELECT held.pid, held.virtualtransaction, array_agg(DISTINCT held.relation) AS tables
  FROM held
 WHERE held.pid IS DISTINCT FROM pg_backend_pid()
 GROUP BY 1, 2

-- name: waited_for
-- Whom a process waits for just now, an old snapshot included.  Zero is a prepared
-- transaction, and PostgreSQL does not say which: so all are named that have been prepared.
-- Parameter: pid.
SELECT DISTINCT p.pid, l.virtualtransaction, NULL::oid[] AS tables
  FROM unnest(pg_blocking_pids(%(pid)s)) p (pid)
  JOIN pg_locks l ON l.pid = p.pid AND l.granted
 UNION ALL
SELECT NULL, l.virtualtransaction, NULL
  FROM pg_locks l
  JOIN pg_prepared_xacts x ON x.transaction = l.transactionid
 WHERE l.pid IS NULL AND x.database = current_database() AND 0 = ANY (pg_blocking_pids(%(pid)s))

-- name: in_transaction
-- Everybody who is in a transaction in this database, be it prepared.
SELECT a.pid, l.virtualtransaction, NULL::oid[] AS tables
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock'
   AND a.datname = current_database() AND a.pid <> pg_backend_pid()
 UNION ALL
SELECT NULL, l.virtualtransaction, NULL
  FROM pg_locks l
  JOIN pg_prepared_xacts x ON x.transaction = l.transactionid
 WHERE l.pid IS NULL AND x.database = current_database()

-- name: described
-- What is known of each of them; found is one of the three above.  A prepared transaction is
-- told by the lock that it has on itself: the virtual number is '-1/…' after a restart of
-- the server only, whatever the documentation of pg_locks says.
WITH found AS ({found}),
each AS (
    SELECT DISTINCT ON (coalesce(a.leader_pid, f.pid), x.gid)
           f.tables, f.virtualtransaction, coalesce(a.leader_pid, f.pid) AS pid, x.gid,
           x.owner, x.prepared
      FROM found f
      LEFT JOIN pg_stat_activity a ON a.pid = f.pid
      LEFT JOIN pg_locks own ON f.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
            AND own.virtualtransaction = f.virtualtransaction
      LEFT JOIN pg_prepared_xacts x ON x.transaction = own.transactionid
     WHERE a.pid IS NOT NULL OR x.gid IS NOT NULL
)
SELECT CASE
         WHEN each.gid IS NOT NULL THEN 'prepared'
         -- Nobody's: of the processes that take locks on tables only autovacuum is.
         WHEN a.usesysid IS NULL THEN
           CASE WHEN a.query LIKE '%%(to prevent wraparound)'
                  OR a.query = '<insufficient privilege>'
                 AND EXISTS (SELECT FROM pg_class c WHERE c.oid = ANY (each.tables)
                                AND (age(c.relfrozenxid) > current_setting('autovacuum_freeze_max_age')::bigint
                                  OR mxid_age(c.relminmxid)
                                     > current_setting('autovacuum_multixact_freeze_max_age')::bigint))
                THEN 'wraparound' ELSE 'autovacuum' END
         WHEN a.application_name = 'pg_dump' THEN 'backup'
         WHEN EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.pid = each.pid) THEN 'index'
         WHEN EXISTS (SELECT FROM pg_stat_progress_vacuum p WHERE p.pid = each.pid)
           OR EXISTS (SELECT FROM pg_stat_progress_analyze p WHERE p.pid = each.pid) THEN 'vacuum'
         WHEN a.state LIKE 'idle in transaction%%' THEN 'idle'
         ELSE 'session'
       END,
       each.pid,
       coalesce(each.gid, ''),
       coalesce(each.owner, a.usename, ''),
       coalesce(a.application_name, ''),
       extract(epoch FROM clock_timestamp() - coalesce(each.prepared, a.xact_start))::float,
       CASE WHEN a.state LIKE 'idle in transaction%%'
            THEN extract(epoch FROM clock_timestamp() - a.state_change)::float END,
       coalesce(nullif(a.query, '<insufficient privilege>'), ''),
       coalesce((SELECT string_agg(t::regclass::text, ', ' ORDER BY t::regclass::text)
                   FROM unnest(each.tables) t), ''),
       coalesce(pg_has_role(each.owner, 'USAGE'),
                a.usesysid IS NOT NULL AND pg_has_role(a.usesysid, 'USAGE')
                OR pg_has_role('pg_signal_backend', 'USAGE')
                   AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = a.usesysid),
                false),
       each.virtualtransaction
  FROM each
  LEFT JOIN pg_stat_activity a ON a.pid = each.pid
 ORDER BY coalesce(each.prepared, a.xact_start) NULLS FIRST, 2
