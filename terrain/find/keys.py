"""The records that have a term as one of their keys, found by one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from terrain.pages import RecordAdmin

#: Characters beyond which a term is no key of anything.
LONGEST = 255
#: Records of one kind that are looked for under one key.
MOST = 50


def searched(request: HttpRequest) -> list[RecordAdmin]:
    """The admin classes whose records this person may see, in the order they are shown."""
    found = [
        each
        for each in admin.site._registry.values()
        if isinstance(each, RecordAdmin)
        and each.is_found
        and each.has_view_permission(request)
    ]
    return sorted(found, key=lambda each: each.found_first)


def records(request: HttpRequest, term: str) -> list[models.Model]:
    """All records with the term as a key, those first that people mean most often."""
    if not term or len(term) > LONGEST or "\x00" in term:
        return []
    admins = searched(request)
    branches = list(_branches(request, admins, term))
    if not branches:
        return []
    first, *others = branches
    keys: dict[int, list[Any]] = {}
    for number, key in first.union(*others) if others else first:
        keys.setdefault(number, []).append(key)
    return [
        record
        for number, some in sorted(keys.items())
        for record in rows_of(admins[number], request).filter(pk__in=some)
    ]


def _branches(
    request: HttpRequest, admins: Sequence[RecordAdmin], term: str
) -> Iterator[models.QuerySet[Any, Any]]:
    """For each key of each kind of record, a query by that key's index."""
    for number, each in enumerate(admins):
        for condition in each.key_conditions(term):
            yield (
                each.model._default_manager.filter(condition)
                .order_by()
                .annotate(number=models.Value(number))
                .values_list("number", "pk")[:MOST]
            )


def rows_of(of: RecordAdmin, request: HttpRequest) -> models.QuerySet[Any]:
    """Records of a kind with what their columns in a list need, in the order of the list."""
    needed: Any = of.list_select_related or ()
    rows: models.QuerySet[Any] = of.model._default_manager.order_by(
        *of.get_ordering(request)
    )
    return of.without_documents(rows.select_related(*needed))
