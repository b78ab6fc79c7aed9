"""Questions to PostgreSQL's catalog: where things are, whose they are, what shape they have."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from terrain.legacy import place
from terrain.legacy.backup import fingerprints
from terrain.legacy.mapping import LENSES
from terrain.legacy.place import Place
from terrain.legacy.remembering import is_on, lately, once
from terrain.legacy.schema import Lens
from terrain.legacy.sql import Types
from terrain.operations import AddConstraintOnline, AddIndexOnline
from terrain.postgresql.schemas import SCHEMA

#: Where the legacy tables are after the cut-over, what is derived, and what waits after a rollback.
LEGACY, REBUILT, PARKED = place.LEGACY, "rebuilt", "legacy_parked"

#: App labels whose tables are the new schema.
NEW_APPS = ("terrain", "sessions_app", "catalogue", "orders")


#: Applied when the new tables begin to be made; when triggers keep both sides in step; when every
#: row is there and the new tables are open; and when all of it is through.
BEGUN = ("legacy", "0002_make_schemas")
#: What a version before this called the same.
BEGUN_BEFORE = ("legacy", "0002_stand_aside")
IN_STEP = ("legacy", "0003_keep_in_step")
SETTLED = ("legacy", "0009_settle")
LAST = (SETTLED, ("catalogue", "0005_count_usage"))


Params = Mapping[str, Any] | Sequence[Any] | None


@dataclass(frozen=True)
class TableColumn:
    """A column as the catalog has it; ``type`` is what ``format_type`` says."""

    name: str
    type: str
    nullable: bool


def rows(
    connection: BaseDatabaseWrapper,
    query: str,
    params: Params = None,
) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    question = (connection.alias, query, repr(params))
    return once(question, lambda: _rows(connection, query, params))


def _rows(
    connection: BaseDatabaseWrapper,
    query: str,
    params: Params,
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def value(
    connection: BaseDatabaseWrapper,
    query: str,
    params: Params = None,
) -> Any:
    """The first column of the first row, or None."""
    found = rows(connection, query, params)
    return found[0][0] if found else None


def execute(
    connection: BaseDatabaseWrapper,
    statements: Iterable[str],
) -> None:
    """Run statements that return nothing of interest."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def where(connection: BaseDatabaseWrapper) -> Place:
    """Where the tables are."""
    return place.of(connection)


def names(connection: BaseDatabaseWrapper, *tokens: str) -> tuple[str, ...]:
    """The qualified names of ``@legacy.<table>`` and ``@new.<table>``, as locks want them."""
    there = place.of(connection)
    return tuple(there.name(token) for token in tokens)


def new(connection: BaseDatabaseWrapper, *tables: str) -> tuple[str, ...]:
    """The qualified names of tables of the new schema."""
    return names(connection, *(f"@new.{table}" for table in tables))


def both(connection: BaseDatabaseWrapper, lens: Lens) -> tuple[str, ...]:
    """The qualified names of a legacy table and of the new one that its rows are in."""
    return names(connection, f"@legacy.{lens.legacy}", f"@new.{lens.new}")


def planned(connection: BaseDatabaseWrapper, table: str) -> int:
    """Rows of a legacy table by the planner's count; -1 if it was never analysed."""
    found: int = value(
        connection,
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
        names(connection, f"@legacy.{table}"),
    )
    return found


def system(connection: BaseDatabaseWrapper) -> str | None:
    """Which server this is: what backups of it are told by."""
    ask = partial(fingerprints.system, partial(value, connection))
    where = connection.settings_dict["HOST"], connection.settings_dict["PORT"]
    return lately(where, ask) if is_on() else ask()


_EVERY_TABLE = (
    "SELECT s.nspname, c.relname FROM pg_class c"
    "  JOIN pg_namespace s ON s.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p')"
    f"   AND s.nspname IN ('public', '{SCHEMA}', '{LEGACY}', '{REBUILT}', '{PARKED}')"
)


def schema_exists(connection: BaseDatabaseWrapper, schema: str) -> bool:
    return bool(
        value(connection, "SELECT true FROM pg_namespace WHERE nspname = %s", [schema])
    )


def table_exists(connection: BaseDatabaseWrapper, schema: str, table: str) -> bool:
    if is_on():  # one question for all tables
        return (schema, table) in rows(connection, _EVERY_TABLE)
    return bool(
        value(
            connection,
            "SELECT true FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
            [schema, table],
        )
    )


def relations(
    connection: BaseDatabaseWrapper, schema: str, kinds: str = "rpvm"
) -> tuple[str, ...]:
    """The qualified names of a schema's tables and views, or of some ``kinds`` of them."""
    found = rows(
        connection,
        "SELECT s.nspname || '.' || c.relname"
        "  FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE s.nspname = %s AND c.relkind::text = ANY (%s) ORDER BY 1",
        [schema, list(kinds)],
    )
    return tuple(name for (name,) in found)


def columns(
    connection: BaseDatabaseWrapper, schema: str, table: str
) -> tuple[TableColumn, ...]:
    """The columns of a table, in order; none if there is no such table."""
    found = rows(
        connection,
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull"
        "  FROM pg_attribute a"
        "  JOIN pg_class c ON c.oid = a.attrelid"
        "  JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE s.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum",
        [schema, table],
    )
    return tuple(TableColumn(*row) for row in found)


def new_table_exists(connection: BaseDatabaseWrapper, table: str) -> bool:
    """Whether a table of ours is there, and not parked."""
    return table_exists(connection, where(connection).schema_of(table), table)


def legacy_tables(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Legacy table -> the schema it is in, for those that are there."""
    schema = where(connection).legacy
    return {
        lens.legacy: schema
        for lens in LENSES
        if table_exists(connection, schema, lens.legacy)
    }


def has_legacy_tables(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a legacy side: something to move, or to keep in step with."""
    return bool(legacy_tables(connection))


def is_begun(connection: BaseDatabaseWrapper) -> bool:
    """Whether the move has begun, and has not been rolled back."""
    return bool({BEGUN, BEGUN_BEFORE} & set(applied(connection)))


def _new_models() -> list[Any]:
    """The models of the new schema, with the tables Django makes for their relations."""
    return [
        model
        for label in NEW_APPS
        for model in apps.get_app_config(label).get_models(include_auto_created=True)
        if model._meta.managed
    ]


def new_columns(table: str) -> tuple[str, ...]:
    """The columns of a new table, by the Django model."""
    for model in _new_models():
        if model._meta.db_table == table:
            return tuple(field.column for field in model._meta.concrete_fields)
    return ()


def made_online() -> list[str]:
    """The names of the indexes and constraints that migrations add beside the traffic."""
    names = []
    for (label, _), migration in MigrationLoader(None).disk_migrations.items():
        for operation in migration.operations if label in NEW_APPS else ():
            if isinstance(operation, AddIndexOnline):
                names.append(operation.index.name)
            elif isinstance(operation, AddConstraintOnline):
                names.append(operation.constraint.name)
    return names


NEW_TABLES = (
    "users",
    "users_groups",
    "users_user_permissions",
    "anonymous_sessions",
    "models",
    "assets",
    "asset_sets",
    "asset_set_items",
    "tables",
    "table_assets",
    "table_sets",
    "asset_usage",
    "asset_usage_days",
    "asset_usage_log",
    "orders",
    "order_items",
    "payments",
)


LEDGER_TABLES = (
    "legacy_run",
    "legacy_batch",
    "legacy_quarantine",
    "legacy_released",
    "terrain_pace_order",
    "terrain_pace_state",
)


def applied(connection: BaseDatabaseWrapper) -> Mapping[tuple[str, str], Any]:
    """The migrations that are applied, each with when."""
    return once(
        (connection.alias, "applied migrations"),
        lambda: _applied(connection),
    )


def migrated_at(connection: BaseDatabaseWrapper) -> datetime.datetime | None:
    """When the last migration of the move was applied; None before that."""
    there = applied(connection)
    if any(name not in there for name in LAST):
        return None
    moment: datetime.datetime = max(there[name].applied for name in LAST)
    return moment


def _applied(connection: BaseDatabaseWrapper) -> Mapping[tuple[str, str], Any]:
    recorder = MigrationRecorder(connection)
    if not new_table_exists(connection, "django_migrations"):
        return {}
    return {(each.app, each.name): each for each in recorder.migration_qs}


def types(connection: BaseDatabaseWrapper) -> Types:
    """New table -> column -> type, by the Django models."""
    return {
        model._meta.db_table: {
            field.column: field.db_type(connection)
            for field in model._meta.concrete_fields
        }
        for model in _new_models()
    }


def owner(connection: BaseDatabaseWrapper, schema: str, table: str) -> str:
    """The role that owns a table."""
    return str(
        value(
            connection,
            "SELECT pg_get_userbyid(c.relowner) FROM pg_class c"
            " JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = %s AND c.relname = %s",
            [schema, table],
        )
    )
