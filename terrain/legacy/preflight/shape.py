"""Questions about the tables: are they there, and what shape have they?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from django.apps import apps
from django.db.migrations.recorder import MigrationRecorder

from terrain.legacy import catalog, public_schema, sql
from terrain.legacy.catalog import LEGACY, PARKED, REBUILT
from terrain.legacy.findings import Finding, Severity, passed
from terrain.legacy.preflight.asking import Question, Situation
from terrain.legacy.schema import Lens


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


def in_the_way(situation: Situation) -> Iterator[Finding]:
    """Whether anything has a name that this project needs."""
    waiting = {
        lens.legacy
        for lens in situation.lenses
        if catalog.is_legacy_in_public(situation.connection, lens.legacy)
    }
    for name in sorted(_taken(situation, waiting) & _wanted(situation)):
        yield Finding(
            "in-the-way",
            Severity.BLOCKS,
            f"public.{name} is in the way of what this project makes under that name.",
            f"Rename it: ALTER TABLE public.{name} RENAME TO {name}_old.",
        )
    for table, schema in situation.tables.items():
        if schema == LEGACY and table in waiting:
            yield Finding(
                "in-the-way",
                Severity.BLOCKS,
                f"legacy.{table} is in the way of public.{table}, which is to move there.",
                f"Rename it: ALTER TABLE legacy.{table} RENAME TO {table}_old.",
            )


def schemas(situation: Situation) -> Iterator[Finding]:
    """Whether a schema that this project makes, and drops again, has others' things in it."""
    ours = {
        REBUILT: {
            "queue",
            "used",
            "prepared",
            *(lens.legacy for lens in situation.lenses),
        },
        PARKED: set(catalog.NEW_TABLES),
    }
    for schema, known in ours.items():
        others = [
            name
            for (name,) in situation.rows(
                "SELECT c.relname FROM pg_class c"
                " WHERE c.relnamespace = to_regnamespace(%s)"
                "   AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
                [schema],
            )
            if name not in known
        ]
        if others:
            yield Finding(
                "in-the-way",
                Severity.BLOCKS,
                f"The schema {schema}, which this project makes and drops, has something"
                f" else in it: {', '.join(others)}.",
                f"Move it elsewhere, or rename the schema: ALTER SCHEMA {schema}"
                f" RENAME TO {schema}_old.",
            )


def _taken(situation: Situation, waiting: set[str]) -> set[str]:
    """Names of relations and types in ``public``, but for what is still to move."""
    return {
        str(name)
        for (name,) in situation.rows(
            "WITH ours AS (SELECT to_regclass(t)::oid AS oid FROM unnest(%s::text[]) t)"
            " SELECT c.relname FROM pg_class c"
            "  WHERE c.relnamespace = 'public'::regnamespace"
            "    AND c.oid NOT IN (SELECT oid FROM ours)"
            "    AND NOT EXISTS (SELECT FROM pg_index x JOIN ours ON ours.oid = x.indrelid"
            "                     WHERE x.indexrelid = c.oid)"
            " UNION"
            " SELECT t.typname FROM pg_type t"
            "  WHERE t.typnamespace = 'public'::regnamespace AND t.typrelid = 0"
            "    AND t.typelem = 0",
            [[sql.ident("public", table) for table in waiting]],
        )
    }


def _wanted(situation: Situation) -> set[str]:
    """Names that the migrations will need, less what they have made already.

    After a rollback the new tables stand in for themselves, and Django's own are there.
    """
    if not situation.value(
        "SELECT to_regclass('public.django_migrations') IS NOT NULL"
    ):
        applied: set[str] = set()
    else:
        recorder = MigrationRecorder(situation.connection)
        applied = {label for label, _ in recorder.applied_migrations()}
    if PARKED_TABLES & _relations(situation, PARKED) or "legacy" in applied:
        return set()
    tables = {
        model._meta.db_table: model._meta.app_label
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
    }
    wanted = {table for table, label in tables.items() if label not in applied}
    for described in public_schema.expected():
        kind, _, name = described.partition(" ")
        table, _, part = name.partition(".")
        if kind == "index" and table in wanted:
            wanted.add(part)
    return wanted


PARKED_TABLES = set(catalog.NEW_TABLES)


def _relations(situation: Situation, schema: str) -> set[str]:
    return {
        name
        for (name,) in situation.rows(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = %s",
            [schema],
        )
    }


SHAPE_QUESTIONS: tuple[Question, ...] = (
    missing_tables,
    columns,
    keys,
    in_the_way,
    schemas,
)
