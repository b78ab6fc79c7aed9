"""The legacy row, shown beneath the form of the new row that came from it."""

from __future__ import annotations

from typing import Any

from django.db import connections, models
from django.http import HttpRequest
from django.template.loader import render_to_string

from terrain import exactjson
from terrain.legacy import lineage
from terrain.legacy.lineage import Line, Value
from terrain.legacy.mapping import BY_NEW, LENSES
from terrain.pages import shown

#: New tables whose rows come from legacy rows, or from parts of them.
TABLES = {*BY_NEW, *(lens.part.table for lens in LENSES if lens.part is not None)}

CUSTOMER = (
    "This account has no legacy row of its own: it stands for an address that legacy"
    " orders and saved tables carry, or was made since."
)


def render(request: HttpRequest, record: models.Model) -> str:
    """The panel's HTML; nothing for what was never legacy, or is no longer beside it."""
    table = record._meta.db_table
    if table not in TABLES:
        return ""
    connection = connections[record._state.db or "default"]
    found = lineage.of(connection, table, record.pk)
    if found is None:
        is_customer = table == "users" and lineage.is_possible(connection)
        return _html(None, CUSTOMER) if is_customer else ""
    return _html(found)


def _html(found: lineage.Lineage | None, nothing: str = "") -> str:
    groups: list[dict[str, Any]] = []
    if found is not None:
        for entry in found.entries:
            entry.url = shown.url_of(entry)  # type: ignore[attr-defined]
        groups = [
            {"heading": "Legacy column", "lines": _lines(found.lines)},
            {"heading": "Element", "lines": _lines(found.elements)},
        ]
    context = {"lineage": found, "nothing": nothing, "groups": groups}
    return render_to_string("legacy/lineage.html", context)


def _lines(lines: tuple[Line, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "type": line.type,
            "legacy": _block(line.legacy),
            "rebuilt": _block(line.rebuilt) if line.rebuilt is not None else "",
            "agrees": line.agrees,
            "how": line.how,
            "new": [
                (name.partition(".")[2], _block(value), _expression(line, name))
                for name, value in line.new
            ],
        }
        for line in lines
    ]


def _expression(line: Line, name: str) -> str:
    """What a new column was made by; nothing where that is the legacy column of its name."""
    by = line.up.get(name, "")
    return "" if by == f"l.{name.partition('.')[2]}" else shown.folded(by)


def _block(value: Value) -> str:
    """A value; JSON indented, if all of it is at hand."""
    text = str(value)
    if value.text is not None and not value.rest and text[:1] in "{[" and text != "{}":
        try:
            text = exactjson.dumps(exactjson.loads(text), ensure_ascii=False, indent=1)
        except ValueError:
            pass  # a text[], which is written with braces too
    return shown.block(text)
