"""The columns of a row, there and back."""

from __future__ import annotations

from terrain.legacy.schema import Lens
from terrain.legacy.sql.text import Types, cast, ident, new_table


def written(lens: Lens, types: Types) -> dict[str, str]:
    """New column -> expression over ``l``, for all that a new row is made with."""
    columns = {**lens.up, **lens.constants, **lens.first}
    return {name: cast(columns[name], types[lens.new][name]) for name in columns}


def synced(lens: Lens) -> tuple[str, ...]:
    """The new columns that stay in step, without the key."""
    return tuple(name for name in lens.up if name != lens.key)


def down(lens: Lens) -> dict[str, str]:
    """Legacy column -> expression over ``n`` that restores it, with its type."""
    columns = {
        column.name: cast(column.down or "NULL", column.type) for column in lens.mapped
    }
    if lens.part is not None:
        columns[lens.part.column] = (
            "coalesce((SELECT jsonb_agg(e.item ORDER BY e.position) FROM"
            f" (SELECT i.position, {lens.part.down} AS item"
            f" FROM {new_table(lens.part.table)} i"
            f" WHERE i.{ident(lens.part.parent)} = n.id) e), '[]')"
        )
    return columns


def new_only(lens: Lens, types: Types) -> tuple[str, ...]:
    """Columns of the new table that the legacy one knows nothing of."""
    taken = {*lens.up, *lens.constants}
    if lens.owner is not None:
        taken |= {lens.owner.column, lens.owner.or_session or lens.owner.column}
    return tuple(name for name in types[lens.new] if name not in taken)
