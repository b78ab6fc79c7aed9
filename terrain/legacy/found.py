"""The move's half of "find anything": legacy rows by their own keys, and the quarantine.

Nothing may be added to a legacy table, so what can be looked for is what it has indexes on.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, models, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse

from terrain.legacy import catalog, heldrows, lineage, sql
from terrain.legacy.mapping import BY_LEGACY, BY_NEW
from terrain.legacy.models import Quarantine, QuarantinedRow, Released
from terrain.pages.search import as_uuid

#: What the quarantine calls models that cannot become assets.
MODELS = "models"

#: The columns of each legacy table, ``id`` apart, that an index finds a whole value in.
KEYS = {
    "artists": ("email",),
    "assets": (),
    "user_tables": ("share_token", "user_email"),
    "example_tables": (),
    "orders": ("order_number", "user_email"),
    "stripe_transfers": ("stripe_transfer_id",),
}
#: Rows of one table that are looked for under one key; closed entries that are shown.
MOST, MOST_RELEASED = 50, 5

Key = tuple[str, uuid.UUID]


@dataclass(frozen=True)
class Found:
    """A legacy row, and what the quarantine says of it; ``url`` leads to the new row."""

    table: str
    key: uuid.UUID
    url: str | None
    entries: list[Quarantine] = field(default_factory=list)


def query() -> str:
    """Table and id of every legacy row with the term as a key: one index each."""
    by_id = [_branch(table, "id = %(key)s::uuid") for table in KEYS]
    by_column = [
        _branch(table, f"{sql.ident(column)} = ANY (%(terms)s)")
        for table, names in KEYS.items()
        for column in names
    ]
    return " UNION ".join([*by_id, *by_column])


def _branch(table: str, condition: str) -> str:
    return (
        f"(SELECT {sql.literal(table)} AS legacy_table, id FROM {sql.legacy_table(table)}"
        f" WHERE {condition} LIMIT {MOST})"
    )


def rows(connection: BaseDatabaseWrapper, term: str) -> list[Key]:
    """The legacy rows with the term as a key, as it was typed or in lower case."""
    terms = list(dict.fromkeys((term, term.lower(), term.upper())))
    found = catalog.rows(connection, query(), {"key": as_uuid(term), "terms": terms})
    return [(table, key) for table, key in found]


def render(request: HttpRequest, term: str, records: Sequence[models.Model]) -> str:
    """What the legacy side knows that the new rows, which are shown already, do not say."""
    if not request.user.has_perm("legacy.view_quarantine") or "\x00" in term:
        return ""
    connection = connections[router.db_for_read(Quarantine)]
    shown = {key for record in records for key in _keys_of(record)}
    there = set(rows(connection, term)) if lineage.is_possible(connection) else set()
    keys = shown | there
    key = as_uuid(term)
    if key is not None:
        keys |= {(table, key) for table in (*BY_LEGACY, MODELS)}
    open_entries = _entries(Quarantine, keys)
    closed = _entries(Released, keys)[:MOST_RELEASED]
    context = {
        "rows": [
            _found(table, key, open_entries) for table, key in sorted(there - shown)
        ],
        "open": [_linked(entry) for entry in open_entries],
        "closed": [
            {"entry": _linked(entry), "changed": heldrows.changed(entry)}
            for entry in closed
        ],
    }
    is_anything = any(context.values())
    return render_to_string("legacy/found.html", context) if is_anything else ""


def _keys_of(record: models.Model) -> list[Key]:
    """The legacy rows that a new row may have come from, and what the quarantine calls it."""
    table = record._meta.db_table
    names = [lens.legacy for lens in BY_NEW.get(table, ())]
    return [(name, record.pk) for name in (*names, table)]


def _entries(model: type[QuarantinedRow], keys: set[Key]) -> list[Any]:
    found = model._default_manager.filter(
        legacy_table__in={table for table, _ in keys},
        legacy_id__in={key for _, key in keys},
    ).order_by("legacy_table", "legacy_id", "-pk")
    return [each for each in found if (each.legacy_table, each.legacy_id) in keys]


def _linked(entry: QuarantinedRow) -> QuarantinedRow:
    names = entry._meta
    entry.url = reverse(  # type: ignore[attr-defined]
        f"admin:{names.app_label}_{names.model_name}_change", args=[entry.pk]
    )
    return entry


def _found(table: str, key: uuid.UUID, entries: list[Quarantine]) -> Found:
    own = [
        each for each in entries if (each.legacy_table, each.legacy_id) == (table, key)
    ]
    model = heldrows.new_model(table)
    is_held = any(each.kind == "held" for each in own) and table != "orders"
    url = None
    if model is not None and not is_held:
        names = model._meta
        url = reverse(f"admin:{names.app_label}_{names.model_name}_change", args=[key])
    return Found(table, key, url, own)
