"""Questions to PostgreSQL's catalog: where things are, whose they are, what shape they have."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from terrain.legacy.backup import fingerprints
from terrain.legacy.mapping import LENSES
from terrain.legacy.remembering import is_on, lately, once
from terrain.legacy.sql import Types
from terrain.operations import AddConstraintOnline, AddIndexOnline

#: Where the tables go, what is derived, and what waits after a rollback.
LEGACY, REBUILT, PARKED = "legacy", "rebuilt", "legacy_parked"

#: App labels whose tables are the new schema.
NEW_APPS = ("terrain", "sessions_app", "catalogue", "orders")


#: Applied when every row is there and the new tables are open; and when all of it is through.
SETTLED = ("legacy", "0009_settle")
LAST = (SETTLED, ("catalogue", "0005_count_usage"))


@dataclass(frozen=True)
class TableColumn:
    """A column as the catalog has it; ``type`` is what ``format_type`` says."""

    name: str
    type: str
    nullable: bool


def rows(
    connection: BaseDatabaseWrapper,
    query: str,
    params: Mapping[str, Any] | list[Any] | None = None,
) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    question = (connection.alias, query, repr(params))
    return once(question, lambda: _rows(connection, query, params))


def _rows(
    connection: BaseDatabaseWrapper,
    query: str,
    params: Mapping[str, Any] | list[Any] | None,
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def value(
    connection: BaseDatabaseWrapper,
    query: str,
    params: Mapping[str, Any] | list[Any] | None = None,
) -> Any:
    """The first column of the first row, or None."""
    found = rows(connection, query, params)
    return found[0][0] if found else None


def planned(connection: BaseDatabaseWrapper, table: str) -> int:
    """Rows of a moved table by the planner's count; -1 if it was never analysed."""
    found: int = value(
        connection,
        "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
        [f"legacy.{table}"],
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
    f" WHERE c.relkind IN ('r', 'p') AND s.nspname IN ('public', '{LEGACY}', '{REBUILT}',"
    f" '{PARKED}')"
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


def legacy_schema_of(connection: BaseDatabaseWrapper, table: str) -> str | None:
    """Where a legacy table is: ``legacy``, ``public`` or nowhere.

    The names ``assets`` and ``orders`` are the new schema's too.  A table in ``public``
    is the legacy one if it has the legacy columns that the new one lacks.
    """
    if table_exists(connection, LEGACY, table):
        return LEGACY
    return "public" if is_legacy_in_public(connection, table) else None


def is_legacy_in_public(connection: BaseDatabaseWrapper, table: str) -> bool:
    """Whether ``public`` has a table of that name which is not the new one."""
    there = {column.name for column in columns(connection, "public", table)}
    return bool(there) and not (
        table in NEW_TABLES and there >= {column for column in new_columns(table)}
    )


def legacy_tables(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Legacy table -> the schema it is in, for those that are somewhere."""
    found = {lens.legacy: legacy_schema_of(connection, lens.legacy) for lens in LENSES}
    return {table: schema for table, schema in found.items() if schema is not None}


def is_moved(connection: BaseDatabaseWrapper) -> bool:
    """Whether all legacy tables stand aside, so that there is something to derive from."""
    found = legacy_tables(connection)
    return bool(found) and set(found.values()) == {LEGACY}


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
    if not table_exists(connection, "public", "django_migrations"):
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
