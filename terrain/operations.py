"""Migration operations for tables that are in use while they change.

Django's own ``AddIndex`` and ``AddConstraint`` block every writer while PostgreSQL looks
at each row.  These build beside the traffic, and can be run again after having been
killed at any point: what is already there, complete, is left alone; what is there but
half-made is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.postgres.operations import NotInTransactionMixin
from django.db import DatabaseError, IntegrityError, migrations, models, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState

from terrain import locks
from terrain.constraints import ForeignKeyConstraint
from terrain.pace import others_connected

#: Rows that one look is taken at in less time than anybody may be kept waiting.
FEW_ROWS = 250_000


def _table(model: type[models.Model]) -> str:
    return f"public.{model._meta.db_table}"


def _one(schema_editor: BaseDatabaseSchemaEditor, query: str, params: list[Any]) -> Any:
    """The first column of the first row, or None."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(query, params)
        row = cursor.fetchone()
    return row[0] if row else None


def _index_is_valid(schema_editor: BaseDatabaseSchemaEditor, name: str) -> bool | None:
    """None when there is no such index."""
    found: bool | None = _one(
        schema_editor,
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)",
        [f"public.{schema_editor.quote_name(name)}"],
    )
    return found


def _drop_invalid_index(schema_editor: BaseDatabaseSchemaEditor, name: str) -> None:
    """A concurrent build that was killed leaves an index nobody uses and all maintain."""
    if _index_is_valid(schema_editor, name) is False:
        schema_editor.execute(
            f"DROP INDEX CONCURRENTLY public.{schema_editor.quote_name(name)}"
        )


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


def _build_index(
    schema_editor: BaseDatabaseSchemaEditor,
    table: str,
    create: Callable[[bool], None],
) -> None:
    """Have ``create`` build an index; its argument is whether beside the traffic.

    That takes two looks at every row and three commits, so a small table that nobody else
    is there to write to is indexed at once: whoever comes meanwhile does not wait long.
    """
    connection = schema_editor.connection
    if not others_connected(connection) and _has_few_rows(schema_editor, table):
        try:
            with (
                transaction.atomic(using=connection.alias),
                locks.lock_timeout(connection, locks.LOCK_TIMEOUT),
            ):
                return create(False)
        except DatabaseError as error:
            # Autovacuum is at it, and makes way only for who waits for it a second.
            if not locks.is_retried(error):
                raise
    create(True)


class AddIndexOnline(NotInTransactionMixin, migrations.AddIndex):
    """An index built without blocking anybody, unless a valid one is there."""

    atomic = False

    def describe(self) -> str:
        return f"Index {self.index.name} on {self.model_name}, built beside the traffic"

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        _drop_invalid_index(schema_editor, self.index.name)
        if _index_is_valid(schema_editor, self.index.name) is None:

            def create(concurrently: bool) -> None:
                schema_editor.add_index(  # type: ignore[call-arg]
                    model, self.index, concurrently=concurrently
                )

            _build_index(schema_editor, _table(model), create)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        schema_editor.execute(
            f"DROP INDEX CONCURRENTLY IF EXISTS public.{schema_editor.quote_name(self.index.name)}"
        )


class AddConstraintOnline(NotInTransactionMixin, migrations.AddConstraint):
    """A unique or foreign key constraint, added without looking at rows under a lock.

    A unique one is first an index built concurrently.  A foreign key is added NOT VALID,
    so that it holds for what is written from now on, and then validated; where it says
    SET NULL and that fails, references whose target went away earlier are cleared first.
    """

    atomic = False

    def describe(self) -> str:
        return f"Constraint {self.constraint.name} on {self.model_name}, without blocking it"

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if isinstance(self.constraint, ForeignKeyConstraint):
            _add_foreign_key(schema_editor, model, self.constraint)
        elif isinstance(self.constraint, models.UniqueConstraint):
            _add_unique(schema_editor, model, self.constraint)
        else:
            raise TypeError(f"{type(self.constraint).__name__} cannot be added online.")

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        quote = schema_editor.quote_name
        locks.run_briefly(
            schema_editor.connection,
            lambda: schema_editor.execute(
                f"ALTER TABLE {_table(model)} DROP CONSTRAINT IF EXISTS"
                f" {quote(self.constraint.name)}"
            ),
            what=f"Dropping constraint {self.constraint.name}",
            tables=(_table(model),),
        )


def _is_validated(
    schema_editor: BaseDatabaseSchemaEditor, model: type[models.Model], name: str
) -> bool | None:
    """None when the table has no such constraint."""
    found: bool | None = _one(
        schema_editor,
        "SELECT convalidated FROM pg_constraint"
        " WHERE conrelid = to_regclass(%s) AND conname = %s",
        [_table(model), name],
    )
    return found


def _add_foreign_key(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: ForeignKeyConstraint,
) -> None:
    quote = schema_editor.quote_name
    validated = _is_validated(schema_editor, model, constraint.name)
    if validated is None:
        field: Any = model._meta.get_field(constraint.field)
        create = f"{constraint.create_sql(model, schema_editor)} NOT VALID"
        locks.run_briefly(
            schema_editor.connection,
            lambda: schema_editor.execute(create),
            what=f"Adding foreign key {constraint.name}",
            tables=(_table(model), _table(field.target_field.model)),
        )
    if not validated:
        validate = (
            f"ALTER TABLE {_table(model)} VALIDATE CONSTRAINT {quote(constraint.name)}"
        )
        try:
            schema_editor.execute(validate)
        except IntegrityError:
            if constraint.on_delete != "SET NULL":
                raise
            _clear_dangling(schema_editor, model, constraint)
            schema_editor.execute(validate)


def _clear_dangling(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: ForeignKeyConstraint,
) -> None:
    """Do what ON DELETE SET NULL would have done, had it been there in time."""
    quote = schema_editor.quote_name
    field: Any = model._meta.get_field(constraint.field)
    target = field.target_field
    column = quote(field.column)
    schema_editor.execute(
        f"UPDATE {_table(model)} c SET {column} = NULL WHERE c.{column} IS NOT NULL"
        f" AND NOT EXISTS (SELECT FROM {_table(target.model)} p"
        f" WHERE p.{quote(target.column)} = c.{column})"
    )


def _add_unique(
    schema_editor: BaseDatabaseSchemaEditor,
    model: type[models.Model],
    constraint: models.UniqueConstraint,
) -> None:
    quote = schema_editor.quote_name
    if _is_validated(schema_editor, model, constraint.name) is not None:
        return
    fields: list[Any] = [model._meta.get_field(name) for name in constraint.fields]
    columns = ", ".join(quote(field.column) for field in fields)
    _drop_invalid_index(schema_editor, constraint.name)
    if _index_is_valid(schema_editor, constraint.name) is None:

        def create(concurrently: bool) -> None:
            schema_editor.execute(
                f"CREATE UNIQUE INDEX {'CONCURRENTLY' if concurrently else ''}"
                f" {quote(constraint.name)} ON {_table(model)} ({columns})"
            )

        _build_index(schema_editor, _table(model), create)
    locks.run_briefly(
        schema_editor.connection,
        lambda: schema_editor.execute(
            f"ALTER TABLE {_table(model)} ADD CONSTRAINT {quote(constraint.name)}"
            f" UNIQUE USING INDEX {quote(constraint.name)}"
        ),
        what=f"Adding unique constraint {constraint.name}",
        tables=(_table(model),),
    )


class InstallSQL(NotInTransactionMixin, migrations.RunSQL):
    """Functions and triggers from a file; ``name`` says what they are for.

    Triggers need a lock on their ``tables`` (qualified names), which is not waited for
    long.  The statements are such that they can be run again.
    """

    def __init__(
        self, name: str, sql: str, reverse_sql: str, tables: tuple[str, ...]
    ) -> None:
        super().__init__(sql, reverse_sql)
        self.name = name
        self.tables = tables

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (
            self.__class__.__qualname__,
            [self.name, self.sql],
            {"reverse_sql": self.reverse_sql, "tables": self.tables},
        )

    def describe(self) -> str:
        return f"Install {self.name}"

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._run_briefly(schema_editor, str(self.sql), f"Installing {self.name}")

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._run_briefly(
            schema_editor, str(self.reverse_sql), f"Taking away {self.name}"
        )

    def _run_briefly(
        self, schema_editor: BaseDatabaseSchemaEditor, sql: str, what: str
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        locks.run_briefly(
            schema_editor.connection,
            lambda: schema_editor.execute(sql, params=None),
            what=what,
            tables=self.tables,
        )
