"""Copying a range of keys, and who waits for it."""

from __future__ import annotations

from terrain import locks
from terrain.legacy import mapping
from terrain.legacy.schema import Lens
from terrain.legacy.sql.columns import written
from terrain.legacy.sql.lines import line_values, pricing, subtotal
from terrain.legacy.sql.owners import account
from terrain.legacy.sql.rules import any_flag, detail, flag_rows, held, price_rules
from terrain.legacy.sql.text import Types, ident, joined, query

#: Connections that copy a large table, each with its own part of the keys.
WORKERS = 2


def copy_lock(worker: int) -> str:
    """The arguments of the advisory lock between whoever deletes and a worker's batches."""
    return f"{locks.COPY_LOCK}, {worker}"


def copy_batch(
    lens: Lens, types: Types, table_limit: int, *, alone: bool = True
) -> str:
    """The statement that copies a range of keys; returns rows seen, copied and late.

    Parameters: ``after`` (exclusive, or NULL) and ``upto`` (inclusive), both uuid.  Unless
    the batch is ``alone`` with what it reads, it locks the rows and leaves their owners to
    settle.
    """
    values = written(lens, types)
    fit = "true" if lens.part is not None else "l.why IS NULL"
    owner_columns = owner_values = more = join = ""
    if lens.owner is not None:
        address = f"l.{lens.owner.address}"
        join = account(address) if alone else query("no_account")
        owner_columns, owner_values = f", {lens.owner.column}", ", a.id"
        if lens.owner.or_session is not None:
            is_address = mapping.is_address(address)
            owner_columns += f", {lens.owner.or_session}"
            owner_values += (
                f", CASE WHEN {is_address} IS NOT TRUE"
                " THEN md5('session:' || l.id)::uuid END"
            )
            more = "\n" + query(
                "copy_sessions",
                fit=fit,
                is_address=is_address,
                table_limit=str(table_limit),
            )
    if lens.part is not None:
        more += "\n" + _copy_lines(lens, types)
    rows = flag_rows(lens) or [("NULL::text", "''")]
    return query(
        "copy",
        legacy=lens.legacy,
        new=lens.new,
        own=lens.own,
        held=held(lens),
        columns=joined(map(ident, values)),
        values=joined(values.values()),
        owner_columns=owner_columns,
        owner_values=owner_values,
        account=join,
        fit=fit,
        any_flag=any_flag(lens),
        flag_rows=joined(f"({code}, {sentence})" for code, sentence in rows),
        more=more,
        row_lock="" if alone else "FOR NO KEY UPDATE OF l",
    )


def _copy_lines(lens: Lens, types: Types) -> str:
    part = lens.part
    assert part is not None
    values = line_values(lens, types)
    return query(
        "copy_lines",
        legacy=lens.legacy,
        part=part.table,
        parent=part.parent,
        subtotal=subtotal("l"),
        pricing=pricing("@new.models"),
        line_columns=joined(values),
        line_values=joined(values.values()),
        price_detail=detail(lens, price_rules(), "f.reason"),
        held_detail=detail(lens, lens.held, "l.why"),
    )


def next_range(table: str) -> str:
    """Parameters: after, end (uuid or NULL), limit."""
    return query("range", legacy=table)
