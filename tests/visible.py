"""Everything that an application sees of its database, as plain data that can be compared.

It is asked by the application's own role, on a connection that has brought no path along.
Rows of PostgreSQL's catalogue are taken whole, so that what nobody thought of is compared
too; what is left out of a row is named here, with the reason.

Compared are all schemas but PostgreSQL's own and the project's: whatever is in a schema that
the application can name is its own, and so is a schema that was not there before.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from terrain.legacy.sql.triggers import TRIGGER_PREFIX

#: Schemas of the project's own while the old application lives.
OURS = ("terrain", "rebuilt", "legacy_parked")

#: What of it differs between two connections to one database, or grows by itself.
_COUNTED = "'{reltuples,relpages,relallvisible,relallfrozen,relfrozenxid,relminmxid}'"

_THEIRS = (
    "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    " AND n.nspname <> ALL (%(ours)s)"
)

_MINE = (
    "(SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user"
    " OR pg_has_role(current_user, r.oid, 'USAGE'))"
)

#: section -> a query that gives (name, row as JSON).
_SECTIONS = {
    "session": """
        SELECT 'path', jsonb_build_object(
            'search_path', current_setting('search_path'),
            'current_schema', current_schema(),
            'current_schemas', current_schemas(true),
            'effective', current_schemas(false),
            'session_user', session_user, 'current_user', current_user)""",
    # Of the database's and the role's own only: the server's may be changed by others.
    "settings": """
        SELECT name, jsonb_build_object('setting', setting, 'source', source)
          FROM pg_settings WHERE source IN ('database', 'user', 'database user')""",
    "settings of roles": f"""
        SELECT format('%%s %%s', setdatabase, setrole), to_jsonb(s.setconfig)
          FROM pg_db_role_setting s
         WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
           AND (setrole = 0 OR setrole IN {_MINE})""",
    "database": """
        SELECT datname::text, to_jsonb(d) - '{datfrozenxid,datminmxid}'::text[]
          FROM pg_database d WHERE datname = current_database()""",
    "roles": f"""
        SELECT rolname::text, to_jsonb(r) FROM pg_roles r WHERE r.oid IN {_MINE}""",
    # Who else is a member of these is the cluster's business, and other tests'.
    "memberships": f"""
        SELECT format('%%s in %%s', m.member::regrole, m.roleid::regrole), to_jsonb(m)
          FROM pg_auth_members m WHERE m.member IN {_MINE}""",
    "schemas": f"SELECT nspname::text, to_jsonb(n) FROM pg_namespace n WHERE {_THEIRS}",
    # relhastriggers is left out: the sync's own triggers are the one thing that may be seen.
    "relations": f"""
        SELECT format('%%s.%%s', nspname, relname),
               to_jsonb(c) - {_COUNTED}::text[] - 'relhastriggers'
               || jsonb_build_object('bound', pg_get_expr(relpartbound, c.oid),
                                     'view', CASE WHEN relkind IN ('v', 'm')
                                             THEN pg_get_viewdef(c.oid) END)
          FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "columns": f"""
        SELECT format('%%s.%%s.%%s', nspname, relname, attname),
               to_jsonb(x) || jsonb_build_object(
                   'type', format_type(x.atttypid, x.atttypmod),
                   'default', (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                                WHERE adrelid = x.attrelid AND adnum = x.attnum))
          FROM (SELECT attrelid, attname, atttypid, atttypmod, attnum, attndims, attnotnull,
                       atthasdef, attidentity, attgenerated, attisdropped, attislocal,
                       attinhcount, attcollation, attstorage, attcompression, attstattarget,
                       attoptions, attfdwoptions, attacl, attmissingval::text
                  FROM pg_attribute WHERE attnum > 0) x
          JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
         WHERE {_THEIRS}""",
    # Those of others that point at a table of its own too: \d says them.
    "constraints": f"""
        SELECT format('%%s on %%s', conname, coalesce(conrelid::regclass::text,
                                                      contypid::regtype::text)),
               to_jsonb(k) || jsonb_build_object('definition', pg_get_constraintdef(k.oid))
          FROM pg_constraint k
         WHERE EXISTS (SELECT FROM pg_namespace n WHERE {_THEIRS} AND (
                       n.oid = connamespace OR n.oid = (SELECT relnamespace FROM pg_class
                                                         WHERE oid = confrelid)))""",
    "indexes": f"""
        SELECT format('%%s.%%s', nspname, relname),
               to_jsonb(i) || jsonb_build_object('definition', pg_get_indexdef(c.oid))
          FROM pg_index i JOIN pg_class c ON c.oid = indexrelid
          JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "inheritance": f"""
        SELECT format('%%s of %%s', inhrelid::regclass, inhparent::regclass), to_jsonb(i)
          FROM pg_inherits i JOIN pg_class c ON c.oid = inhparent
          JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "rules": f"""
        SELECT format('%%s.%%s.%%s', nspname, relname, rulename),
               jsonb_build_object('definition', pg_get_ruledef(w.oid), 'enabled', ev_enabled)
          FROM pg_rewrite w JOIN pg_class c ON c.oid = ev_class
          JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "policies": f"""
        SELECT format('%%s.%%s.%%s', schemaname, tablename, policyname), to_jsonb(p)
          FROM pg_policies p JOIN pg_namespace n ON n.nspname = schemaname WHERE {_THEIRS}""",
    "triggers": f"""
        SELECT format('%%s.%%s.%%s', nspname, relname, tgname),
               jsonb_build_object('oid', t.oid, 'internal', tgisinternal,
                                  'enabled', tgenabled, 'constraint', tgconstraint,
                                  'definition', pg_get_triggerdef(t.oid))
          FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
          JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "sequences": f"""
        SELECT format('%%s.%%s', nspname, relname), to_jsonb(s) || jsonb_build_object(
                   'owned by', (SELECT format('%%s.%%s', refobjid::regclass, refobjsubid)
                                  FROM pg_depend WHERE classid = 'pg_class'::regclass
                                   AND objid = c.oid AND deptype IN ('a', 'i')
                                   AND refclassid = 'pg_class'::regclass))
          FROM pg_sequence s JOIN pg_class c ON c.oid = seqrelid
          JOIN pg_namespace n ON n.oid = relnamespace WHERE {_THEIRS}""",
    "functions": f"""
        SELECT format('%%s.%%s(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)),
               to_jsonb(p) || jsonb_build_object('definition', CASE WHEN prokind <> 'a'
                   THEN pg_get_functiondef(p.oid) END)
          FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {_THEIRS}""",
    "types": f"""
        SELECT format('%%s.%%s', nspname, typname), to_jsonb(t) || jsonb_build_object(
                   'labels', (SELECT jsonb_agg(enumlabel ORDER BY enumsortorder)
                                FROM pg_enum WHERE enumtypid = t.oid))
          FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE {_THEIRS}""",
    "operators": f"""
        SELECT format('%%s.%%s %%s', nspname, oprname, o.oid), to_jsonb(o)
          FROM pg_operator o JOIN pg_namespace n ON n.oid = oprnamespace WHERE {_THEIRS}""",
    "collations": f"""
        SELECT format('%%s.%%s', nspname, collname), to_jsonb(o)
          FROM pg_collation o JOIN pg_namespace n ON n.oid = collnamespace WHERE {_THEIRS}""",
    "statistics": f"""
        SELECT format('%%s.%%s', nspname, stxname),
               to_jsonb(s) || jsonb_build_object('definition', pg_get_statisticsobjdef(s.oid))
          FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = stxnamespace WHERE {_THEIRS}""",
    "comments": f"""
        SELECT format('%%s %%s', i.type, i.identity), to_jsonb(d.description)
          FROM pg_description d, pg_identify_object(classoid, objoid, objsubid) i
         WHERE objoid >= 16384 AND NOT coalesce(i.schema, '') = ANY (%(ours)s)
           AND NOT (i.type = 'schema' AND i.identity = ANY (%(ours)s))
           AND i.identity !~ format(' on (%%s)\\.', array_to_string(%(ours)s::text[], '|'))
           AND i.identity !~ '^{TRIGGER_PREFIX}'""",
    "default privileges": """
        SELECT format('%%s %%s %%s', defaclrole::regrole, coalesce(nspname, 'everywhere'),
                      defaclobjtype), to_jsonb(defaclacl)
          FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
         WHERE nspname IS NULL OR nspname <> ALL (%(ours)s)""",
    "publications": "SELECT pubname::text, to_jsonb(p) FROM pg_publication p",
    "published tables": """
        SELECT format('%%s %%s.%%s', pubname, schemaname, tablename), to_jsonb(t)
          FROM pg_publication_tables t""",
    "published schemas": """
        SELECT format('%%s %%s', pnpubid, pnnspid::regnamespace), to_jsonb(n)
          FROM pg_publication_namespace n""",
    "extensions": "SELECT extname::text, to_jsonb(e) FROM pg_extension e",
    "event triggers": "SELECT evtname::text, to_jsonb(e) FROM pg_event_trigger e",
    "languages": "SELECT lanname::text, to_jsonb(l) FROM pg_language l",
    "casts": """
        SELECT format('%%s as %%s', castsource::regtype, casttarget::regtype), to_jsonb(c)
          FROM pg_cast c WHERE oid >= 16384""",
    "foreign servers": "SELECT srvname::text, to_jsonb(s) FROM pg_foreign_server s",
}

#: What is asked of all schemas, the project's too, by right and not by name.
_RIGHTS = {
    "schemas that it may use": """
        SELECT nspname::text, to_jsonb(array_remove(ARRAY[
                   CASE WHEN has_schema_privilege(oid, 'USAGE') THEN 'USAGE' END,
                   CASE WHEN has_schema_privilege(oid, 'CREATE') THEN 'CREATE' END], NULL))
          FROM pg_namespace
         WHERE nspname !~ '^pg_(toast_)?temp_' AND has_schema_privilege(oid, 'USAGE, CREATE')""",
    "relations that it may use": """
        SELECT format('%%s.%%s', nspname, relname), to_jsonb(ARRAY(
                   SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'
                                        ::text[]) p WHERE has_table_privilege(c.oid, p)))
          FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
         WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^pg_'
           AND nspname <> 'information_schema'
           AND has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')""",
    "functions that it may use": """
        SELECT p.oid::regprocedure::text, to_jsonb(prosecdef)
          FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
         WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
           AND has_function_privilege(p.oid, 'EXECUTE')
           AND has_schema_privilege(n.oid, 'USAGE')""",
    "information_schema.tables": """
        SELECT format('%%s.%%s', table_schema, table_name), to_jsonb(t)
          FROM information_schema.tables t""",
    "information_schema.columns": """
        SELECT format('%%s.%%s.%%s', table_schema, table_name, column_name), to_jsonb(t)
          FROM information_schema.columns t
         WHERE table_schema NOT IN ('pg_catalog', 'information_schema')""",
}

#: Where each row of its tables is, who wrote it last, and what it says.
_ROWS = """
    SELECT jsonb_build_object('rows', count(*), 'digest', md5(string_agg(
               concat_ws(' ', ctid, xmin, t::text), E'\\n' ORDER BY ctid)))
      FROM {} t"""

Snapshot = dict[str, dict[str, Any]]


def visible(connection: psycopg.Connection[Any], *, rights: bool = True) -> Snapshot:
    """Everything that the role of this connection sees: section -> name -> facts.

    ``rights`` is for a role that owns nothing; an owner sees what is its own in any schema.
    """
    found: Snapshot = {}
    ours = {"ours": list(OURS)}
    for section, query in {**_SECTIONS, **(_RIGHTS if rights else {})}.items():
        given = connection.execute(query, ours).fetchall()  # type: ignore[call-overload]
        found[section] = dict(sorted(given))
        assert len(found[section]) == len(given), section
    found["rows"] = _rows(connection)
    return found


def _rows(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    tables = connection.execute(
        "SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        f" WHERE relkind = 'r' AND {_THEIRS} AND has_table_privilege(c.oid, 'SELECT')"
        "   AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1, 2",
        {"ours": list(OURS)},
    ).fetchall()
    found = {}
    for schema, table in tables:
        query = sql.SQL(_ROWS).format(sql.Identifier(schema, table))
        ((facts,),) = connection.execute(query).fetchall()
        found[f"{schema}.{table}"] = facts
    return found


def without_sync(found: Snapshot) -> Snapshot:
    """The same without the triggers that keep both sides in step."""
    others = {
        name: facts
        for name, facts in found["triggers"].items()
        if not name.rpartition(".")[2].startswith(TRIGGER_PREFIX)
    }
    return {**found, "triggers": others}


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """A line for each fact that is not in both alike."""
    said = []
    for section in sorted({*before, *after}):
        was, now = before.get(section, {}), after.get(section, {})
        for name in sorted({*was, *now}):
            said += _changed(f"{section}: {name}", was.get(name), now.get(name))
    return said


def _changed(what: str, was: Any, now: Any) -> list[str]:
    if was == now:
        return []
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*was, *now})
            for line in _changed(f"{what}: {key}", was.get(key), now.get(key))
        ]
    if was is None:
        return [f"+ {what}: {now}"]
    if now is None:
        return [f"- {what}: {was}"]
    return [f"{what}: {was} -> {now}"]
