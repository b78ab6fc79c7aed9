"""The legacy tables from the new schema, and the proof that they can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from terrain.legacy import mapping
from terrain.legacy.schema import Lens
from terrain.legacy.sql.columns import down
from terrain.legacy.sql.lines import pricing, subtotal
from terrain.legacy.sql.rules import held
from terrain.legacy.sql.text import Types, cast, ident, joined, new_table, query


def rebuilt_view(lens: Lens, order: Iterable[str]) -> str:
    """``rebuilt.<table>``: the legacy table from the new schema, columns in ``order``."""
    columns = down(lens)
    return (
        f"CREATE OR REPLACE VIEW {ident('rebuilt', lens.legacy)} AS SELECT\n    "
        + ",\n    ".join(f"{columns[name]} AS {ident(name)}" for name in order)
        + f"\n  FROM {new_table(lens.new)} n WHERE {lens.own}"
    )


def round_trip(lens: Lens, types: Types, tables: Mapping[str, str]) -> str:
    """A query for the rows that ``down(up(row))`` does not give back: none, if law 1 holds.

    Columns: id, the row as it is and as it would come back (both text).  It reads the
    legacy table alone, whose qualified name is in ``tables``.  Held rows are left out,
    or, where only a part is held, that part of them.
    """
    up = {
        name: cast(expression, types[lens.new][name])
        for name, expression in {**lens.up, **lens.constants}.items()
    }
    made = joined(f"{expression} AS {ident(name)}" for name, expression in up.items())
    back = {
        column.name: cast(column.down or "NULL", column.type) for column in lens.mapped
    }
    is_held = f"{held(lens, forecast=tables)} IS NOT NULL"
    if lens.part is not None:
        back[lens.part.column] = (
            f"CASE WHEN {is_held} THEN l.{lens.part.column}"
            f" ELSE {_part_there_and_back(lens, types)} END"
        )
        is_held = "false"
    names = [column.name for column in lens.mapped]
    return (
        "SELECT x.id, x.is_now, x.comes_back FROM ("
        f"SELECT l.id, ROW({joined(f'l.{ident(name)}' for name in names)})::text AS is_now,"
        f" ROW({joined(back[name] for name in names)})::text AS comes_back"
        f" FROM {tables[lens.legacy]} l CROSS JOIN LATERAL (SELECT {made} OFFSET 0) n"
        f" WHERE NOT ({is_held})) x WHERE x.is_now IS DISTINCT FROM x.comes_back"
    )


def _part_there_and_back(lens: Lens, types: Types) -> str:
    part = lens.part
    assert part is not None
    made = {
        name: cast(expression, types[part.table][name])
        for name, expression in part.up.items()
    }
    own = mapping.own_price("e.item")
    made["unit_price"] = cast(own, types[part.table]["unit_price"])
    made["price_source"] = (
        f"CASE WHEN {own} IS NOT NULL THEN 'own' ELSE 'catalogue' END"
    )
    columns = joined(f"{expression} AS {name}" for name, expression in made.items())
    return (
        f"coalesce((SELECT jsonb_agg(i.back ORDER BY i.position) FROM"
        f" (SELECT i.position, {part.down} AS back FROM"
        f" (SELECT e.position, {columns} FROM jsonb_array_elements(l.{part.column})"
        f" WITH ORDINALITY AS e (item, position) OFFSET 0) i) i), '[]')"
    )


def price_forecast(lens: Lens, tables: Mapping[str, str]) -> str:
    """A query for orders whose lines will not add up: code and id, before anything moves."""
    is_held = f"{held(lens, forecast=tables)} IS NOT NULL"
    return query(
        "price_forecast",
        orders=tables[lens.legacy],
        is_held=is_held,
        subtotal=subtotal("l"),
        pricing=pricing(tables["assets"]),
    )
