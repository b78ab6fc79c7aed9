"""manage.py migrate: Django's, but what moves tables cannot be pretended."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.core.management.commands import migrate
from django.db import connections, transaction
from django.db.migrations import CreateModel
from django.db.migrations.executor import MigrationExecutor

from terrain import progress
from terrain.commands import tell_orders
from terrain.legacy import guard
from terrain.pace import breathe


class Executor(MigrationExecutor):
    """Takes a migration back and out of the list of those applied in one transaction.

    Django does the second after the first has been committed.  Killed in between, it would
    for ever try to take back what is gone.
    """

    def unapply_migration(self, state: Any, migration: Any, fake: bool = False) -> Any:
        together: AbstractContextManager[Any] = nullcontext()
        if migration.atomic:
            together = transaction.atomic(using=self.connection.alias)
        with together:
            return super().unapply_migration(state, migration, fake=fake)


# The command takes it from here; there is no other place to say which.
migrate.MigrationExecutor = Executor  # type: ignore[attr-defined]


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        self.using = options["database"]
        with (
            guard.pretending(options["fake"]),
            progress.shown(options["verbosity"], within_line=True),
        ):
            tell_orders(connections[self.using])
            super().handle(*args, **options)

    def migration_progress_callback(
        self, action: str, migration: Any = None, fake: bool = False
    ) -> None:
        """Django's own lines, and the one that is redrawn makes way for them."""
        progress.make_way()
        super().migration_progress_callback(action, migration, fake)
        if action in ("apply_success", "unapply_success") and not fake:
            makes_tables = any(
                isinstance(operation, CreateModel) for operation in migration.operations
            )
            breathe(connections[self.using], long=makes_tables)
