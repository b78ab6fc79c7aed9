"""What a report says, as data: gathered once, rendered and compared by others."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import django
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Min
from django.utils import timezone

from terrain.legacy import (
    catalog,
    cleanup,
    copying,
    guide,
    ledger,
    sql,
    usage,
)
from terrain.legacy.backup import fingerprints, manifest
from terrain.legacy.checks import Verification
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine, Run
from terrain.legacy.report import page
from terrain.progress import measured
from terrain.sqlfiles import render, statements

#: How a report is written.  Whatever was ever written stays readable.
VERSION = 1

#: Statements of ``report.sql`` come in pairs; what each is about.
MONEY = {
    "orders": "Orders, as customers were charged",
    "lines": "Lines of orders, as models were priced",
    "payments": "Payments to artists",
    "prices": "Prices of the catalogue",
}

Document = dict[str, Any]


def document(connection: BaseDatabaseWrapper, result: Verification) -> Document:
    """The report as data, with its digest; everything in it is as JSON has it.

    What was found now: counts, pennies (before: of the legacy tables, None when they are
    gone) and a fingerprint of each table.
    """
    with usage.ours(connection):
        content = {
            "report_version": VERSION,
            "page": page.fingerprint(),
            "database": connection.settings_dict["NAME"],
            "system": catalog.system(connection),
            "at": timezone.now().isoformat(),
            "migrated_at": catalog.migrated_at(connection),
            "is_cleaned_up": cleanup.is_cleaned_up(connection),
            **result.as_json(),
            "quarantined": _quarantined(connection),
            "moved": list(moved(connection)),
            "money": money(connection),
            "tables": tables(connection),
            "times": list(_times(connection)),
            "versions": {
                "PostgreSQL": catalog.value(connection, "SHOW server_version"),
                "Django": django.get_version(),
                "Python": platform.python_version(),
            },
        }
    return sealed(content)


def sealed(content: Document) -> Document:
    """The same as JSON would give it back, with the digest of it."""
    plain: Document = json.loads(json.dumps(content, default=_plain))
    return {**plain, "digest": manifest.digest(plain)}


def _plain(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


# --- rows ----------------------------------------------------------------------------------


def moved(connection: BaseDatabaseWrapper) -> Iterator[dict[str, Any]]:
    """What was moved where; after cleanup as far as the ledger and the new tables tell."""
    if catalog.has_legacy_tables(connection):
        for each in guide.summary(connection):
            yield each.as_json()
        return
    for lens in LENSES:
        run = ledger.last(copying.step_name(lens.legacy), connection.alias)
        if run is None:  # never migrated: a database that was new
            continue
        new_rows = catalog.value(
            connection, f"SELECT count(*) FROM @new.{lens.new} n WHERE {lens.own}"
        )
        found = Quarantine.objects.using(connection.alias).filter(
            legacy_table=lens.legacy
        )
        yield {
            "legacy": lens.legacy,
            "new": f"{lens.new}, {lens.part.table}" if lens.part else lens.new,
            "rows": run.total,
            "new_rows": new_rows,
            "held": found.filter(kind="held").count(),
            "flagged": found.filter(kind="flagged").count(),
            "seconds": run.seconds,
        }


def tables(connection: BaseDatabaseWrapper) -> dict[str, dict[str, Any]]:
    """``new.<table>`` and ``legacy.<table>`` -> rows and fingerprint, wherever the tables are."""
    found = {}
    there = catalog.where(connection)
    names = [
        (f"new.{table}", there.schema_of(table), table)
        for table in catalog.NEW_TABLES
        # What is counted of use changes with every layout that is saved, and was not moved.
        if not table.startswith("asset_usage")
    ]
    names += [
        (f"legacy.{table}", schema, table)
        for table, schema in catalog.legacy_tables(connection).items()
    ]
    with measured("fingerprints", len(names), "tables") as advance:
        for name, schema, table in names:
            rows, fingerprint = _fingerprint(connection, schema, table)
            found[name] = {"rows": rows, "fingerprint": fingerprint}
            advance(1)
    return found


def _fingerprint(
    connection: BaseDatabaseWrapper, schema: str, table: str
) -> tuple[int, str]:
    """To the byte, as text; what the session would make of a value is pinned."""
    names = sorted(each.name for each in catalog.columns(connection, schema, table))
    query = render(
        _statements()["fingerprint"],
        table=sql.ident(schema, table),
        columns=", ".join(sql.ident("t", name) for name in names),
    )
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(fingerprints.statement("pinned"))
        cursor.execute(query)
        rows, fingerprint = cursor.fetchone()
    return rows, fingerprint


def _quarantined(connection: BaseDatabaseWrapper) -> list[dict[str, Any]]:
    """Rows that need a person, by table and reason, with the sentence of one of them."""
    found = (
        Quarantine.objects.using(connection.alias)
        .values("legacy_table", "kind", "reason")
        .annotate(rows=Count("id"), decided=Count("decided_at"), example=Min("detail"))
        .order_by("legacy_table", "kind", "reason")
    )
    return [dict(each) for each in found]


def _times(connection: BaseDatabaseWrapper) -> Iterator[dict[str, Any]]:
    """The last time of every step that the ledger knows, in the order they were begun."""
    last: dict[str, Run] = {}
    for run in Run.objects.using(connection.alias).order_by("id"):
        last[run.step] = run
    for step, run in sorted(last.items(), key=lambda item: item[1].pk):
        if step != usage.STEP and run.finished_at is not None:
            yield {
                "step": step,
                "seconds": round(run.seconds, 3),
                "rows": run.rows or None,
                "finished_at": run.finished_at,
            }


# --- money ---------------------------------------------------------------------------------


def money(connection: BaseDatabaseWrapper) -> list[dict[str, Any]]:
    """Pennies by what they are of and by status, before and after."""
    both = catalog.has_legacy_tables(connection)
    found = []
    for name in MONEY:
        after = _pennies(connection, f"{name}_after")
        before = _pennies(connection, f"{name}_before") if both else {}
        for status in sorted({*before, *after}):
            was = before.get(status, (0, 0)) if both else (None, None)
            is_ = after.get(status, (0, 0))
            found.append(
                {
                    "of": name,
                    "title": MONEY[name],
                    "status": status,
                    "rows_before": was[0],
                    "before": was[1],
                    "rows_after": is_[0],
                    "after": is_[1],
                }
            )
    return found


def _pennies(
    connection: BaseDatabaseWrapper, statement: str
) -> dict[str, tuple[int, int | str]]:
    return {
        status: (rows, _whole(pennies))
        for status, rows, pennies in catalog.rows(connection, _statements()[statement])
    }


def _statements() -> Mapping[str, str]:
    return statements(Path(__file__).with_name("report.sql"))


def _whole(pennies: Decimal) -> int | str:
    """A number where it is one; halves of a penny as they are written."""
    if pennies.is_finite() and pennies == pennies.to_integral_value():
        return int(pennies)
    return str(pennies.normalize()) if pennies.is_finite() else str(pennies)
