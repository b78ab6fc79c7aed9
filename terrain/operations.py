"""Migration operations for tables that are in use while they change.

Django's own ``AddIndex`` and ``AddConstraint`` block every writer while PostgreSQL looks
at each row.  These build beside the traffic (``online.py``), and can be run again after
having been killed at any point.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.operations import NotInTransactionMixin
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState

from terrain import locks, online
from terrain.blockers import Mode
from terrain.constraints import ForeignKeyConstraint
from terrain.pace.governor import between_steps
from terrain.qualified import all_qualified, own_path, qualified
from terrain.sqlfiles import render


def _add_unrendered(
    state: ProjectState, app_label: str, model: str, option: str, added: Any
) -> None:
    """Add an index or constraint to a model's state.

    Django's own way renders the model, and each that is related to it, anew: half of all that
    a migration of this project takes.  PostgreSQL's schema editor looks for neither in a
    rendered model; whoever does (``RunPython``, the end of ``migrate``) has all of them
    rendered first, because the state says that this was put off.
    """
    options = state.models[app_label, model].options
    options[option] = [*options.get(option, []), added]
    state.is_delayed = True


class AddIndexOnline(NotInTransactionMixin, migrations.AddIndex):
    """An index built without blocking anybody, unless a valid one is there."""

    atomic = False

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        _add_unrendered(state, app_label, self.model_name_lower, "indexes", self.index)

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
        table = qualified(schema_editor.connection, model._meta.db_table)
        between_steps(schema_editor.connection, "migrate", table)

        def create(concurrently: bool) -> None:
            schema_editor.add_index(  # type: ignore[call-arg]
                model, self.index, concurrently=concurrently
            )

        online.build_index(schema_editor, table, self.index.name, create)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        online.drop_index(schema_editor, self.index.name)


class AddConstraintOnline(NotInTransactionMixin, migrations.AddConstraint):
    """A unique or foreign key constraint, added without looking at rows under a lock."""

    atomic = False

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        _add_unrendered(
            state, app_label, self.model_name_lower, "constraints", self.constraint
        )

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
        table = qualified(schema_editor.connection, model._meta.db_table)
        between_steps(schema_editor.connection, "migrate", table)
        if isinstance(self.constraint, ForeignKeyConstraint):
            online.add_foreign_key(schema_editor, model, self.constraint)
        elif isinstance(self.constraint, models.UniqueConstraint):
            online.add_unique(schema_editor, model, self.constraint)
        else:
            raise TypeError(f"{type(self.constraint).__name__} cannot be added online.")

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        model = from_state.apps.get_model(app_label, self.model_name)
        online.drop_constraint(schema_editor, model, self.constraint)


class InstallSQL(NotInTransactionMixin, migrations.RunSQL):
    """Functions and triggers from a file; ``name`` says what they are for.

    Triggers need a lock on their ``tables`` (names without schema), which is not waited for
    long.  The statements are such that they can be run again, and drop no trigger: that
    takes a lock which readers wait for too.  They name no schema, because the tables change
    theirs; ``{schema}`` becomes what the connection looks in, for the functions to pin.
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
        self._run_briefly(
            schema_editor,
            str(self.sql),
            f"Installing {self.name}",
            Mode.SHARE_ROW_EXCLUSIVE,
        )

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if not self.reverse_sql:  # what it was made from stays
            return
        self._run_briefly(
            schema_editor,
            str(self.reverse_sql),
            f"Taking away {self.name}",
            Mode.ACCESS_EXCLUSIVE,
        )

    def _run_briefly(
        self, schema_editor: BaseDatabaseSchemaEditor, sql: str, what: str, mode: Mode
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        locks.change_briefly(
            schema_editor.connection,
            [render(sql, schema=own_path(schema_editor.connection))],
            what=what,
            tables=all_qualified(schema_editor.connection, self.tables),
            mode=mode,
        )
