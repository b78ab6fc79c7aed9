"""Rights on what the move creates: its owner's alone, unless an operator grants them afterwards.

Default privileges (``ALTER DEFAULT PRIVILEGES``) give others rights on what an owner makes.  What
is made here has other people's passwords in it, so these are taken back in the transaction that
makes it.
"""

from __future__ import annotations

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, sql
from terrain.legacy.mapping import LENSES
from terrain.postgresql.schemas import SCHEMA

_GRANTEE = "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"


def make_schema(connection: BaseDatabaseWrapper, schema: str) -> None:
    """Create a schema that only its owner may enter; default privileges are taken back."""
    if not catalog.schema_exists(connection, schema):
        with transaction.atomic(using=connection.alias):
            catalog.execute(connection, [f"CREATE SCHEMA {sql.ident(schema)}"])
            close_schema(connection, schema)


def untrusted_owners(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Our schemas -> the role that owns each, where reading there could run that role's code.

    A role that may create schemas could make one with a name and the mark of ours, and a policy
    on a table in it that calls a function.  Trusted are this role, those that it is a member of,
    superusers, and the owners of the database and of the legacy tables.
    """
    there = catalog.where(connection)
    return dict(
        catalog.rows(
            connection,
            "SELECT s.nspname::text, o.rolname::text"
            "  FROM pg_namespace s JOIN pg_roles o ON o.oid = s.nspowner"
            " WHERE s.nspname = ANY (%(schemas)s) AND NOT o.rolsuper"
            "   AND o.rolname <> current_user"
            # A superuser counts as a member of every role.
            "   AND NOT EXISTS (SELECT FROM pg_roles me WHERE me.rolname = current_user"
            "                      AND NOT me.rolsuper AND pg_has_role(o.oid, 'MEMBER'))"
            "   AND o.oid <> (SELECT datdba FROM pg_database"
            "                  WHERE datname = current_database())"
            "   AND o.oid NOT IN (SELECT c.relowner FROM pg_class c"
            "                      WHERE c.relnamespace = to_regnamespace(%(legacy)s)"
            "                        AND c.relname = ANY (%(tables)s))"
            " ORDER BY 1",
            {
                "schemas": [SCHEMA, catalog.REBUILT, catalog.PARKED],
                "legacy": there.legacy,
                "tables": [lens.legacy for lens in LENSES],
            },
        )
    )


def closing(schema: str) -> str:
    """A statement that leaves a schema to its owner alone."""
    return (
        "DO $$ DECLARE who text; BEGIN"
        f" FOR who IN SELECT DISTINCT {_GRANTEE} FROM pg_namespace s, aclexplode(s.nspacl) a"
        f" WHERE s.nspname = {sql.literal(schema)} AND a.grantee <> s.nspowner LOOP"
        f" EXECUTE {sql.literal(f'REVOKE ALL ON SCHEMA {sql.ident(schema)} FROM ')} || who;"
        " END LOOP; END $$"
    )


def closing_function(name: str) -> str:
    """A statement that takes a function, given with its arguments, from roles that were given it.

    What PUBLIC may do is for the migration to say that makes the function: those that act as
    their caller must stay open to any role that may write to the table.
    """
    return (
        "DO $$ DECLARE who text; BEGIN"
        f" FOR who IN SELECT DISTINCT {_GRANTEE} FROM pg_proc p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        f" WHERE p.oid = {sql.literal(name)}::regprocedure AND a.grantee NOT IN (0, p.proowner)"
        " LOOP"
        f" EXECUTE {sql.literal(f'REVOKE ALL ON FUNCTION {name} FROM ')} || who;"
        " END LOOP; END $$"
    )


def close_schema(connection: BaseDatabaseWrapper, schema: str) -> None:
    """Leave a schema to its owner alone."""
    catalog.execute(connection, [closing(schema)])


def close_table(connection: BaseDatabaseWrapper, table: str) -> None:
    """Leave a table and its sequences to the owner alone; ``table`` is a qualified name."""
    others = catalog.rows(
        connection,
        "SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,"
        f"       c.oid::regclass::text, {_GRANTEE}"
        "  FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE a.grantee <> c.relowner AND (c.oid = to_regclass(%(table)s)"
        "    OR c.oid IN (SELECT d.objid FROM pg_depend d"
        "                  WHERE d.classid = 'pg_class'::regclass"
        "                    AND d.refclassid = 'pg_class'::regclass"
        "                    AND d.refobjid = to_regclass(%(table)s) AND d.deptype IN ('a', 'i')))",
        {"table": table},
    )
    catalog.execute(
        connection,
        (f"REVOKE ALL ON {kind} {name} FROM {who}" for kind, name, who in others),
    )
