"""Which new rows refer to which."""

from __future__ import annotations

from collections.abc import Mapping

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


def dependents(lens: Lens) -> list[tuple[str, str]]:
    """(table, column) of the rows that go where a row of the lens goes."""
    part = [(lens.part.table, lens.part.parent)] if lens.part else []
    return [*part, *CHILDREN.get(lens.new, ())]
