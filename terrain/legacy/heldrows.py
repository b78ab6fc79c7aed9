"""A row in quarantine, as it was found and as it is now, for a page to show."""

from __future__ import annotations

from django.apps import apps
from django.db import connections, models

from terrain import exactjson
from terrain.legacy import catalog, lineage, sql
from terrain.legacy.lineage import SECRET
from terrain.legacy.mapping import BY_LEGACY
from terrain.legacy.models import QuarantinedRow
from terrain.pages import shown


def new_record(entry: QuarantinedRow) -> models.Model | None:
    """The row of the new schema that the legacy row became, if it did."""
    model = new_model(entry.legacy_table)
    if model is None:
        return None
    found = model._default_manager.filter(pk=entry.legacy_id)
    lens = BY_LEGACY[entry.legacy_table]
    if lens.constants:
        found = found.filter(kind=lens.constants["kind"].strip("'"))
    return found.first()


def new_model(legacy_table: str) -> type[models.Model] | None:
    """What a row of a legacy table becomes; None for what is no legacy table."""
    lens = BY_LEGACY.get(legacy_table)
    if lens is None:
        return None
    return next(each for each in apps.get_models() if each._meta.db_table == lens.new)


def changed(entry: QuarantinedRow) -> list[dict[str, str]]:
    """Those columns whose values are no longer what was found."""
    return [column for column in columns(entry) if column["now"]]


def columns(entry: QuarantinedRow) -> list[dict[str, str]]:
    """Name, value as it was found, and value now where that is another."""
    then = _as_found(entry)
    now = _now(entry)
    made = []
    for name in dict.fromkeys([*then, *(now or {})]):
        was, is_ = (_shown(name, row.get(name, "null")) for row in (then, now or then))
        made.append({"name": name, "then": was, "now": "" if is_ == was else is_})
    if now is not None and not now:
        gone = "The row is no longer in its table."
        made.append({"name": "", "then": "", "now": gone})
    return made


def _shown(name: str, text: str) -> str:
    """A value, given as JSON."""
    if name in SECRET:
        return "•" * 8
    if text == "null":
        return "NULL"
    value = exactjson.loads(text)
    if isinstance(value, str):
        return shown.block(value)
    return shown.block(exactjson.dumps(value, ensure_ascii=False, indent=2))


def _as_found(entry: QuarantinedRow) -> dict[str, str]:
    """Column -> value, as JSON.  One by one, as any of them may be nested very deeply."""
    return dict(
        catalog.rows(
            connections[entry._state.db or "default"],
            f"SELECT e.key, e.value::text FROM {sql.new_table(entry._meta.db_table)} q"
            " CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(q.row) WHEN 'object'"
            " THEN q.row ELSE jsonb_build_object('row', q.row) END) e WHERE q.id = %s",
            [entry.pk],
        )
    )


def _now(entry: QuarantinedRow) -> dict[str, str] | None:
    """The same of the legacy row as it is now; None where it cannot be looked up."""
    connection = connections[entry._state.db or "default"]
    if entry.legacy_table not in BY_LEGACY or not lineage.is_possible(connection):
        return None
    table = sql.legacy_table(entry.legacy_table)
    return dict(
        catalog.rows(
            connection,
            f"SELECT e.key, e.value::text FROM {table} l"
            " CROSS JOIN LATERAL jsonb_each(to_jsonb(l)) e WHERE l.id = %s",
            [entry.legacy_id],
        )
    )
