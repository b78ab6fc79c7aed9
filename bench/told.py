"""What clients were told was done, and what they find in the shop.

A client remembers each write that was acknowledged: what its rows hold, how often it raised
each counter and how many rows it added.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

TABLES = (
    "artists",
    "assets",
    "user_tables",
    "example_tables",
    "orders",
    "stripe_transfers",
)

#: Into how many shares the shop's rows are parted: at least as many as there are clients.
PARTS = 12

Row = dict[str, Any]


class Wrong(Exception):
    """An answer that is not what the old application's own database would have given."""


def expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise Wrong(f"{found!r:.200}, not {expected!r:.200}")


@dataclass
class Told:
    """What the clients were told was done; one of them's, or of all together.

    ``rows``: (table, id) -> the values written last, or None if it was deleted.  ``raised``:
    (table, column, id) -> by how much.  ``added``: table -> rows.  ``refused``: statements
    that failed, as (when, kind, what was said).  ``gave_way``: writes of the new application
    that were let go of, because the old one was at the same row all the while.
    """

    rows: dict[tuple[str, str], Row | None] = field(default_factory=dict)
    raised: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[float, str, str]] = field(default_factory=list)
    gave_way: list[tuple[float, str]] = field(default_factory=list)
    started: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    kinds: array[int] = field(default_factory=lambda: array("B"))

    def wrote(self, table: str, key: str, **values: Any) -> None:
        known = self.rows.get((table, key)) or {}
        self.rows[table, key] = {**known, **values}

    def merge(self, other: Told, times: bool = True) -> None:
        """Add what was told after all that is in here, or by others of other rows."""
        for key, values in other.rows.items():
            known = self.rows.get(key)
            self.rows[key] = {**known, **values} if known and values else values
        self.raised += other.raised
        self.added.update(other.added)
        self.refused += other.refused
        self.gave_way += other.gave_way
        if not times:
            return
        self.started.extend(other.started)
        self.seconds.extend(other.seconds)
        self.kinds.extend(other.kinds)


@dataclass(frozen=True)
class Shop:
    """What is there before: ids, and what reads look for.  ``emails`` and ``tokens`` are some."""

    artists: list[str]
    assets: list[str]
    examples: list[str]
    emails: list[str]
    tokens: list[str]
    tables: list[str]
    orders: list[str]

    @staticmethod
    def share(some: list[str], number: int) -> list[str]:
        """What is this client's alone to write, of any that is everybody's to read."""
        return some[number::PARTS]

    @classmethod
    def of(cls, connection: psycopg.Connection[Any]) -> Shop:
        def column(query: str) -> list[str]:
            return [value for (value,) in connection.execute(query)]  # type: ignore[call-overload]

        return cls(
            column("SELECT id::text FROM artists ORDER BY id LIMIT 2000"),
            column("SELECT id::text FROM assets ORDER BY id LIMIT 2000"),
            column("SELECT id::text FROM example_tables ORDER BY id LIMIT 500"),
            column("SELECT user_email FROM orders ORDER BY id LIMIT 500"),
            column(
                "SELECT share_token FROM user_tables WHERE share_token IS NOT NULL"
                " ORDER BY id LIMIT 500"
            ),
            column("SELECT id::text FROM user_tables ORDER BY id LIMIT 2000"),
            column("SELECT id::text FROM orders ORDER BY id LIMIT 2000"),
        )
