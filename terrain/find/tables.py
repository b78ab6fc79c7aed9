"""Records as the lists of the admin show them: the same columns, in a table of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import (
    display_for_field,
    display_for_value,
    label_for_field,
    lookup_field,
)
from django.db import models
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst

from terrain.find import keys
from terrain.pages import RecordAdmin, shown
from terrain.pages.belonging import counted

#: Rows of what belongs to a record that are shown with it.
SHOWN = 10


@dataclass(frozen=True)
class Line:
    """A record in a table; ``beside`` is where what else is known of it can be had."""

    record: models.Model
    url: str | None
    cells: tuple[Any, ...]
    beside: str


@dataclass(frozen=True)
class Table:
    """Some records of a kind, and where all of them are listed."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    url: str
    has_more: bool = False


def _columns(of: RecordAdmin, request: HttpRequest, but: str = "") -> list[Any]:
    """The columns of the list of such records, without the one that all agree on."""
    return [
        column
        for column in of.get_list_display(request)
        if but not in (column, getattr(column, "__name__", None))
    ]


def _label(of: RecordAdmin, column: Any) -> str:
    return capfirst(str(label_for_field(column, of.model, of)))


def _cell(of: RecordAdmin, name: Any, record: models.Model) -> Any:
    field, attribute, value = lookup_field(name, record, of)
    if field is not None:
        return display_for_field(value, field, shown.EMPTY)
    is_boolean = getattr(attribute, "boolean", False)
    return display_for_value(value, shown.EMPTY, is_boolean)


def facts(request: HttpRequest, record: models.Model) -> list[tuple[str, Any]]:
    """The columns of one record, each with its value."""
    of = admin_of(type(record))
    if of is None:
        return []
    return [
        (_label(of, column), _cell(of, column, record))
        for column in _columns(of, request)
    ]


def table(
    request: HttpRequest,
    rows: Any,
    title: str,
    lookups: dict[str, Any] | None = None,
    but: str = "",
) -> Table | None:
    """The first rows of a queryset or list; None if there are none, or not to be seen.

    ``but`` is a column that would say the same in every row.
    """
    model = rows.model if hasattr(rows, "model") else type(rows[0])
    of = admin_of(model)
    if of is None or not of.has_view_permission(request):
        return None
    found = list(rows[: SHOWN + 1])
    if not found:
        return None
    columns = _columns(of, request, but)
    return Table(
        title,
        tuple(_label(of, column) for column in columns),
        tuple(_line(of, columns, record) for record in found[:SHOWN]),
        shown.changelist_url(model, lookups),
        len(found) > SHOWN,
    )


def _line(of: RecordAdmin, columns: list[Any], record: models.Model) -> Line:
    cells = tuple(_cell(of, column, record) for column in columns)
    beside = reverse("admin:find_beside", args=[record._meta.label_lower, record.pk])
    return Line(record, shown.url_of(record), cells, beside)


def belonging(request: HttpRequest, record: models.Model) -> Iterator[Table]:
    """What belongs to a record, a table for each kind."""
    of = admin_of(type(record))
    for name, column in _there(record, of.belongings if of is not None else ()):
        related = record._meta.get_field(name).related_model
        theirs = admin_of(related)  # type: ignore[arg-type]
        if theirs is None:
            continue
        rows = keys.rows_of(theirs, request).filter(**{column: record})
        title = capfirst(name.replace("_", " "))
        lookups = {f"{column}__id__exact": record.pk}
        made = table(request, rows, title, lookups, but=column)
        if made is not None:
            yield made


def _there(
    record: models.Model, belongings: Sequence[tuple[str, str]]
) -> Sequence[tuple[str, str]]:
    """Those kinds that the record has any of, by one query where that saves some."""
    if len(belongings) <= 2:
        return belongings
    numbers = counted(record, belongings)
    return [each for each in belongings if numbers[each[0]]]


def admin_of(model: type[models.Model]) -> RecordAdmin | None:
    found = admin.site._registry.get(model)
    return found if isinstance(found, RecordAdmin) else None
