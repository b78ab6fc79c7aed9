"""Questions about the tables: are they there, and what shape have they?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from terrain.legacy import catalog, cut_over, privileges
from terrain.legacy.catalog import LEGACY, PARKED, REBUILT
from terrain.legacy.findings import Finding, Severity, passed
from terrain.legacy.preflight.asking import Question, Situation
from terrain.legacy.schema import Lens
from terrain.postgresql.schemas import SCHEMA


def missing_tables(situation: Situation) -> Iterator[Finding]:
    """Whether all six tables are there, as ordinary tables."""
    missing = [
        lens.legacy for lens in situation.lenses if lens.legacy not in situation.tables
    ]
    if missing:
        yield Finding(
            "tables",
            Severity.BLOCKS,
            f"The legacy tables {', '.join(missing)} are missing.",
            "Is this the right database? If the shop has renamed or dropped them, make them"
            " again, empty, from the legacy schema.",
        )
    for table, schema in situation.tables.items():
        odd = situation.value(
            "SELECT CASE WHEN c.relkind = 'p' THEN 'partitioned'"
            "            WHEN EXISTS (SELECT FROM pg_inherits i"
            "                          WHERE c.oid IN (i.inhparent, i.inhrelid))"
            "            THEN 'part of an inheritance tree'"
            "            WHEN c.relforcerowsecurity THEN 'under FORCE ROW LEVEL SECURITY' END"
            "  FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = %s AND c.relname = %s",
            [schema, table],
        )
        if odd:
            yield Finding(
                "tables",
                Severity.BLOCKS,
                f"The table {schema}.{table} is {odd}, which the copies do not know of.",
                "Make it an ordinary table first.",
            )


def columns(situation: Situation) -> Iterator[Finding]:
    """Whether the tables have the columns that the declaration knows, and no others."""
    fine = True
    for lens in situation.lenses:
        if lens.legacy not in situation.tables:
            continue
        schema = situation.tables[lens.legacy]
        there = {
            column.name: column
            for column in catalog.columns(situation.connection, schema, lens.legacy)
        }
        for finding in _column_findings(lens, there):
            fine = False
            yield finding
    if fine:
        yield passed("columns", "Every legacy column is there and has a place to go.")


def _column_findings(
    lens: Lens, there: Mapping[str, catalog.TableColumn]
) -> Iterator[Finding]:
    for column in lens.columns:
        found = there.get(column.name)
        if found is None:
            yield Finding(
                "columns",
                Severity.BLOCKS,
                f"The column {lens.legacy}.{column.name} is missing.",
                f"Add it: ALTER TABLE {lens.legacy} ADD COLUMN {column.name} {column.type}.",
            )
        elif found.type != column.type:
            integer_key = column.name == "id" and found.type in ("integer", "bigint")
            yield Finding(
                "columns",
                Severity.BLOCKS,
                f"The column {lens.legacy}.{column.name} is {found.type}, not {column.type}.",
                (
                    "Keys are UUIDs in the new schema; integer keys cannot be kept."
                    if integer_key
                    else f"Change it back: ALTER TABLE {lens.legacy} ALTER COLUMN"
                    f" {column.name} TYPE {column.type}; or declare the new type in mapping.py."
                ),
            )
    known = {column.name for column in lens.columns}
    for name in there:
        if name not in known:
            yield Finding(
                "columns",
                Severity.BLOCKS,
                f"The column {lens.legacy}.{name} has no place in the new schema.",
                "Say in terrain/legacy/mapping.py where it goes, or that it is dropped and why.",
            )


def keys(situation: Situation) -> Iterator[Finding]:
    """Whether each id is there once: the copies go from key to key."""
    for table, name in situation.qualified.items():
        if not situation.value(
            "SELECT EXISTS (SELECT FROM pg_index x"
            "  JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]"
            " WHERE x.indrelid = to_regclass(%s) AND a.attname = 'id' AND a.attnotnull"
            "   AND x.indnkeyatts = 1 AND x.indisunique AND x.indisvalid AND x.indimmediate"
            "   AND x.indpred IS NULL)",
            [name],
        ):
            yield Finding(
                "keys",
                Severity.BLOCKS,
                f"The table {table} has no primary key on its id.",
                "Put it back, once no id occurs twice:"
                f" ALTER TABLE {table} ADD PRIMARY KEY (id).",
            )


def schemas(situation: Situation) -> Iterator[Finding]:
    """Whether the schemas that this project makes, and drops again, are its own."""
    ours = {REBUILT: {"queue", "used", "prepared"}, PARKED: set(catalog.NEW_TABLES)}
    ours[REBUILT] |= {lens.legacy for lens in situation.lenses}
    for schema, known in ours.items():
        others = sorted(set(_relations(situation, schema)) - known)
        if others:
            yield _others_schema(
                schema, f"contains other relations: {', '.join(others)}"
            )
    is_cut_over = catalog.where(situation.connection).is_cut_over
    if not is_cut_over and catalog.schema_exists(situation.connection, LEGACY):
        yield _others_schema(LEGACY, "exists already and was not made by it")
    if catalog.schema_exists(situation.connection, SCHEMA) and not cut_over.is_marked(
        situation.connection
    ):
        yield _others_schema(SCHEMA, "exists already and was not made by it")


def schema_owners(situation: Situation) -> Iterator[Finding]:
    """Whether schemas with our names belong to roles that may not run code as this one."""
    owners = privileges.untrusted_owners(situation.connection)
    for schema, owner in owners.items():
        yield _others_schema(schema, f"belongs to the role {owner}")


def _others_schema(schema: str, why: str) -> Finding:
    return Finding(
        "schemas",
        Severity.BLOCKS,
        f"The schema {schema}, which this project makes and drops, {why}.",
        f"Rename it: ALTER SCHEMA {schema} RENAME TO {schema}_old; or move what is in it"
        " elsewhere and drop it.",
    )


def _relations(situation: Situation, schema: str) -> list[str]:
    return [
        name
        for (name,) in situation.rows(
            "SELECT c.relname FROM pg_class c"
            " WHERE c.relnamespace = to_regnamespace(%s)"
            "   AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
            [schema],
        )
    ]


def roles(situation: Situation) -> Iterator[Finding]:
    """Whether a role has the name of one of our schemas, which "$user" would stand for."""
    names = [SCHEMA, LEGACY, REBUILT, PARKED]
    for (role,) in situation.rows(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) AND rolcanlogin ORDER BY 1",
        [names],
    ):
        yield Finding(
            "schemas",
            Severity.BLOCKS,
            f"The role {role} has the name of a schema that this project makes. The"
            ' "$user" in its search path would resolve to that schema.',
            f"Rename it: ALTER ROLE {role} RENAME TO {role}_role.",
        )


SHAPE_QUESTIONS: tuple[Question, ...] = (
    missing_tables,
    columns,
    keys,
    schemas,
    roles,
)
