"""Migration operations, so that a migration file says what is done and no more.

Each is a ``RunPython``: on a database without legacy tables it finds nothing to do.
``migrate --plan`` prints what ``describe`` says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from django.apps import apps
from django.apps.registry import Apps
from django.contrib.postgres.operations import NotInTransactionMixin
from django.db import migrations, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState

from terrain.legacy import (
    catalog,
    closing,
    copying,
    customers,
    engine,
    privileges,
    settling,
    usage,
)
from terrain.legacy.mapping import BY_LEGACY, LENSES
from terrain.pace.governor import between_steps


class LegacyOperation(NotInTransactionMixin, migrations.RunPython, ABC):
    """An operation with a legacy table for its argument, in transactions of its own.

    None asks for the models of its time: it speaks SQL.  So they are not rendered for it, which
    would take longer than most of these do.
    """

    atomic = False

    def __init__(self, *args: Any) -> None:
        self.args = args
        super().__init__(self.forwards, self.backwards, atomic=False)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (self.__class__.__qualname__, list(self.args), {})

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self._ensure_not_in_transaction(schema_editor)
        between_steps(schema_editor.connection, "migrate")
        if router.allow_migrate(schema_editor.connection.alias, app_label):
            self.forwards(apps, schema_editor)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if router.allow_migrate(schema_editor.connection.alias, app_label):
            self.backwards(apps, schema_editor)

    @abstractmethod
    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        """What it is for."""

    def backwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        """Nothing, unless a subclass says otherwise."""


class MakeSchemas(LegacyOperation):
    """Make the schemas of what is derived and of what is closed or parked."""

    SCHEMAS = (catalog.REBUILT, catalog.PARKED)

    def describe(self) -> str:
        return f"Make the schemas {' and '.join(self.SCHEMAS)}, closed to all but their owner"

    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        connection = schema_editor.connection
        if catalog.has_legacy_tables(connection):
            for schema in self.SCHEMAS:
                privileges.make_schema(connection, schema)

    def backwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        for schema in self.SCHEMAS:
            engine.drop_schema_if_empty(schema_editor.connection, schema)


class KeepInStep(LegacyOperation):
    """Derive views and functions, bring back parked tables, and put the triggers on."""

    def describe(self) -> str:
        return "Keep the legacy tables and the new ones in step, by triggers on both"

    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        connection = schema_editor.connection
        engine.stand_beside(connection)
        if catalog.has_legacy_tables(connection):
            usage.forget(connection)

    def backwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        connection = schema_editor.connection
        if not catalog.has_legacy_tables(connection):
            return
        for lens in LENSES:
            engine.let_go(connection, lens, close=True)
        engine.park_functions(connection)
        engine.drop_rebuilt(connection)
        engine.park(connection)


class Return(LegacyOperation):
    """Bring back what was parked of tables that are made after ``KeepInStep``."""

    def describe(self) -> str:
        return f"Bring back {', '.join(self.args)}, if a rollback has parked them"

    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        engine.unpark(schema_editor.connection)

    def backwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        if catalog.has_legacy_tables(schema_editor.connection):
            engine.park(schema_editor.connection, tables=self.args)


class Copy(LegacyOperation):
    """Copy a legacy table's rows, in batches; can be interrupted and gone on with."""

    def describe(self) -> str:
        lens = BY_LEGACY[self.args[0]]
        into = f"{lens.new} and {lens.part.table}" if lens.part else lens.new
        return f"Copy {lens.legacy} into {into}, in batches"

    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        connection = schema_editor.connection
        if catalog.has_legacy_tables(connection) and not engine.stands_beside(
            connection
        ):
            # A rollback was killed while it took the triggers off.
            engine.stand_beside(connection)
        copying.copy(connection, self.args[0])


class CopyCustomers(LegacyOperation):
    """Make customers of the addresses of buyers and of saved tables."""

    def describe(self) -> str:
        return "Make customers of the addresses in orders and user_tables"

    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        customers.copy_customers(schema_editor.connection)


class Settle(LegacyOperation):
    """Open what a rollback has closed, and settle what was written while the copies ran."""

    def describe(self) -> str:
        return "Open the new tables, settle owner links, merges and repeated ids"

    def forwards(self, apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        closing.open_all(schema_editor.connection)
        engine.drop_parked_functions(schema_editor.connection)
        engine.drop_schema_if_empty(schema_editor.connection, catalog.PARKED)
        settling.settle(schema_editor.connection)
