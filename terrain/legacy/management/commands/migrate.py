"""manage.py migrate: Django's, but what moves tables cannot be pretended."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from terrain import progress
from terrain.commands import tell_orders
from terrain.legacy import guard
from terrain.pace import breathe


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
            breathe(connections[self.using])
