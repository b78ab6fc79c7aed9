"""Whether what the applications were told is so: nothing lost, nothing doubled.

All that is asked is asked of one snapshot, taken while nobody acts; then they go on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg import sql

from bench import shop
from bench.crew import Crew
from bench.told import TABLES, Told

#: Rows asked about at once.
AT_ONCE = 2_000

Connection = psycopg.Connection[Any]


class Before:
    """The shop as it was before any client came: how many rows, and what counters stood at."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.rows = {table: shop.rows(template, f"public.{table}") for table in TABLES}
        self._counters: dict[tuple[str, str], dict[str, Any]] = {}

    def counters(self, table: str, keys: set[str]) -> dict[str, dict[str, Any]]:
        unknown = [key for key in keys if (table, key) not in self._counters]
        if unknown:
            with shop.connect(self.template) as connection:
                for key, row in _ask(connection, "public", table, unknown).items():
                    self._counters[table, key] = row
        return {key: self._counters[table, key] for key in keys}


@contextmanager
def snapshot(database: str, *crews: Crew) -> Iterator[tuple[Connection, Told]]:
    """A transaction that sees what was there at one moment, and what all had been told then.

    The clients are held for that moment only, those named last first.
    """
    with shop.connect(database) as connection:
        told = Told()
        with ExitStack() as held:
            for crew in reversed(crews):
                held.enter_context(crew.held())
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(
                "SELECT 1"
            )  # the snapshot is taken by the first statement
            for crew in crews:
                told.merge(crew.told, times=False)
        yield connection, told


def faults(
    connection: Connection, schema: str, before: Before, told: Told
) -> Iterator[str]:
    """A sentence for each value of the legacy tables in ``schema`` that is not as was told."""
    for table in TABLES:
        yield from _counted(connection, schema, before, table, told)
        yield from rows(connection, schema, table, told)
    yield from _raised(connection, schema, before, told)


def _counted(
    connection: Connection, schema: str, before: Before, table: str, told: Told
) -> Iterator[str]:
    expected = before.rows[table] + told.added[table]
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))
    ((there,),) = connection.execute(query).fetchall()
    if there != expected:
        yield f"{schema}.{table} has {there} rows, not {expected}."


def rows(connection: Connection, schema: str, table: str, told: Told) -> Iterator[str]:
    """A sentence for each row of one table that is not as was told."""
    known = {key: values for (name, key), values in told.rows.items() if name == table}
    there = _ask(connection, schema, table, list(known))
    for key, values in known.items():
        row = there.get(key)
        if (row is None) != (values is None):
            what = "is missing" if row is None else "was deleted and is there"
            yield f"{schema}.{table} {key} {what}."
        for name, value in (values or {}).items():
            if row is not None and row[name] != value:
                yield f"{schema}.{table} {key}: {name} is {row[name]!r}, not {value!r}."


def _raised(
    connection: Connection, schema: str, before: Before, told: Told
) -> Iterator[str]:
    by_table: dict[str, set[str]] = defaultdict(set)
    for table, _column, key in told.raised:
        by_table[table].add(key)
    for table, keys in by_table.items():
        was = before.counters(table, keys)
        there = _ask(connection, schema, table, list(keys))
        for (name, column, key), by in told.raised.items():
            if name != table:
                continue
            if key not in there:
                yield f"{schema}.{table} {key} is missing."
            elif there[key][column] != was[key][column] + by:
                yield (
                    f"{schema}.{table} {key}: {column} is {there[key][column]}, not"
                    f" {was[key][column]} + {by}."
                )


Rows = set[tuple[str, str]]


def late(connection: Connection) -> Rows:
    """The rows, by legacy table and key, that ``settle`` is still to carry over."""
    query = (
        "SELECT legacy_table, unnest(array_remove(ARRAY[key, moved_to], NULL))::text"
        "  FROM rebuilt.queue WHERE late"
    )
    return set(connection.execute(query))


def disagreements(connection: Connection, but: Rows | None = None) -> Iterator[str]:
    """A sentence for each row that a legacy table and ``rebuilt`` do not have alike, as text.

    Those of ``but`` may differ.
    """
    schema = shop.place(connection).legacy
    for table in TABLES:
        query = sql.SQL(
            "SELECT coalesce(l.id, r.id)::text, l::text, r::text FROM {} l FULL JOIN {} r"
            " ON r.id = l.id WHERE l::text IS DISTINCT FROM r::text"
            " AND coalesce(l.id, r.id) <> ALL (%s::uuid[]) LIMIT 20"
        ).format(sql.Identifier(schema, table), sql.Identifier("rebuilt", table))
        keys = [key for name, key in but or () if name == table]
        for key, legacy, rebuilt in connection.execute(query, [keys]):
            yield f"{table} {key} is {legacy!r:.300} in {schema}, {rebuilt!r:.300} in rebuilt."


def _ask(
    connection: Connection, schema: str, table: str, keys: list[str]
) -> dict[str, dict[str, Any]]:
    """The rows by these keys, as JSON has them."""
    query = sql.SQL(
        "SELECT to_jsonb(t) FROM {} t WHERE t.id = ANY (%s::uuid[])"
    ).format(sql.Identifier(schema, table))
    found = {}
    for start in range(0, len(keys), AT_ONCE):
        for (row,) in connection.execute(query, [keys[start : start + AT_ONCE]]):
            found[row["id"]] = row
    return found
