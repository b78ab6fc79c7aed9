-- SQL written by hand, named; text.query() fills {names in braces}, psycopg
-- the parameters.

-- name: range
-- The next keys after a cursor: the last of at most so many, and how many there are.
SELECT (array_agg(k.id ORDER BY k.id DESC))[1], count(*)
  FROM (SELECT l.id FROM {legacy} l
         WHERE (%(after)s::uuid IS NULL OR l.id > %(after)s::uuid)
           AND (%(end)s::uuid IS NULL OR l.id <= %(end)s::uuid)
         ORDER BY l.id LIMIT %(limit)s) k

-- name: quantiles
-- Keys that part a table into pieces of about the same size, from the planner's histogram.
SELECT histogram_bounds::text::uuid[] FROM pg_stats
 WHERE schemaname = %(schema)s AND tablename = %(table)s AND attname = 'id'

-- name: account
-- The account an address belongs to: spelled exactly so first, then the oldest.
LEFT JOIN LATERAL (
    SELECT u.id FROM @new.users u
     WHERE {normal_user} = {normal} AND {is_address}
     ORDER BY u.email = {address} DESC, btrim(u.email) = btrim({address}) DESC,
              u.created_at, u.id
     LIMIT 1) a ON true

-- name: no_account
-- Left to settle.
LEFT JOIN LATERAL (SELECT NULL::uuid AS id) a ON true

-- name: customers
-- Accounts for addresses that have none.  The same rows in any order give the same
-- accounts: ids are made from the address, the earliest row counts.
INSERT INTO @new.users AS u
       (id, email, password_hash, display_name, role, status, created_at, updated_at)
SELECT CASE WHEN EXISTS (SELECT FROM @new.users x
                          WHERE x.id = md5('customer:' || c.address)::uuid AND x.email <> c.address)
            THEN gen_random_uuid() ELSE md5('customer:' || c.address)::uuid END,
       c.address, '!', coalesce(c.name, ''), 'customer', 'active',
       coalesce(c.since, now()), coalesce(c.since, now())
  FROM (SELECT s.address,
               (array_agg(s.name ORDER BY s.at, s.name) FILTER (WHERE s.name <> ''))[1] AS name,
               min(s.at) AS since
          FROM (SELECT {normal} AS address, {name} AS name,
                       CASE WHEN {created_at} BETWEEN '0001-01-01 00:00+00' AND now()
                            THEN {created_at} END AS at
                  FROM (SELECT l.* FROM {source}) l
                 WHERE {is_address}) s
         GROUP BY s.address) c
 WHERE NOT EXISTS (SELECT FROM @new.users x
                    WHERE {normal_x} = c.address AND x.role <> 'customer')
   -- Most are there already; asking is cheaper than a conflict.
   AND NOT EXISTS (SELECT FROM @new.users x
                    WHERE x.email = c.address AND x.role = 'customer'
                      AND x.created_at <= c.since AND (x.display_name <> '' OR c.name IS NULL))
ON CONFLICT (email) WHERE role = 'customer' DO UPDATE
   SET created_at = least(u.created_at, excluded.created_at),
       display_name = CASE WHEN u.display_name = '' THEN excluded.display_name
                           WHEN excluded.created_at < u.created_at AND excluded.display_name <> ''
                           THEN excluded.display_name ELSE u.display_name END
 WHERE u.last_login IS NULL
   AND (u.display_name = '' AND excluded.display_name <> '' OR excluded.created_at < u.created_at)

-- name: copy
-- One batch: the legacy rows of a range of keys that have no new row yet.
--
-- A row changed meanwhile is no matter: whoever inserts first wins, and the trigger, if it
-- comes second, waits and then updates.  A row deleted (or held) meanwhile would come back to
-- life: so the batch holds the lock of its worker, beside which nobody takes anything away
-- (not_beside_a_batch).  Where an open transaction that has done so is in the way, the batch
-- locks the rows one by one instead; not otherwise, because that rewrites every page of the
-- legacy table.
--
-- What the batch does not put there itself it says nothing about, because it would say what
-- the row was: rows that are to be held, and those that others have just put there, are late.
WITH judged AS MATERIALIZED (
    SELECT l.*, {held} AS why FROM @legacy.{legacy} l
     WHERE (%(after)s::uuid IS NULL OR l.id > %(after)s::uuid) AND l.id <= %(upto)s::uuid
       -- The range again: or each batch would look through all that is there already.
       AND NOT EXISTS (SELECT FROM @new.{new} n WHERE n.id = l.id AND {own}
                          AND (%(after)s::uuid IS NULL OR n.id > %(after)s::uuid)
                          AND n.id <= %(upto)s::uuid)
     ORDER BY l.id {row_lock}
), put AS (
    INSERT INTO @new.{new} ({columns}{owner_columns})
    SELECT {values}{owner_values} FROM judged l {account}
     WHERE {fit}
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), late AS (
    INSERT INTO rebuilt.queue (legacy_table, key, late, why)
    SELECT '{legacy}', l.id, true, coalesce(l.why, 'another session has put it there')
      FROM judged l WHERE coalesce(l.id IN (SELECT p.id FROM put p), false) IS NOT TRUE
    RETURNING 1
), marked AS (
    INSERT INTO @new.legacy_quarantine (legacy_table, legacy_id, kind, reason, detail, "row")
    SELECT '{legacy}', l.id, 'flagged', f.reason, f.detail, to_jsonb(l) - 'why'
      FROM judged l CROSS JOIN LATERAL (VALUES {flag_rows}) AS f (reason, detail)
     WHERE ({any_flag}) AND f.reason IS NOT NULL
       AND coalesce(l.id IN (SELECT p.id FROM put p), false)
    ON CONFLICT (legacy_table, legacy_id, reason, kind) DO NOTHING
    RETURNING 1
){more}
SELECT (SELECT count(*) FROM judged), (SELECT count(*) FROM put), (SELECT count(*) FROM late)

-- name: copy_sessions
-- A table saved without an address gets a session of its own.
, sessions AS (
    INSERT INTO @new.anonymous_sessions (id, session_token, table_limit, created_at, last_seen)
    SELECT md5('session:' || l.id)::uuid,
           replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
           {table_limit}, s.at, s.at
      FROM judged l
     CROSS JOIN LATERAL (SELECT CASE WHEN l.created_at BETWEEN '0001-01-01' AND now() AT TIME ZONE 'UTC'
                                     THEN l.created_at AT TIME ZONE 'UTC' ELSE now() END AS at) s
     WHERE {is_address} IS NOT TRUE AND coalesce(l.id IN (SELECT p.id FROM put p), false)
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
)

-- name: copy_lines
-- The elements of the array, for the orders this batch has put there.  The planner takes a
-- CTE for a handful of rows and would join two of them row by row; an IN that it cannot
-- turn into a join becomes a hash table.
, line AS (
    SELECT l.id AS order_id, e.position, e.item, l.subtotal,
           NULL::text AS kept_source, NULL::numeric AS kept_unit, NULL::numeric AS kept_total,
           NULL::uuid AS kept_model, NULL::uuid AS kept_artist, NULL::text AS kept_name
      FROM (SELECT l.id, l.items, {subtotal} AS subtotal FROM judged l
             WHERE l.why IS NULL AND coalesce(l.id IN (SELECT p.id FROM put p), false)
            OFFSET 0) l
     CROSS JOIN LATERAL jsonb_array_elements(l.items) WITH ORDINALITY AS e (item, position)
), {pricing}, lines AS (
    INSERT INTO @new.{part} (id, {parent}, position, {line_columns})
    SELECT md5(e.order_id || ':' || e.position)::uuid, e.order_id, e.position, {line_values}
      FROM priced e
    RETURNING 1
), kept AS (
    INSERT INTO @new.legacy_quarantine (legacy_table, legacy_id, kind, reason, detail, "row")
    SELECT '{legacy}', l.id, 'held', l.why, {held_detail}, to_jsonb(l) - 'why'
      FROM judged l
     WHERE l.why IS NOT NULL AND coalesce(l.id IN (SELECT p.id FROM put p), false)
    ON CONFLICT (legacy_table, legacy_id, reason, kind) DO NOTHING
    RETURNING 1
), disagree AS (
    INSERT INTO @new.legacy_quarantine (legacy_table, legacy_id, kind, reason, detail, "row")
    SELECT '{legacy}', l.id, 'flagged', f.reason, {price_detail}, to_jsonb(l) - 'why'
      FROM judged l
     CROSS JOIN LATERAL (SELECT CASE
                WHEN {subtotal} IS NULL THEN 'subtotal_missing'
                WHEN l.items = '[]' AND {subtotal} <> 0
                  OR coalesce(l.id IN (SELECT w.order_id FROM priced w
                                        GROUP BY w.order_id, w.subtotal
                                       HAVING coalesce(sum(w.total_price), 0) <> w.subtotal), false)
                THEN 'prices_disagree' END AS reason) f
     WHERE l.why IS NULL AND f.reason IS NOT NULL
       AND coalesce(l.id IN (SELECT p.id FROM put p), false)
    ON CONFLICT (legacy_table, legacy_id, reason, kind) DO NOTHING
    RETURNING 1
)

-- name: stale
-- New rows of a range whose legacy row is no longer there: deleted while nobody watched.
SELECT n.id FROM @new.{new} n
 WHERE {own} AND NOT EXISTS (SELECT FROM @legacy.{legacy} l WHERE l.id = n.id)

-- name: not_own
-- Legacy rows whose id a new row has that is not theirs: an artist deleted and made again
-- while nobody watched, who is a customer here.
SELECT l.id FROM @legacy.{legacy} l JOIN @new.{new} n ON n.id = l.id WHERE NOT ({own})

-- name: differing
-- Keys of a range whose rows say different things on the two sides.
SELECT l.id FROM @legacy.{legacy} l JOIN rebuilt.{legacy} r ON r.id = l.id
 WHERE (%(after)s::uuid IS NULL OR l.id > %(after)s::uuid) AND l.id <= %(upto)s::uuid
   AND ROW({legacy_columns})::text IS DISTINCT FROM ROW({rebuilt_columns})::text

-- name: link
-- Give rows that wait for it the account behind their address.
-- The address is looked at again in the row that is written: it may have become another
-- while this waited for whoever changed it.
UPDATE @new.{new} n SET {column} = a.id{no_session}
  FROM (SELECT w.id AS row_id, w.{stored} AS address, a.id FROM @new.{new} w {account}
         WHERE w.id = ANY (%(keys)s::uuid[]) AND w.{column} IS NULL AND {own}) a
 WHERE n.id = a.row_id AND a.id IS NOT NULL
   AND n.{column} IS NULL AND n.{stored} = a.address

-- name: link_sessions
-- … or, without an address, a session of their own.
WITH alone AS (
    SELECT n.id, n.created_at FROM @new.{new} n
     WHERE n.id = ANY (%(keys)s::uuid[]) AND n.{column} IS NULL AND n.{session} IS NULL
       AND {own} AND {is_address} IS NOT TRUE
), made AS (
    INSERT INTO @new.anonymous_sessions (id, session_token, table_limit, created_at, last_seen)
    SELECT md5('session:' || a.id)::uuid,
           replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
           {table_limit}, s.at, s.at
      FROM alone a
     CROSS JOIN LATERAL (SELECT CASE WHEN a.created_at BETWEEN '0001-01-01 00:00+00' AND now()
                                     THEN a.created_at ELSE now() END AS at) s
    ON CONFLICT (id) DO NOTHING
)
UPDATE @new.{new} n SET {session} = md5('session:' || a.id)::uuid FROM alone a
 WHERE n.id = a.id AND n.{column} IS NULL AND n.{session} IS NULL AND {is_address} IS NOT TRUE

-- name: queue_waiting
-- Rows that have no owner and should, unless they are in the queue already.
INSERT INTO rebuilt.queue (legacy_table, key)
SELECT '{legacy}', n.id FROM @new.{new} n
 WHERE {waits} AND {own}
   AND NOT EXISTS (SELECT FROM rebuilt.queue q WHERE q.legacy_table = '{legacy}' AND q.key = n.id)

-- name: take_queue
-- The oldest entries beyond ``after`` that nobody else is settling: taken out, in this transaction.
DELETE FROM rebuilt.queue q
 WHERE q.id IN (SELECT w.id FROM rebuilt.queue w
                 WHERE NOT w.late AND w.id > coalesce(%(after)s::bigint, 0)
                 ORDER BY w.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING q.legacy_table, q.key

-- name: late
-- The next late rows of a table (or of all), oldest first, after an entry of the queue.
SELECT q.id, q.legacy_table, q.key, q.moved_to FROM rebuilt.queue q
 WHERE q.late AND q.id > %(after)s
   AND (%(table)s::text IS NULL OR q.legacy_table = %(table)s::text)
 ORDER BY q.id LIMIT %(limit)s

-- name: take_late
-- Of these entries those nobody else is settling: taken out, in this transaction.
DELETE FROM rebuilt.queue q
 WHERE q.id IN (SELECT w.id FROM rebuilt.queue w WHERE w.id = ANY (%(ids)s::bigint[])
                 ORDER BY w.id FOR UPDATE SKIP LOCKED)
RETURNING q.id

-- name: merges
-- Customers whose address an artist has taken: (customer, artist).
SELECT c.id, (SELECT t.id FROM @new.users t
               WHERE {normal_t} = c.email AND t.role <> 'customer'
               ORDER BY t.created_at, t.id LIMIT 1)
  FROM @new.users c
 WHERE c.role = 'customer'
   AND EXISTS (SELECT FROM @new.users t WHERE {normal_t} = c.email AND t.role <> 'customer')
   AND (%(keys)s::uuid[] IS NULL
        OR c.email IN (SELECT {normal_k} FROM @new.users k WHERE k.id = ANY (%(keys)s::uuid[])))

-- name: merge_lock
-- The artist a customer is merged into, as long as they have the customer's address.
SELECT t.id FROM @new.users c, @new.users t
 WHERE c.id = %(customer)s AND t.id = %(artist)s
   AND c.role = 'customer' AND t.role <> 'customer' AND {normal_t} = c.email
   FOR SHARE OF t

-- name: to_retry
-- Held rows to try again: refused by the new table, or without their reason, or gone.
SELECT DISTINCT q.legacy_id
  FROM @new.legacy_quarantine q
  LEFT JOIN @legacy.{legacy} l ON l.id = q.legacy_id
 WHERE q.kind = 'held' AND q.legacy_table = '{legacy}'
   AND (q.reason = 'refused' OR l.id IS NULL
        OR q.reason = ANY ({reasons}) AND {held} IS DISTINCT FROM q.reason)

-- name: repeats
-- Rows that share a value no two should have.
SELECT l.id FROM {legacy} l
 WHERE {value} IN (SELECT {value} FROM {legacy} l WHERE {value} IS NOT NULL
                    GROUP BY 1 HAVING count(*) > 1)

-- name: mark_repeats
-- Make the quarantine's entries for one kind of repeat exactly those.
WITH now AS (
    SELECT l.id, to_jsonb(l) AS "row", {detail} AS detail FROM {legacy} l
     WHERE {value} IN (SELECT {value} FROM {legacy} l WHERE {value} IS NOT NULL
                        GROUP BY 1 HAVING count(*) > 1)
), gone AS (
    DELETE FROM @new.legacy_quarantine q
     WHERE q.legacy_table = %(table)s AND q.kind = 'flagged' AND q.reason = %(reason)s
       AND NOT EXISTS (SELECT FROM now WHERE now.id = q.legacy_id)
    RETURNING q.*
), kept AS (
    INSERT INTO @new.legacy_released
           (legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at)
    SELECT legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at FROM gone
)
INSERT INTO @new.legacy_quarantine (legacy_table, legacy_id, kind, reason, detail, "row")
SELECT %(table)s, now.id, 'flagged', %(reason)s, now.detail, now."row" FROM now
ON CONFLICT (legacy_table, legacy_id, reason, kind) DO NOTHING

-- name: quarantine_models
-- Make the quarantine's entries for models that cannot be assets exactly those given.  The
-- models themselves are migrated: an entry is about the row of the new table.
WITH now AS (
    SELECT n.* FROM unnest(%(ids)s::uuid[], %(reasons)s::text[], %(details)s::text[],
                           %(rows)s::text[]::jsonb[]) AS n (id, reason, detail, "row")
), gone AS (
    DELETE FROM @new.legacy_quarantine q
     WHERE q.legacy_table = 'models' AND q.kind = 'held'
       AND NOT EXISTS (SELECT FROM now WHERE now.id = q.legacy_id AND now.reason = q.reason)
    RETURNING q.*
), kept AS (
    INSERT INTO @new.legacy_released
           (legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at)
    SELECT legacy_table, legacy_id, kind, reason, detail, "row", parked, found_at FROM gone
)
INSERT INTO @new.legacy_quarantine (legacy_table, legacy_id, kind, reason, detail, "row")
SELECT 'models', now.id, 'held', now.reason, now.detail, now."row" FROM now
ON CONFLICT (legacy_table, legacy_id, reason, kind) DO NOTHING

-- name: price_forecast
-- Orders whose lines will not add up to what they say they cost.
WITH fit AS MATERIALIZED (
    SELECT l.id, l.items, {subtotal} AS subtotal FROM {orders} l WHERE NOT ({is_held})
), line AS (
    SELECT l.id AS order_id, e.position, e.item, l.subtotal,
           NULL::text AS kept_source, NULL::numeric AS kept_unit, NULL::numeric AS kept_total,
           NULL::uuid AS kept_model, NULL::uuid AS kept_artist, NULL::text AS kept_name
      FROM fit l CROSS JOIN LATERAL jsonb_array_elements(l.items)
                 WITH ORDINALITY AS e (item, position)
), {pricing}
SELECT CASE WHEN f.subtotal IS NULL THEN 'subtotal_missing' ELSE 'prices_disagree' END AS code, f.id
  FROM fit f
  LEFT JOIN (SELECT p.order_id, sum(p.total_price) AS total FROM priced p GROUP BY 1) t
         ON t.order_id = f.id
 WHERE f.subtotal IS NULL OR coalesce(t.total, 0) <> f.subtotal
 ORDER BY 1, 2

-- name: checksums
-- Two sides of a range: how many rows, and a sum that does not depend on their order.
SELECT b.rows, b.sum, a.rows, a.sum
  FROM (SELECT count(*) AS rows, coalesce(sum(hashtextextended(x.row, 0)::numeric), 0) AS sum
          FROM ({before}) x) b
 CROSS JOIN (SELECT count(*) AS rows, coalesce(sum(hashtextextended(x.row, 0)::numeric), 0) AS sum
          FROM ({after}) x) a

-- name: differences
-- The rows of a range that the two sides do not agree about.
SELECT coalesce(b.id, a.id) AS id, b.row AS legacy, a.row AS rebuilt
  FROM ({before}) b FULL JOIN ({after}) a ON a.id = b.id
 WHERE b.row IS DISTINCT FROM a.row
 ORDER BY 1

-- name: others_in_legacy
-- Objects in the schema legacy that are neither the six tables nor part of them.
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                      WHEN 'f' THEN 'foreign table' ELSE 'table' END, c.oid::regclass::text
  FROM pg_class c
 WHERE c.relnamespace = to_regnamespace('legacy') AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND c.relname <> ALL (%(ours)s)
UNION ALL
SELECT 'function', p.oid::regprocedure::text FROM pg_proc p
 WHERE p.pronamespace = to_regnamespace('legacy')
UNION ALL
SELECT 'type', t.oid::regtype::text FROM pg_type t
 WHERE t.typnamespace = to_regnamespace('legacy') AND t.typtype IN ('d', 'e', 'r')
 ORDER BY 1, 2

-- name: others_on_legacy
-- Objects elsewhere that depend on one of the six tables, which are in a schema.
WITH ours AS (
    SELECT c.oid, c.oid::regclass::text AS name FROM pg_class c
     WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY (%(ours)s)
)
SELECT CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, v.oid::regclass::text,
       o.name
  FROM ours o
  JOIN pg_depend d ON d.refobjid = o.oid AND d.refclassid = 'pg_class'::regclass
                  AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid
  JOIN pg_class v ON v.oid = r.ev_class AND v.oid <> o.oid
UNION
SELECT 'foreign key', k.conname || ' of ' || k.conrelid::regclass, o.name
  FROM ours o JOIN pg_constraint k ON k.confrelid = o.oid AND k.contype = 'f'
 WHERE k.conrelid NOT IN (SELECT oid FROM ours)
UNION
SELECT 'function', p.oid::regprocedure::text, o.name
  FROM ours o
  JOIN pg_depend d ON d.refobjid IN (o.oid, (SELECT c.reltype FROM pg_class c WHERE c.oid = o.oid))
                  AND d.classid = 'pg_proc'::regclass
  JOIN pg_proc p ON p.oid = d.objid
                AND p.pronamespace IS DISTINCT FROM to_regnamespace('rebuilt')
UNION
SELECT 'publication', u.pubname::text, o.name
  FROM ours o JOIN pg_publication_rel x ON x.prrelid = o.oid JOIN pg_publication u ON u.oid = x.prpubid
UNION
-- Whatever else: tables that inherit from ours, or have a column of a row's type.
SELECT 'object', pg_describe_object(d.classid, d.objid, d.objsubid), o.name
  FROM ours o
  JOIN pg_type t ON t.typrelid = o.oid
  JOIN pg_depend d ON d.deptype = 'n' AND d.refobjid IN (o.oid, t.oid, t.typarray)
                  AND d.refclassid IN ('pg_class'::regclass, 'pg_type'::regclass)
 WHERE d.classid NOT IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_proc'::regclass,
                         'pg_publication_rel'::regclass, 'pg_attrdef'::regclass,
                         'pg_trigger'::regclass, 'pg_policy'::regclass)
   AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT oid FROM ours))
 ORDER BY 1, 2

-- name: others_on_rebuilt
-- Relations that go with the schema rebuilt and are not the project's: in it, or elsewhere
-- and made from one of its views.
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END,
       c.oid::regclass::text
  FROM pg_class c
 WHERE c.relnamespace = to_regnamespace('rebuilt') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND c.relname <> ALL (%(ours)s)
UNION
SELECT CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, v.oid::regclass::text
  FROM pg_class o
  JOIN pg_depend d ON d.refobjid = o.oid AND d.refclassid = 'pg_class'::regclass
                  AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid
  JOIN pg_class v ON v.oid = r.ev_class AND v.relnamespace <> o.relnamespace
 WHERE o.relnamespace = to_regnamespace('rebuilt')
 ORDER BY 1, 2

-- name: sessions_at_legacy
-- Process -> the legacy tables it has locked now, be it for reading only.
SELECT l.pid, string_agg(DISTINCT %(schema)s || '.' || c.relname, ', ')
  FROM pg_locks l
  JOIN pg_class c ON c.oid = l.relation
 WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND c.relnamespace = to_regnamespace(%(schema)s) AND c.relname = ANY (%(ours)s)
 GROUP BY 1

-- name: written_lately
-- Who last wrote to each legacy table, and when.
SELECT legacy_table, role::text, application, max(at) FROM rebuilt.used
 WHERE at >= %(since)s
 GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC

-- name: operators
-- Ourselves, the owners of the database and of the legacy tables, and superusers.
SELECT current_user::text
 UNION SELECT pg_get_userbyid(d.datdba)::text FROM pg_database d WHERE d.datname = current_database()
 UNION SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind IN ('r', 'p')
          AND c.relname = ANY (%(ours)s)
 UNION SELECT r.rolname::text FROM pg_roles r WHERE r.rolsuper

-- name: trim_used
-- Of each role and application the last write is enough.
DELETE FROM rebuilt.used u
 WHERE EXISTS (SELECT FROM rebuilt.used x
                WHERE (x.legacy_table, x.role, x.application)
                    = (u.legacy_table, u.role, u.application) AND x.at > u.at)

-- name: scans_of_legacy
-- Scans of each legacy table since the statistics began, but for those by primary key.
SELECT s.relname::text,
       jsonb_build_object('sequential', coalesce(s.seq_scan, 0))
       || coalesce(jsonb_object_agg(i.indexrelname, coalesce(i.idx_scan, 0))
                   FILTER (WHERE NOT x.indisprimary), '{}'),
       greatest(c.relpages, 0)
  FROM pg_stat_all_tables s
  JOIN pg_class c ON c.oid = s.relid
  LEFT JOIN pg_stat_all_indexes i ON i.relid = s.relid
  LEFT JOIN pg_index x ON x.indexrelid = i.indexrelid
 WHERE s.schemaname = %(schema)s AND s.relname = ANY (%(ours)s)
 GROUP BY s.relname, s.seq_scan, c.relpages

-- name: writes_of_new
-- Rows written and rows deleted in the new tables since the statistics began.
SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0), coalesce(sum(n_tup_del), 0)
  FROM pg_stat_all_tables WHERE schemaname = ANY (%(schemas)s) AND relname = ANY (%(tables)s)

-- name: made_later
-- What a parked table has of what is made beside the traffic: constraints with the other
-- table that they lock, and indexes.  Parameters: parked (qualified name), names.
SELECT 'constraint', c.conname,
       CASE WHEN c.confrelid <> 0 AND c.confrelid <> c.conrelid
            THEN (SELECT s.nspname || '.' || r.relname
                    FROM pg_class r JOIN pg_namespace s ON s.oid = r.relnamespace
                   WHERE r.oid = c.confrelid) END
  FROM pg_constraint c
 WHERE c.conrelid = to_regclass(%(parked)s) AND c.conname = ANY (%(names)s)
 UNION ALL
SELECT 'index', r.relname, NULL
  FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid
 WHERE i.indrelid = to_regclass(%(parked)s) AND r.relname = ANY (%(names)s)
   AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
 ORDER BY 1, 2

-- name: functions_to_park
-- Functions of rebuilt that can be kept elsewhere: nothing needs them, nor they anything of the
-- shop's (whose tables, were there one for an argument, could not be dropped any more).
SELECT p.oid::regprocedure::text
  FROM pg_proc p
 WHERE p.pronamespace = to_regnamespace('rebuilt') AND {ours}
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid)
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                      AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_language'::regclass))
   AND NOT EXISTS (SELECT FROM pg_proc o
                    WHERE o.pronamespace = to_regnamespace('legacy_parked')
                      AND o.proname = p.proname AND o.proargtypes = p.proargtypes)
 ORDER BY p.oid

-- name: parked_functions
-- Those in legacy_parked, and whether their place in rebuilt is taken.
SELECT p.oid::regprocedure::text, p.proname,
       EXISTS (SELECT FROM pg_proc o
                WHERE o.pronamespace = to_regnamespace('rebuilt')
                  AND o.proname = p.proname AND o.proargtypes = p.proargtypes)
  FROM pg_proc p
 WHERE p.pronamespace = to_regnamespace('legacy_parked') AND {ours}
 ORDER BY p.oid

-- name: our_functions
-- Known by the path that they set: what somebody else has put there stays there.
p.prokind = 'f' AND NOT p.proretset AND p.prorettype <> 'trigger'::regtype
   AND p.prosecdef AND array_to_string(p.proconfig, '|') ~ 'search_path=[^|]*pg_temp'
   AND pg_has_role(p.proowner, 'USAGE')

-- name: taken_names
-- Tables of ours for whose name, or an index's, a sequence's or an array type's, there is something
-- else in the schema that they are to move to.  What moves out of there is left out.
-- Tables that are not made yet are planned, each with one of its names.
WITH own AS (
    SELECT c.oid, c.relname, c.reltype FROM pg_class c
     WHERE c.relnamespace = to_regnamespace(%(own)s) AND c.relkind IN ('r', 'p')
), moving AS (
    SELECT c.oid, c.reltype FROM pg_class c
     WHERE c.relnamespace = to_regnamespace(%(legacy)s) AND c.relname = ANY (%(moving)s)
), taken AS (
    SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'i' THEN 'index'
                          WHEN 'I' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view'
                          WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'type'
                          ELSE 'relation' END AS kind, c.relname AS name
      FROM pg_class c
     WHERE c.relnamespace = to_regnamespace(%(legacy)s)
       AND c.oid NOT IN (SELECT m.oid FROM moving m)
       AND NOT EXISTS (SELECT FROM pg_index x JOIN moving m ON m.oid = x.indrelid
                        WHERE x.indexrelid = c.oid)
       AND NOT EXISTS (SELECT FROM pg_depend d JOIN moving m ON m.oid = d.refobjid
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
    UNION
    SELECT 'type', t.typname FROM pg_type t
     WHERE t.typnamespace = to_regnamespace(%(legacy)s) AND t.typrelid = 0
       AND NOT EXISTS (SELECT FROM moving m JOIN pg_type r ON r.oid = m.reltype
                        WHERE r.typarray = t.oid)
       -- The array type of something that is found by its own name.
       AND NOT EXISTS (SELECT FROM pg_type e
                        WHERE e.typarray = t.oid AND t.typname = '_' || e.typname)
), wanted AS (
    SELECT o.relname AS of_table, o.relname AS name FROM own o
    UNION
    SELECT o.relname, i.relname FROM own o
      JOIN pg_index x ON x.indrelid = o.oid JOIN pg_class i ON i.oid = x.indexrelid
    UNION
    SELECT o.relname, q.relname FROM own o
      JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid
                      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      JOIN pg_class q ON q.oid = d.objid AND q.relkind = 'S'
    UNION
    SELECT o.relname, a.typname FROM own o
      JOIN pg_type r ON r.oid = o.reltype JOIN pg_type a ON a.oid = r.typarray
    UNION
    SELECT * FROM unnest(%(planned_tables)s::name[], %(planned_names)s::name[])
)
SELECT DISTINCT w.of_table, t.kind, t.name FROM wanted w JOIN taken t ON t.name = w.name
 ORDER BY 1, 2, 3

-- name: readers
-- Roles with SELECT on a legacy table whose name a new one has, without it on the new one, and with
-- no right to write to any legacy table: (table, role).
SELECT c.relname::text, pg_get_userbyid(a.grantee)::text
  FROM unnest(%(tables)s::text[], %(new)s::text[]) AS n (name, new)
  JOIN pg_class c ON c.relnamespace = to_regnamespace(%(legacy)s) AND c.relname = n.name
 CROSS JOIN LATERAL aclexplode(c.relacl) a
 WHERE a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
   AND NOT has_table_privilege(a.grantee, to_regclass(n.new)::oid, 'SELECT')
   AND NOT EXISTS (SELECT FROM pg_class o
                    WHERE o.relnamespace = c.relnamespace AND o.relname = ANY (%(all)s)
                      AND has_table_privilege(a.grantee, o.oid,
                                              'INSERT, UPDATE, DELETE, TRUNCATE'))
 ORDER BY 1, 2
