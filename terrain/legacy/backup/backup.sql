-- Questions about a whole database, for backups: what is in it, and what it is made like.

-- name: pinned
-- What the text of a value depends on.  row_security: rather an error than half a table.
SELECT set_config(name, value, true)
  FROM (VALUES ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'),
               ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('search_path', 'pg_catalog'),
               ('lc_monetary', 'C'), ('xmlbinary', 'base64'), ('row_security', 'off')) s (name, value)

-- name: may_tell_system
SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')

-- name: system
-- What initdb has called this server, and no other.
SELECT system_identifier::text FROM pg_catalog.pg_control_system()

-- name: tables
-- Every table with rows of its own, and its columns in an order that does not depend on
-- how it came to have them.  Generated columns are computed anew by a restore.  Of each
-- column, whether values that are equal are also written alike, so that the value may be
-- hashed as it is: 1.0 and 1.00 are equal, and so are 0 and -0, or a day and 24 hours.  Of
-- jsonb that is not quite so (its numbers), but its text costs more than all others.
SELECT format('%I.%I', s.nspname, c.relname), s.nspname, c.relname,
       ARRAY(SELECT ROW(a.attname::text,
                        CASE WHEN t.typnamespace <> 'pg_catalog'::regnamespace THEN 'other'
                             WHEN t.typname IN ('text', 'varchar') THEN 'text'
                             WHEN t.typname IN ('bool', 'int2', 'int4', 'int8', 'oid', 'uuid', 'date',
                                                'time', 'timestamp', 'timestamptz', 'jsonb') THEN 'plain'
                             ELSE 'other' END)
               FROM pg_attribute a
               JOIN pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0
                AND NOT a.attisdropped AND a.attgenerated = ''
              ORDER BY a.attname COLLATE "C")
  FROM pg_class c
  JOIN pg_namespace s ON s.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND s.nspname !~ '^pg_' AND s.nspname <> 'information_schema'
   -- An extension makes its own, and pg_dump leaves them to it.
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
 ORDER BY 1

-- name: fingerprint
-- Rows and fingerprint of a table: a sum, so that the order of the rows is no matter, and
-- in numeric, so that it cannot overflow.  A record's hash is a linear sum of its columns',
-- in which two rows that have exchanged a value would go unnoticed: so it is hashed again.
-- Every 64th row, by that hash, counts to the last character as well.  OFFSET 0 has each
-- hash computed once.
SELECT count(*), coalesce(sum(hashint8extended(h, 0)), 0)::text,
       coalesce(sum(hashtextextended(ROW({texts})::text COLLATE "C", 0)) FILTER (WHERE h & 63 = 0), 0)::text
  FROM (SELECT hash_record_extended(ROW({columns}), 0) AS h, (t.*)::{table} AS t FROM ONLY {table} t OFFSET 0) r

-- name: fingerprint_1
-- As manifests of version 1 have it.
SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text COLLATE "C", 0)), 0)::text
  FROM ONLY {table} t

-- name: large_objects
-- The same for large objects, with their comments; and whose they are, by itself.
SELECT count(*),
       coalesce(sum(hashtextextended(concat_ws(' ', oid, md5(lo_get(oid)),
                                               obj_description(oid, 'pg_largeobject')), 0)), 0)::text,
       coalesce(sum(hashtextextended(concat_ws(' ', oid, pg_get_userbyid(lomowner),
           (SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C")
              FROM unnest(coalesce(lomacl, acldefault('L', lomowner))) a)), 0)), 0)::text
  FROM pg_largeobject_metadata

-- name: large_objects_1
-- As manifests of version 1 have it.
SELECT count(*), coalesce(sum(hashtextextended(oid::text || ' ' || md5(lo_get(oid)), 0)), 0)::text
  FROM pg_largeobject_metadata

-- name: sequences
-- Every sequence.  An extension makes its own.
SELECT format('%I.%I', s.nspname, c.relname), s.nspname, c.relname
  FROM pg_sequence q
  JOIN pg_class c ON c.oid = q.seqrelid
  JOIN pg_namespace s ON s.oid = c.relnamespace
 WHERE c.relpersistence <> 't'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
 ORDER BY 1

-- name: roles
-- Roles that own something here, may do something or are named by a policy.
SELECT DISTINCT r.rolname::text
  FROM pg_shdepend d
  JOIN pg_roles r ON r.oid = d.refobjid
 WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype IN ('o', 'a', 'r')
   AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY 1

-- name: database
-- What the database is made like; later versions of PostgreSQL have more columns.
SELECT to_jsonb(d) || jsonb_build_object(
           'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
           'comment', shobj_description(d.oid, 'pg_database'), 'size', pg_database_size(d.oid))
  FROM pg_database d WHERE d.datname = current_database()

-- name: settings
-- ALTER DATABASE … SET, and ALTER ROLE … IN DATABASE … SET, which no dump of one database has.
SELECT r.rolname, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
  FROM pg_db_role_setting s
  LEFT JOIN pg_roles r ON r.oid = s.setrole
 CROSS JOIN LATERAL unnest(s.setconfig) WITH ORDINALITY o (c, number)
 WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (s.setrole = 0 OR r.oid IS NOT NULL)
 ORDER BY r.rolname NULLS FIRST, number

-- name: grants
-- Who may do what with the database, if anybody has ever said so.
SELECT g.rolname, a.privilege_type, a.is_grantable
  FROM pg_database d
 CROSS JOIN LATERAL aclexplode(d.datacl) a
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 WHERE d.datname = current_database() AND (a.grantee = 0 OR g.oid IS NOT NULL)
 ORDER BY g.rolname NULLS FIRST, a.privilege_type

-- name: is_empty
-- Whether nobody has put anything into the database.
SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                    WHERE s.nspname !~ '^pg_' AND s.nspname <> 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace
                    WHERE s.nspname !~ '^pg_' AND s.nspname <> 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_type p JOIN pg_namespace s ON s.oid = p.typnamespace
                    WHERE s.nspname !~ '^pg_' AND s.nspname <> 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_namespace
                    WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public'))
   AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)

-- name: sessions
-- Who is connected to a database.  Of other people's sessions an ordinary role sees little.
SELECT pid, coalesce(usename, 'unknown'), coalesce(nullif(application_name, ''), 'unnamed')
  FROM pg_stat_activity
 WHERE datname = %(database)s AND pid <> pg_backend_pid()
   AND coalesce(backend_type, 'client backend') = 'client backend'
 ORDER BY backend_start

-- name: rights
-- The role, whether it may make databases, and whose the named one is (NULL: not there).
SELECT r.rolname, r.rolcreatedb OR r.rolsuper,
       (SELECT pg_get_userbyid(d.datdba) FROM pg_database d WHERE d.datname = %(database)s),
       (SELECT pg_has_role(r.oid, d.datdba, 'USAGE') FROM pg_database d
         WHERE d.datname = %(database)s)
  FROM pg_roles r WHERE r.rolname = current_user

-- name: scratch_databases
-- Ours by name; the comment says of what.  One that has no comment was killed at birth.
SELECT d.datname, shobj_description(d.oid, 'pg_database')
  FROM pg_database d
 WHERE d.datname ~ %(pattern)s AND pg_has_role(d.datdba, 'USAGE')
   -- To try and drop one that is in use takes the server five seconds.
   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
 ORDER BY 1
