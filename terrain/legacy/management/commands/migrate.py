"""manage.py migrate: Django's, with preflight before it and, if it may, the cut-over after it."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import connections, transaction
from django.db.migrations import CreateModel
from django.db.migrations.executor import MigrationExecutor

from terrain import progress
from terrain.commands import tell_orders
from terrain.exceptions import Stopped
from terrain.legacy import cut_over, guard
from terrain.legacy.management.offering import offer_cut_over
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
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--cut-over",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="afterwards let the names change places (see cut_over), because the old"
            " application has been stopped; unset: ask on a terminal if no other session is"
            " connected",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.using = options["database"]
        connection = connections[self.using]
        reads_only = options["plan"] or options["check_unapplied"]
        forward = options.get("migration_name") != "zero"
        with (
            guard.pretending(options["fake"]),
            progress.shown(options["verbosity"], within_line=True),
        ):
            tell_orders(connection)
            begun: AbstractContextManager[None] = nullcontext()
            if forward and not reads_only and not options["fake"]:
                begun = guard.begun(connection, options["verbosity"])
            with begun:
                super().handle(*args, **options)
            if not reads_only and not options["app_label"]:
                self._cut_over(connection, options)

    def _cut_over(self, connection: Any, options: dict[str, Any]) -> None:
        """Cut over if asked to or on the project's own server; else offer it, or print Next."""
        if not cut_over.is_possible(connection) or options["cut_over"] is False:
            return
        verbosity = options["verbosity"]
        if options["cut_over"] or settings.CUT_OVER_BY_ITSELF:
            try:
                call_command("cut_over", yes=True, verbosity=verbosity)
            except (
                CommandError
            ) as error:  # before whose sentence Django would put its class
                raise Stopped(str(error), error.returncode) from error
            return
        offer_cut_over(connection, self.stdout, verbosity)
        if verbosity > 0 and cut_over.is_possible(connection):
            self.stdout.write(
                "Next: python manage.py settle --watch, beside the old application until the"
                " cut-over; and python manage.py copy_models_to_assets"
            )

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
