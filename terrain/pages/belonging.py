"""How many rows of other tables belong to a record, all kinds in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections, models
from psycopg import sql

from terrain.pages.shown import COUNTED


def counted(
    record: models.Model, belongings: Sequence[tuple[str, str]]
) -> dict[str, int]:
    """Name of the relation -> rows, up to one more than :data:`COUNTED`, in their order.

    ``belongings`` are (name of the relation, foreign key of the other model).
    """
    if not belongings:
        return {}
    connection = connections[record._state.db or "default"]
    columns = sql.SQL(", ").join(_counting(record, *each) for each in belongings)
    query = sql.SQL("SELECT {}").format(columns).as_string(None)
    with connection.cursor() as cursor:
        cursor.execute(query, [record.pk for _ in belongings])
        numbers = cursor.fetchone()
    return {name: number for (name, _), number in zip(belongings, numbers, strict=True)}


def _counting(record: models.Model, name: str, column: str) -> sql.Composable:
    related: Any = record._meta.get_field(name).related_model
    return sql.SQL(
        "(SELECT count(*) FROM (SELECT FROM {} WHERE {} = %s LIMIT {}) t)"
    ).format(
        sql.Identifier(related._meta.db_table),
        sql.Identifier(related._meta.get_field(column).column),
        COUNTED + 1,
    )
