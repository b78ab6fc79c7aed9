"""Whether what the old application was told is so: nothing lost, nothing doubled."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from psycopg import sql
from psycopg.rows import scalar_row

from bench import shop
from bench.traffic import TABLES, Told

#: Rows asked about at once.
AT_ONCE = 2_000


def faults(database: str, schema: str, template: str, told: Told) -> list[str]:
    """A sentence for each value in ``schema`` that is not what the clients were told.

    ``template`` is the shop as it was before any of them came.
    """
    found = []
    for table in TABLES:
        found += _counted(database, schema, template, table, told)
        found += _rows(database, schema, table, told)
    found += _raised(database, schema, template, told)
    return found


def _counted(
    database: str, schema: str, template: str, table: str, told: Told
) -> list[str]:
    expected = shop.rows(template, f"public.{table}") + told.added[table]
    there = shop.rows(database, f"{schema}.{table}")
    if there == expected:
        return []
    return [f"{schema}.{table} has {there} rows, not {expected}."]


def _rows(database: str, schema: str, table: str, told: Told) -> list[str]:
    known = {key: values for (name, key), values in told.rows.items() if name == table}
    there = _ask(database, schema, table, list(known))
    found = []
    for key, values in known.items():
        row = there.get(key)
        if (row is None) != (values is None):
            what = "is missing" if row is None else "was deleted and is there"
            found.append(f"{schema}.{table} {key} {what}.")
        for name, value in (values or {}).items():
            if row is not None and row[name] != value:
                found.append(
                    f"{schema}.{table} {key}: {name} is {row[name]!r}, not {value!r}."
                )
    return found


def _raised(database: str, schema: str, template: str, told: Told) -> list[str]:
    by_table: dict[str, set[str]] = defaultdict(set)
    for table, _column, key in told.raised:
        by_table[table].add(key)
    found = []
    for table, keys in by_table.items():
        before = _ask(template, "public", table, list(keys))
        there = _ask(database, schema, table, list(keys))
        for (name, column, key), by in told.raised.items():
            if name == table and there[key][column] != before[key][column] + by:
                found.append(
                    f"{schema}.{table} {key}: {column} is {there[key][column]}, not"
                    f" {before[key][column]} + {by}."
                )
    return found


def _ask(
    database: str, schema: str, table: str, keys: list[str]
) -> dict[str, dict[str, Any]]:
    """The rows by these keys, as JSON has them."""
    query = sql.SQL(
        "SELECT to_jsonb(t) FROM {} t WHERE t.id = ANY (%s::uuid[])"
    ).format(sql.Identifier(schema, table))
    found = {}
    with shop.connect(database, row_factory=scalar_row) as connection:
        for start in range(0, len(keys), AT_ONCE):
            for row in connection.execute(query, [keys[start : start + AT_ONCE]]):
                found[row["id"]] = row  # type: ignore[call-overload]
    return found
