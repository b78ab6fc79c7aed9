"""The lines of an order, and what they cost."""

from __future__ import annotations

from terrain.legacy import mapping
from terrain.legacy.schema import Lens
from terrain.legacy.sql.text import Types, cast, templates
from terrain.sqlfiles import render


def pricing(models: str, *, of_one: bool = False) -> str:
    """The CTEs that price the lines of ``line``; ``models`` is where catalogue prices are.

    ``of_one`` if these are the lines of one order: then there is less to sort and to join.
    """
    source = templates("functions.sql")
    suffix = "one" if of_one else "many"
    return render(
        source["pricing"].strip(),
        quantity=mapping.whole_number("e.item -> 'quantity'"),
        own_price=mapping.own_price("e.item"),
        asset_ref=mapping.plain_text("(e.item -> 'asset_id')"),
        find_model=render(
            source[f"model_of_{suffix}"],
            models=models,
            is_uuid=mapping.is_uuid("k.asset_ref"),
        ),
        of_an_order="" if of_one else "PARTITION BY k.order_id",
        running=source[f"running_of_{suffix}"],
    )


def subtotal(row: str) -> str:
    """What the models of an order cost together, by its own account, or NULL."""
    return mapping.sane_amount(f"{row}.pricing -> 'model_subtotal'")


def line_values(lens: Lens, types: Types) -> dict[str, str]:
    """Column of the part -> expression over a priced line ``e``."""
    part = lens.part
    assert part is not None
    known = {name: f"e.{name}" for name in (*part.identity, *part.derived)}
    columns = {**part.up, **known}
    return {name: cast(sql, types[part.table][name]) for name, sql in columns.items()}
