"""manage.py migrate: Django's, but what moves tables cannot be pretended."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from terrain.exceptions import Stopped
from terrain.legacy import catalog


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        label = options["app_label"]
        ours = label is None or label in (*catalog.NEW_APPS, "legacy")
        forwards = options["migration_name"] is None
        connection = connections[options["database"]]
        if options["fake"] and ours and forwards and catalog.legacy_tables(connection):
            raise Stopped(
                "The legacy tables would be taken for moved and copied when they are not."
                " Nothing was changed. Run it without --fake: python manage.py migrate"
            )
        super().handle(*args, **options)
