"""manage.py migrate: Django's, but what moves tables cannot be pretended."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate

from terrain.legacy import guard


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        with guard.pretending(options["fake"]):
            super().handle(*args, **options)
