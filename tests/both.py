"""The two applications at one shop, which has a few rows of known names and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from django.core.management import call_command
from django.db import connection

from terrain.embedded import OWNER
from terrain.legacy import carrying, sql
from terrain.legacy.mapping import LENSES
from terrain.legacy.place import Place
from tests.conftest import Database, pointed_at
from tests.legacy import (
    artist,
    example,
    ids,
    insert,
    legacy_schema,
    model,
    named,
    order,
    table,
    transfer,
)

Connection = psycopg.Connection[Any]


@dataclass
class Both:
    """The two applications, at one database."""

    database: Database
    old: Connection
    new: Connection
    place: Place

    def does(self, statement: str, *params: Any) -> psycopg.Cursor[Any]:
        """The old application runs a statement."""
        return self.old.execute(self.fill(statement), params or None)  # type: ignore[arg-type]

    def newly(self, statement: str, *params: Any) -> psycopg.Cursor[Any]:
        """The new application runs a statement."""
        return self.new.execute(self.fill(statement), params or None)  # type: ignore[arg-type]

    def fill(self, text: str) -> str:
        """``text`` with the ids in the place of names, and the tables where they are."""
        return ids(self.place.fill(text))

    def sees(self, query: str) -> list[Any]:
        """What the old application sees, ids by name."""
        return [tuple(map(named, row)) for row in self.does(query).fetchall()]

    def has(self, query: str) -> list[Any]:
        """What the new application sees, ids by name."""
        return [tuple(map(named, row)) for row in self.newly(query).fetchall()]

    def held(self) -> list[Any]:
        return self.has(
            "SELECT legacy_table, legacy_id, reason FROM legacy_quarantine"
            " WHERE kind = 'held' ORDER BY 1, 2, 3"
        )


def stock(database: Database) -> None:
    """Make the shop, and migrate it."""
    with database.connect(OWNER, "public") as owner:
        legacy_schema(owner)
        insert(
            owner,
            artist("#ann"),
            artist("#bob"),
            model("#tower", "#ann", "3.33"),
            model("#bridge", "#bob", "10.00"),
            table("#den", "sits@at.example", {"width": 1200}),
            example("#show", "#ann"),
            order("#ord", ({"asset_id": "#tower", "quantity": 2},), "6.66"),
            transfer("#pay", "#ord", "#ann"),
        )
    with pointed_at(database.name):
        call_command("migrate", verbosity=0)


def at(database: Database) -> Iterator[Both]:
    """Both applications, in step when the test ends."""
    here = Both(database, database.old(), database.new(), database.place)
    yield here
    here.new.close()
    here.old.close()
    assert_in_step(here)


def assert_in_step(both: Both) -> None:
    """Law 2, row for row; what is late at most until it is settled."""
    carrying.settle_late(connection)
    assert carrying.still_late(connection) == []
    for lens in LENSES:
        with connection.cursor() as cursor:
            cursor.execute(sql.differences(lens), {"after": None, "upto": None})
            assert cursor.fetchall() == [], lens.legacy
