"""Builds indexes and constraints on tables in use, beside the traffic.

Each function looks at what is there first: what is complete is left alone, what is there
but half-made is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import DatabaseError, IntegrityError, models, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from terrain import locks
from terrain.blockers import Mode
from terrain.constraints import ForeignKeyConstraint
from terrain.pace import others_connected
from terrain.qualified import all_qualified
from terrain.waiting import waiting_aloud

#: Rows that one look is taken at in less time than anybody may be kept waiting.
FEW_ROWS = 250_000
#: How often a build that was a deadlock's victim is begun.
BUILDS = 3
#: Dangling references cleared in one transaction.
CLEARED_AT_ONCE = 100


def _table(schema_editor: BaseDatabaseSchemaEditor, model: type[models.Model]) -> str:
    """The name of a model's table for SQL; the search path knows the schema."""
    return schema_editor.quote_name(model._meta.db_table)


def _to_lock(
    schema_editor: BaseDatabaseSchemaEditor, *of: type[models.Model]
) -> tuple[str, ...]:
    """The names of models' tables, with the schema that they are in now."""
    return all_qualified(
        schema_editor.connection, [model._meta.db_table for model in of]
    )


def _one(schema_editor: BaseDatabaseSchemaEditor, query: str, params: list[Any]) -> Any:
    """The first column of the first row, or None."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(query, params)
        row = cursor.fetchone()
    return row[0] if row else None


# --- indexes -------------------------------------------------------------------------------


def build_index(
    schema_editor: BaseDatabaseSchemaEditor,
    table: str,
    name: str,
    create: Callable[[bool], None],
) -> None:
    """Have ``create`` build the index ``name`` of ``table``, unless a valid one is there.

    ``table`` is as in SQL, with or without its schema.  The argument of ``create`` is whether
    beside the traffic.  That takes two looks at every row and waits for every older
    transaction, so a small table that nobody else is there to write to is indexed at once:
    whoever comes meanwhile does not wait long.
    """
    if _index_is_valid(schema_editor, table, name):
        return
    for left in reversed(range(BUILDS)):
        _drop_invalid_index(schema_editor, table, name)
        if _is_built_at_once(schema_editor, table, create):
            return
        try:
            with waiting_aloud(schema_editor.connection, f"Building index {name}"):
                return create(True)
        except DatabaseError as error:
            if not locks.is_retried(error) or not left:
                raise


def _is_built_at_once(
    schema_editor: BaseDatabaseSchemaEditor, table: str, create: Callable[[bool], None]
) -> bool:
    connection = schema_editor.connection
    if others_connected(connection) or not _has_few_rows(schema_editor, table):
        return False
    try:
        with (
            transaction.atomic(using=connection.alias),
            locks.lock_timeout(connection, locks.LOCK_TIMEOUT),
        ):
            create(False)
    except DatabaseError as error:
        # Autovacuum is at it, and makes way only for who waits for it a second.
        if not locks.is_retried(error):
            raise
        return False
    return True


def _has_few_rows(schema_editor: BaseDatabaseSchemaEditor, table: str) -> bool:
    """Whether the planner knows that there are few."""
    return bool(
        _one(
            schema_editor,
            "SELECT reltuples BETWEEN 0 AND %s OR pg_relation_size(oid) = 0"
            "  FROM pg_class WHERE oid = to_regclass(%s)",
            [FEW_ROWS, table],
        )
    )


def _index_is_valid(
    schema_editor: BaseDatabaseSchemaEditor, table: str, name: str
) -> bool | None:
    """None when the table has no such index; what others have called so is not meant."""
    found: bool | None = _one(
        schema_editor,
        "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = to_regclass(%s) AND c.relname = %s",
        [table, name],
    )
    return found


def _drop_invalid_index(
    schema_editor: BaseDatabaseSchemaEditor, table: str, name: str
) -> None:
    """A concurrent build that was killed leaves an index nobody uses and all maintain."""
    if _index_is_valid(schema_editor, table, name) is False:
        drop_index(schema_editor, name)


def drop_index(schema_editor: BaseDatabaseSchemaEditor, name: str) -> None:
    """Drop an index, if it is there, beside the traffic."""
    with waiting_aloud(schema_editor.connection, f"Dropping index {name}"):
        schema_editor.execute(
            f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(name)}"
        )


# --- constraints ---------------------------------------------------------------------------


def _is_validated(
    schema_editor: BaseDatabaseSchemaEditor, model: type[models.Model], name: str
) -> bool | None:
    """None when the table has no such constraint."""
    found: bool | None = _one(
        schema_editor,
        "SELECT convalidated FROM pg_constraint"
        " WHERE conrelid = to_regclass(%s) AND conname = %s",
        [_table(schema_editor, model), name],
    )
    return found


def add_unique(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: models.UniqueConstraint,
) -> None:
    """First an index built concurrently, then the constraint that it becomes part of."""
    quote = schema_editor.quote_name
    name = str(constraint.name)
    if _is_validated(schema_editor, model, name) is not None:
        return
    fields: list[Any] = [model._meta.get_field(name) for name in constraint.fields]
    columns = ", ".join(quote(field.column) for field in fields)
    table = _table(schema_editor, model)

    def create(concurrently: bool) -> None:
        schema_editor.execute(
            f"CREATE UNIQUE INDEX {'CONCURRENTLY' if concurrently else ''}"
            f" {quote(name)} ON {table} ({columns})"
        )

    build_index(schema_editor, table, name, create)
    locks.change_briefly(
        schema_editor.connection,
        [
            f"ALTER TABLE {table} ADD CONSTRAINT {quote(name)}"
            f" UNIQUE USING INDEX {quote(name)}"
        ],
        what=f"Adding unique constraint {name}",
        tables=_to_lock(schema_editor, model),
        mode=Mode.ACCESS_EXCLUSIVE,
    )


def add_foreign_key(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: ForeignKeyConstraint,
) -> None:
    """First NOT VALID, so that it holds for what is written from now on, then validated.

    Where it says SET NULL and that fails, references whose target went away earlier are
    cleared first.
    """
    validated = _is_validated(schema_editor, model, constraint.name)
    if validated is None:
        create = f"{constraint.create_sql(model, schema_editor)} NOT VALID"
        locks.change_briefly(
            schema_editor.connection,
            [create],
            what=f"Adding foreign key {constraint.name}",
            tables=_both_tables(schema_editor, model, constraint),
            mode=Mode.SHARE_ROW_EXCLUSIVE,
        )
    if not validated:
        try:
            _validate(schema_editor, model, constraint.name)
        except IntegrityError:
            if constraint.on_delete != "SET NULL":
                raise
            _clear_dangling(schema_editor, model, constraint)
            _validate(schema_editor, model, constraint.name)


def _both_tables(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: ForeignKeyConstraint,
) -> tuple[str, ...]:
    """The table that refers and the one that is referred to: both have triggers of it."""
    field: Any = model._meta.get_field(constraint.field)
    return _to_lock(schema_editor, model, field.target_field.model)


def _validate(
    schema_editor: BaseDatabaseSchemaEditor, model: type[models.Model], name: str
) -> None:
    """Look at every row, with locks that let others read and write."""
    with waiting_aloud(schema_editor.connection, f"Validating {name}"):
        schema_editor.execute(
            f"ALTER TABLE {_table(schema_editor, model)} VALIDATE CONSTRAINT"
            f" {schema_editor.quote_name(name)}"
        )


def _clear_dangling(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: ForeignKeyConstraint,
) -> None:
    """Do what ON DELETE SET NULL would have done, had it been there in time.

    Looked for without a lock and cleared a few at a time: the old application may be
    writing to these rows.
    """
    quote = schema_editor.quote_name
    field: Any = model._meta.get_field(constraint.field)
    target = field.target_field
    column = quote(field.column)
    table = _table(schema_editor, model)
    dangling = (
        f"c.{column} IS NOT NULL AND NOT EXISTS (SELECT FROM"
        f" {_table(schema_editor, target.model)} p WHERE p.{quote(target.column)} = c.{column})"
    )
    own_key: Any = model._meta.pk
    key = quote(own_key.column)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT c.{key} FROM {table} c WHERE {dangling}")
        keys = [row[0] for row in cursor.fetchall()]

    def clear(some: list[Any]) -> None:
        with schema_editor.connection.cursor() as cursor:
            # A table that is closed for the time being is closed to applications.
            cursor.execute("SELECT set_config('terrain.repair', 'on', true)")
            cursor.execute(
                f"UPDATE {table} c SET {column} = NULL"
                f" WHERE c.{key} = ANY (%s) AND {dangling}",
                [some],
            )

    tables = _to_lock(schema_editor, model)
    for start in range(0, len(keys), CLEARED_AT_ONCE):
        locks.run_briefly(
            schema_editor.connection,
            partial(clear, keys[start : start + CLEARED_AT_ONCE]),
            what=f"Clearing what {constraint.name} would not allow",
            tables=tables,
        )


def drop_constraint(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: models.BaseConstraint,
) -> None:
    """Drop a constraint, if it is there."""
    if _is_validated(schema_editor, model, constraint.name) is None:
        return
    if isinstance(constraint, ForeignKeyConstraint):
        tables = _both_tables(schema_editor, model, constraint)
    else:
        tables = _to_lock(schema_editor, model)
    locks.change_briefly(
        schema_editor.connection,
        [
            f"ALTER TABLE {_table(schema_editor, model)} DROP CONSTRAINT IF EXISTS"
            f" {schema_editor.quote_name(constraint.name)}"
        ],
        what=f"Dropping constraint {constraint.name}",
        tables=tables,
        mode=Mode.ACCESS_EXCLUSIVE,
    )
