"""Which new rows refer to which."""

from __future__ import annotations

from collections.abc import Mapping

from terrain.legacy.mapping import LENSES
from terrain.legacy.schema import Lens

#: Columns that refer to an account.  Those of ``MIRRORED`` tables come from a legacy row
#: that refers to the artist too.
USER_REFERENCES = (
    ("models", "artist_id"),
    ("tables", "user_id"),
    ("orders", "user_id"),
    ("order_items", "artist_id"),
    ("payments", "artist_id"),
    ("assets", "artist_id"),
    ("asset_sets", "owner_id"),
)

MIRRORED = ("models", "order_items", "payments")

#: Rows of the new application alone that go where a table goes.
CHILDREN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "tables": (("table_assets", "table_id"), ("table_sets", "table_id")),
}

#: Legacy columns that refer to another legacy row, with the new table of that one.  Where
#: such a reference has a foreign key in the new schema, it is looked at by the commit.
PARENTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "assets": (("artist_id", "users"),),
    "example_tables": (("artist_id", "users"),),
    "stripe_transfers": (("order_id", "orders"), ("artist_id", "users")),
}


def referring(new: str) -> list[tuple[Lens, str]]:
    """Who refers to a new table because its legacy row refers to the other's: lens, column."""
    return [
        (lens, _new_column(lens, column))
        for lens in LENSES
        for column, parent in PARENTS.get(lens.legacy, ())
        if parent == new
    ]


def _new_column(lens: Lens, legacy: str) -> str:
    (column,) = [column for column in lens.mapped if column.name == legacy]
    (new,) = column.up
    return new


def dependents(lens: Lens) -> list[tuple[str, str]]:
    """(table, column) of the rows that go where a row of the lens goes."""
    part = [(lens.part.table, lens.part.parent)] if lens.part else []
    return [*part, *CHILDREN.get(lens.new, ())]
