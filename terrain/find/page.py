"""The page that shows what was found, and what else is known of a row of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import capfirst

from terrain import find, panels
from terrain.find import keys, tables
from terrain.pages import shown
from terrain.site import Page

#: Records that are shown with all that belongs to them; the others are lines of a table.
WHOLE = 2


def found(request: HttpRequest) -> HttpResponse:
    """Every record the term is a key of, with what belongs to it."""
    term = request.GET.get("q", "").replace("\x00", "").strip()
    records = keys.records(request, term)
    whole = [_whole(request, record) for record in _of_first_kind(records)]
    shown_whole = list(_shown(whole))
    others = [record for record in records if record not in shown_whole]
    return TemplateResponse(
        request,
        "terrain/find/found.html",
        {
            **admin.site.each_context(request),
            "title": f"Found for “{term[:100]}”" if term else "Find anything",
            "term": term,
            "whole": whole,
            "others": _others(request, others),
            "added": [
                html
                for source in find.sources
                if term and (html := source(request, term, [*shown_whole, *others]))
            ],
            "elsewhere": [] if records or not term else _elsewhere(request, term),
        },
    )


def _whole(request: HttpRequest, record: models.Model) -> dict[str, Any]:
    return {
        "record": record,
        "kind": capfirst(str(record._meta.verbose_name)),
        "url": shown.url_of(record),
        "facts": tables.facts(request, record),
        "tables": list(tables.belonging(request, record)),
        "panels": panels.of(request, record),
    }


def _of_first_kind(records: list[models.Model]) -> list[models.Model]:
    """Of an address it is the account that is looked at; its orders belong to it."""
    return [each for each in records if type(each) is type(records[0])][:WHOLE]


def _shown(whole: list[dict[str, Any]]) -> Iterator[models.Model]:
    """The records that are shown whole, and those that are lines beneath them."""
    for each in whole:
        yield each["record"]
        for table in each["tables"]:
            yield from (line.record for line in table.lines)


def _others(request: HttpRequest, records: list[models.Model]) -> list[tables.Table]:
    made = []
    for _, some in groupby(records, key=type):
        rows = list(some)
        title = f"Also {rows[0]._meta.verbose_name_plural} with this key"
        lookups = {"q": request.GET["q"]}
        table = tables.table(request, rows, title, lookups)
        if table is not None:
            made.append(table)
    return made


def _elsewhere(request: HttpRequest, term: str) -> list[tuple[str, str]]:
    """Lists that look into names too, with the term to look for."""
    return [
        (
            str(each.model._meta.verbose_name_plural),
            shown.changelist_url(each.model, {"q": term}),
        )
        for each in keys.searched(request)
        if each.words
    ]


def beside(request: HttpRequest, label: str, key: uuid.UUID) -> HttpResponse:
    """What other apps know of one record, to be put beneath its line."""
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise Http404 from error
    of = tables.admin_of(model)
    try:
        record = model._default_manager.filter(pk=key).first()
    except (ValidationError, ValueError) as error:
        raise Http404 from error
    if of is None or record is None or not of.has_view_permission(request, record):
        raise Http404
    return TemplateResponse(
        request, "terrain/find/beside.html", {"panels": panels.of(request, record)}
    )


def _may(request: HttpRequest) -> bool:
    return bool(keys.searched(request))


PAGE = Page(
    "Find anything",
    [
        ("find/", found, "find"),
        ("find/beside/<str:label>/<uuid:key>/", beside, "find_beside"),
    ],
    _may,
    box="terrain/find/box.html",
)
