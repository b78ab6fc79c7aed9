"""Where a new row came from: each legacy column, beside what has become of it.

Derived from the declaration.  PostgreSQL compares the two sides itself, as text, and only
the beginning of a long value is fetched.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import catalog, sql
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.legacy.models import Quarantine
from terrain.legacy.schema import Column, Lens, Part

#: Characters of a value that are fetched, and elements of an array that are shown.
LONGEST, MOST_ELEMENTS = 4000, 100
#: What columns of a part that are computed once were made by.
DERIVED = "computed once, with the other lines of the order: order_lines in queries.sql"
#: Columns whose values nobody needs to see: it is enough whether they agree.
SECRET = frozenset({"password_hash"})


@dataclass(frozen=True)
class Value:
    """A value as PostgreSQL writes it: its beginning, and its whole length.

    ``text`` is None for NULL; ``length`` is in characters.
    """

    text: str | None
    length: int = 0

    @property
    def rest(self) -> int:
        """Characters that are not shown."""
        return max(self.length - LONGEST, 0)

    def __str__(self) -> str:
        if self.text is None:
            return "NULL"
        return f"{self.text} … and {self.rest:,} more" if self.rest else self.text


@dataclass(frozen=True)
class Line:
    """One legacy value: what it is, what it was made into, and whether it comes back.

    ``name`` is the legacy column, or the element of an array; ``new`` gives the new
    columns, ``table.column``, with their values; ``rebuilt`` is the legacy value as the
    new schema gives it back.  ``agrees`` is None where a column was dropped or is held.
    ``up`` gives, for each of the new columns, the expression it was made by, over the
    legacy row ``l`` or the element ``e``.
    """

    name: str
    type: str
    legacy: Value
    rebuilt: Value | None
    agrees: bool | None
    how: str
    new: tuple[tuple[str, Value], ...] = ()
    up: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """A new row's origin.  ``entries`` are what the quarantine says of it.

    ``table`` is the qualified name of the legacy table.
    """

    table: str
    key: uuid.UUID
    lines: tuple[Line, ...]
    entries: tuple[Quarantine, ...] = ()
    elements: tuple[Line, ...] = ()
    more_elements: int = 0

    @property
    def differing(self) -> tuple[Line, ...]:
        return tuple(
            line for line in (*self.lines, *self.elements) if line.agrees is False
        )


def is_possible(connection: BaseDatabaseWrapper) -> bool:
    """Whether the legacy tables stand beside the new ones, and may be read."""
    names = [
        *catalog.names(connection, *(f"@legacy.{lens.legacy}" for lens in LENSES)),
        *catalog.new(connection, *BY_NEW),
    ]
    return bool(
        catalog.value(
            connection,
            "SELECT count(*) = %s FROM pg_class c"
            "  JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname || '.' || c.relname = ANY (%s) AND c.relkind = 'r'"
            "   AND has_schema_privilege(s.oid, 'USAGE')"
            "   AND has_table_privilege(c.oid, 'SELECT')",
            [len(names), names],
        )
    )


def of(connection: BaseDatabaseWrapper, table: str, key: uuid.UUID) -> Lineage | None:
    """Where the row of the new table ``table`` came from; None if from no legacy row.

    ``order_items`` have the lineage of their element of the array.
    """
    if not is_possible(connection):
        return None
    for lens in LENSES:
        if lens.part is not None and lens.part.table == table:
            return _of_part(connection, lens, lens.part, key)
    for lens in BY_NEW.get(table, ()):
        found = _of_row(connection, lens, key)
        if found is not None:
            return found
    return None


# --- a row ---------------------------------------------------------------------------------


def _of_row(
    connection: BaseDatabaseWrapper, lens: Lens, key: uuid.UUID
) -> Lineage | None:
    read = _Read(connection, _row_query(lens), {"key": key})
    if read.empty:
        return None
    entries = tuple(
        Quarantine.objects.using(connection.alias)
        .filter(legacy_table=lens.legacy, legacy_id=key)
        .order_by("kind", "reason")
    )
    part_is_held = lens.part is not None and any(
        each.kind == "held" for each in entries
    )
    lines = []
    for column in lens.columns:
        legacy = read.value(f"l.{column.name}")
        if not isinstance(column, Column):
            how = f"dropped: {column.reason}"
            lines.append(Line(column.name, column.type, legacy, None, None, how))
            continue
        held = (
            part_is_held and lens.part is not None and lens.part.column == column.name
        )
        lines.append(
            Line(
                column.name,
                column.type,
                legacy,
                read.value(f"r.{column.name}"),
                None if held else read.flag(column.name),
                (
                    "held: not in the new table until it is put right"
                    if held
                    else column.how
                ),
                tuple(
                    (f"{lens.new}.{name}", read.value(f"n.{name}"))
                    for name in column.up
                ),
                {f"{lens.new}.{name}": by for name, by in column.up.items()},
            )
        )
    elements: tuple[Line, ...] = ()
    more = 0
    if lens.part is not None and not part_is_held:
        elements, more = _elements(connection, lens, lens.part, key)
    (table,) = catalog.names(connection, f"@legacy.{lens.legacy}")
    return Lineage(table, key, tuple(lines), entries, elements, more)


def _row_query(lens: Lens) -> str:
    """One row: every legacy value, its rebuilt one, whether they agree, the new values."""
    down = sql.down(lens)
    new = dict.fromkeys(name for column in lens.mapped for name in column.up)
    columns = [
        *(
            _value(_open(c.name, f"l.{sql.ident(c.name)}"), f"l.{c.name}")
            for c in lens.columns
        ),
        *(_value(_open(c.name, down[c.name]), f"r.{c.name}") for c in lens.mapped),
        *(_value(_open(name, f"n.{sql.ident(name)}"), f"n.{name}") for name in new),
        *(
            f"l.{sql.ident(c.name)}::text IS NOT DISTINCT FROM {down[c.name]}::text"
            f" AS {sql.ident(c.name)}"
            for c in lens.mapped
        ),
    ]
    return (
        f"SELECT {sql.joined(columns)} FROM {sql.new_table(lens.new)} n"
        f" JOIN {sql.legacy_table(lens.legacy)} l ON l.id = n.id"
        f" WHERE n.id = %(key)s AND {lens.own}"
    )


# --- the elements of an array --------------------------------------------------------------


def _of_part(
    connection: BaseDatabaseWrapper, lens: Lens, part: Part, key: uuid.UUID
) -> Lineage | None:
    found = catalog.rows(
        connection,
        f"SELECT i.{part.parent}, (SELECT count(*) FROM @new.{part.table} b"
        f" WHERE b.{part.parent} = i.{part.parent} AND b.position <= i.position)"
        f" FROM @new.{part.table} i WHERE i.id = %s",
        [key],
    )
    if not found:
        return None
    parent, rank = found[0]
    elements, _ = _elements(connection, lens, part, parent, only=rank)
    (table,) = catalog.names(connection, f"@legacy.{lens.legacy}")
    return Lineage(table, parent, (), (), elements) if elements else None


def _elements(
    connection: BaseDatabaseWrapper,
    lens: Lens,
    part: Part,
    key: uuid.UUID,
    only: int | None = None,
) -> tuple[tuple[Line, ...], int]:
    """The elements, or ``only`` the one of that rank, and how many more there are."""
    read = _Read(
        connection,
        _elements_query(lens, part),
        {"key": key, "only": only, "most": MOST_ELEMENTS},
    )
    columns = [*part.up, *part.derived]
    up = {name: part.up.get(name, DERIVED) for name in columns}
    lines = tuple(
        Line(
            f"{part.column}[{rank - 1}]",
            "element",
            read.value("element", number),
            read.value("back", number),
            read.flag("agrees", number),
            part.how,
            tuple(
                (f"{part.table}.{name}", read.value(f"i.{name}", number))
                for name in columns
            ),
            {f"{part.table}.{name}": by for name, by in up.items()},
        )
        for number, rank in enumerate(read.column("rank"))
    )
    if only is not None or len(lines) < MOST_ELEMENTS:
        return lines, 0
    total = catalog.value(
        connection,
        f"SELECT jsonb_array_length({part.column}) FROM {sql.legacy_table(lens.legacy)}"
        " WHERE id = %s",
        [key],
    )
    return lines, max(total - len(lines), 0)


def _elements_query(lens: Lens, part: Part) -> str:
    """The k-th row of the part beside the k-th element."""
    columns = [
        "e.position AS rank",
        _value("e.item", "element"),
        _value(f"({part.down})", "back"),
        f"e.item::text IS NOT DISTINCT FROM ({part.down})::text AS agrees",
        *(
            _value(f"i.{sql.ident(name)}", f"i.{name}")
            for name in (*part.up, *part.derived)
        ),
    ]
    return (
        f"SELECT {sql.joined(columns)}"
        f"  FROM {sql.legacy_table(lens.legacy)} l"
        f" CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(l.{part.column})"
        f" WHEN 'array' THEN l.{part.column} ELSE '[]' END)"
        "  WITH ORDINALITY AS e (item, position)"
        f" JOIN (SELECT p.*, row_number() OVER (ORDER BY p.position) AS rank"
        f" FROM {sql.new_table(part.table)} p WHERE p.{part.parent} = %(key)s) i"
        " ON i.rank = e.position"
        " WHERE l.id = %(key)s AND (%(only)s::bigint IS NULL OR e.position = %(only)s)"
        " ORDER BY e.position LIMIT %(most)s"
    )


def _open(name: str, expression: str) -> str:
    """The expression, unless what is in the column is nobody's business."""
    return sql.literal("•" * 8) if name in SECRET else expression


# --- reading -------------------------------------------------------------------------------


def _value(expression: str, name: str) -> str:
    """The beginning of a value as text, and its length, under two names."""
    text = f"({expression})::text"
    return (
        f"left({text}, {LONGEST}) AS {sql.ident(name)},"
        f" coalesce(length({text}), 0) AS {sql.ident(f'{name}#')}"
    )


class _Read:
    """The rows of a query, by the names its columns were given."""

    def __init__(
        self, connection: BaseDatabaseWrapper, query: str, params: dict[str, Any]
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute(query, params)
            self._names = {
                column[0]: place for place, column in enumerate(cursor.description)
            }
            self._rows = cursor.fetchall()

    @property
    def empty(self) -> bool:
        return not self._rows

    def column(self, name: str) -> Iterable[int]:
        return [row[self._names[name]] for row in self._rows]

    def value(self, name: str, number: int = 0) -> Value:
        row = self._rows[number]
        return Value(row[self._names[name]], row[self._names[f"{name}#"]])

    def flag(self, name: str, number: int = 0) -> bool:
        return bool(self._rows[number][self._names[name]])
