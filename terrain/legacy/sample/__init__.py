"""A realistic legacy shop of any size, to try things on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog
from terrain.progress import measured

#: What there is at scale 1, and at least.
_SIZES: Mapping[str, tuple[int, int]] = {
    "n_artists": (2_000, 4),
    "n_assets": (50_000, 20),
    "n_examples": (5_000, 5),
    "n_tables": (200_000, 20),
    "n_orders": (500_000, 50),
    "n_customers": (40_000, 20),
}


class NotEmpty(Exception):
    """The database has tables already."""


def counts(scale: float) -> dict[str, int]:
    """How many of each a scale means: 1 is half a million orders, about 1 GB."""
    return {
        name: max(least, round(size * scale)) for name, (size, least) in _SIZES.items()
    }


def load(connection: BaseDatabaseWrapper, scale: float) -> dict[str, int]:
    """Fill an empty database; returns legacy table -> rows.  Raises :class:`NotEmpty`."""
    in_the_way = catalog.value(
        connection,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm') AND s.nspname IN ('public', 'legacy')"
        " ORDER BY 1 LIMIT 1",
    )
    if in_the_way:
        raise NotEmpty(
            f"The database is not empty: it has {in_the_way}. The sample is only loaded into an"
            " empty one; make another with: createdb NAME, and put it into DATABASE_URL."
        )
    numbers = counts(scale)
    folder = Path(__file__).parent
    schema = (folder / "schema.sql").read_text(encoding="utf-8")
    rows = re.sub(
        r":(n_\w+)",
        lambda match: str(numbers[match.group(1)]),
        (folder / "generate.sql").read_text(encoding="utf-8"),
    )
    with (
        measured("make a shop"),
        transaction.atomic(using=connection.alias),
        connection.cursor() as cursor,
    ):
        cursor.execute(schema)
        cursor.execute(rows)
    tables = (
        "artists",
        "assets",
        "example_tables",
        "user_tables",
        "orders",
        "stripe_transfers",
    )
    return {
        table: catalog.value(connection, f"SELECT count(*) FROM public.{table}")
        for table in tables
    }
