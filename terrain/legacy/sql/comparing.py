"""Both sides, row by row."""

from __future__ import annotations

from terrain.legacy.schema import Lens
from terrain.legacy.sql.text import RANGE, ident, joined, legacy_table, literal, query


def both_sides(lens: Lens) -> tuple[str, str]:
    """The legacy rows and the rebuilt ones, as ``id`` and ``row`` (text), without held and late.

    Of an order whose items are held, everything else is compared.  Parameters: ``after``
    and ``upto``, uuid or NULL.
    """
    names = [column.name for column in lens.mapped]
    held = (
        "EXISTS (SELECT FROM @new.legacy_quarantine q WHERE q.kind = 'held'"
        f" AND q.legacy_table = {literal(lens.legacy)} AND q.legacy_id = l.id)"
    )
    before = [f"l.{ident(name)}" for name in names]
    after = [f"l.{ident(name)}" for name in names]
    if lens.part is not None:
        place = names.index(lens.part.column)
        for columns in (before, after):
            columns[place] = f"CASE WHEN {held} THEN NULL ELSE {columns[place]} END"
        keep = "true"
    else:
        keep = f"NOT {held}"
    keep += (
        " AND NOT EXISTS (SELECT FROM rebuilt.queue q WHERE q.late"
        f" AND q.legacy_table = {literal(lens.legacy)} AND q.key = l.id)"
    )
    within = RANGE.format("l")

    def side(table: str, columns: list[str]) -> str:
        return (
            f"SELECT l.id, ROW({joined(columns)})::text AS row FROM {table} l"
            f" WHERE {within} AND {keep}"
        )

    return (
        side(legacy_table(lens.legacy), before),
        side(ident("rebuilt", lens.legacy), after),
    )


def checksums(lens: Lens) -> str:
    """Rows and checksum of a range on both sides, in one snapshot."""
    before, after = both_sides(lens)
    return query("checksums", before=before, after=after)


def differences(lens: Lens) -> str:
    """The rows of a range that are not the same on both sides: id, before, after."""
    before, after = both_sides(lens)
    return query("differences", before=before, after=after)


def differing(lens: Lens) -> str:
    names = [ident(column.name) for column in lens.mapped]
    return query(
        "differing",
        legacy=lens.legacy,
        legacy_columns=joined(f"l.{name}" for name in names),
        rebuilt_columns=joined(f"r.{name}" for name in names),
    )


def stale(lens: Lens) -> str:
    return query("stale", new=lens.new, legacy=lens.legacy, own=lens.own)


def not_own(lens: Lens) -> str:
    return query("not_own", new=lens.new, legacy=lens.legacy, own=lens.own)
