"""Questions about what other roles see of the schemas that migrate makes."""

from __future__ import annotations

from collections.abc import Iterator

from terrain.legacy import catalog, search_path
from terrain.legacy.catalog import PARKED, REBUILT
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.preflight.asking import Question, Situation, found
from terrain.postgresql.schemas import SCHEMA

#: Schemas that migrate and a rollback make, closed to all but their owner.
CLOSED = (SCHEMA, REBUILT, PARKED)


def dumps(situation: Situation) -> Iterator[Finding]:
    """Whether roles that only read may no longer dump the whole database."""
    there = [
        schema
        for schema in CLOSED
        if catalog.schema_exists(situation.connection, schema)
    ]
    rows = situation.rows(
        "WITH legacy AS (SELECT to_regclass(t)::oid AS oid FROM unnest(%(legacy)s::text[]) t)"
        " SELECT r.rolname::text FROM pg_roles r"
        "  WHERE r.rolcanlogin AND NOT r.rolsuper"
        "    AND NOT pg_has_role(r.oid, 'pg_read_all_data', 'USAGE')"
        "    AND NOT EXISTS ("
        "        SELECT FROM legacy l JOIN pg_class c USING (oid)"
        "         WHERE pg_has_role(r.oid, c.relowner, 'USAGE')"
        "            OR NOT has_table_privilege(r.oid, c.oid, 'SELECT')"
        "            OR has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE'))"
        # Until the schemas are there, all of them; then those that cannot read all of these.
        "    AND (cardinality(%(there)s::text[]) = 0"
        "         OR EXISTS (SELECT FROM pg_namespace s WHERE s.nspname = ANY (%(there)s)"
        "                       AND NOT has_schema_privilege(r.oid, s.oid, 'USAGE'))"
        "         OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace s"
        "                        ON s.oid = c.relnamespace AND s.nspname = ANY (%(there)s)"
        "                     WHERE c.relkind IN ('r', 'p', 'v', 'S')"
        "                       AND NOT has_table_privilege(r.oid, c.oid, 'SELECT')))"
        "  ORDER BY 1",
        {"legacy": list(situation.qualified.values()), "there": there},
    )
    schemas = ", ".join(there or (SCHEMA, REBUILT))
    yield from found(
        "dumps",
        [
            {"role": role, "grant": _grants(schemas, search_path.join([role]))}
            for (role,) in rows
        ],
        "Roles may read all legacy tables, write none, and do not own them. If one of them runs"
        " pg_dump of the whole database, it fails on the schemas terrain, rebuilt and legacy_parked"
        " once these exist.",
        "After migrate, run the grants as the owner. The role can then read the password hashes in"
        " terrain, which it can read already in artists. Or add to its pg_dump:"
        " --exclude-schema=terrain --exclude-schema=rebuilt --exclude-schema=legacy_parked. After a"
        " rollback run preflight again: legacy_parked needs grants of its own.",
        severity=Severity.WARNS,
    )


def _grants(schemas: str, role: str) -> str:
    return (
        f"GRANT USAGE ON SCHEMA {schemas} TO {role};"
        f" GRANT SELECT ON ALL TABLES IN SCHEMA {schemas} TO {role};"
        f" GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schemas} TO {role};"
    )


def owner_application(situation: Situation) -> Iterator[Finding]:
    """Whether the old application connects as the owner of the tables."""
    owners = {
        catalog.owner(situation.connection, schema, table)
        for table, schema in situation.tables.items()
    }
    as_owner = {
        role
        for (role,) in situation.rows(
            "SELECT r.rolname::text FROM pg_roles r WHERE r.rolcanlogin AND EXISTS ("
            "  SELECT FROM pg_roles o WHERE o.rolname = ANY (%s)"
            "     AND (o.oid = r.oid OR NOT r.rolsuper AND pg_has_role(r.oid, o.oid, 'USAGE')))",
            [sorted(owners)],
        )
    }
    sessions = [
        each
        for each in search_path.other_sessions(situation.connection)
        if each.role in as_owner
    ]
    is_alone = not set(search_path.roles_with_rights(situation.connection)) - as_owner
    if not sessions and not is_alone:
        return
    why = (
        "No login role but their owner's has rights on the legacy tables, so the old application"
        " connects as the owner."
        if is_alone
        else "Sessions of the owner of the legacy tables are connected that are not this project's."
    )
    yield Finding(
        "owner-application",
        Severity.TELLS,
        f"{why} Such a session may use the schema terrain: catalog queries that name no schema"
        " list the new tables beside its own. After the cut-over its statements on orders and"
        " assets run on the new tables.",
        "Stop the old application before cut_over. If its tools read the catalog (such as"
        " Sequelize sync or a schema dump), let them name the schema public.",
        tuple({"session": str(each)} for each in sessions[:5]),
        len(sessions),
    )


ROLE_QUESTIONS: tuple[Question, ...] = (dumps, owner_application)
