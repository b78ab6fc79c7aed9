"""manage.py flush: Django's, but not while there is a shop in the database."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import flush
from django.db import connections

from terrain.exceptions import Stopped
from terrain.legacy import catalog


class Command(flush.Command):
    def handle(self, **options: Any) -> None:
        connection = connections[options["database"]]
        # Before they move, two of them have the names of tables that it would empty.
        if catalog.legacy_tables(connection):
            raise Stopped(
                "flush would empty the tables of a shop that is still in use. Nothing was"
                " changed. For an empty database, make another: createdb NAME"
            )
        super().handle(**options)
