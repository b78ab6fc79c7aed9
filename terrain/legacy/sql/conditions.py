"""What the triggers' functions ask before they do anything."""

from __future__ import annotations

import re
from collections.abc import Iterable

from terrain.legacy.schema import Lens, Part
from terrain.legacy.sql.text import ident, joined, literal

#: Derived columns whose change is the legacy table's business, or the quarantine's.
_PRICES = ("unit_price", "total_price", "price_source")


def carried_over(root: str, rows: str) -> str:
    """Whether a trigger's event is what the other side has just carried over.

    ``root`` is a table and ``rows`` an expression for the key whose rows these are.  The
    trigger is one level deeper than what it is called by, and that is what set the guard.
    """
    depth = "'@' || pg_trigger_depth() - 1"
    return (
        f"current_setting('terrain.echo', true) IN ({literal(f'{root}:')} || {rows} || {depth},"
        f" {literal(f'{root}:*')} || {depth})"
    )


def unchanged(columns: Iterable[str]) -> str:
    """Whether an update has left these columns as they were."""
    old, new = (joined(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    return f"TG_OP = 'UPDATE' AND NOT ROW({old})::record *<> ROW({new})::record"


def columns_on_legacy(lens: Lens) -> list[str]:
    """What a change of matters to the new side."""
    return [ident(column.name) for column in lens.mapped]


def columns_on_new(lenses: Iterable[Lens]) -> list[str]:
    """What a change of matters to the legacy side."""
    return list(
        dict.fromkeys(name for lens in lenses for name in [*lens.up, *lens.constants])
    )


def changed_columns(lens: Lens) -> str:
    """The legacy columns that an update of a new row has changed, as an array of their names."""
    changed = []
    for column in lens.mapped:
        sources = dict.fromkeys(re.findall(r"\bn\.(\w+)", column.down or ""))
        if sources:
            old, new = (
                joined(f"{row}.{name}" for name in sources) for row in ("OLD", "NEW")
            )
            changed.append(
                f"CASE WHEN ROW({old})::record *<> ROW({new})::record"
                f" THEN {literal(column.name)} END"
            )
    return f"array_remove(ARRAY[{joined(changed)}]::text[], NULL)"


def columns_on_part(part: Part) -> list[str]:
    """The same, of rows that are a part of another."""
    return [part.parent, "position", *part.up, *_PRICES]
