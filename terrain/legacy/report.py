"""The report of a verification: one HTML page that needs nothing else, to send or print."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Min
from django.template.loader import render_to_string
from django.utils import timezone

from terrain.legacy import catalog, cleanup, copying, guide, ledger
from terrain.legacy.checks import Verification
from terrain.legacy.findings import Finding, Severity
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine

_MARKS = {
    Severity.BLOCKS: ("bad", "✗ fails"),
    Severity.FAILS: ("bad", "✗ fails"),
    Severity.WARNS: ("odd", "! warns"),
    Severity.TELLS: ("odd", "· tells"),
}


class Unwritable(Exception):
    """The report cannot be written where it was wanted."""


@dataclass(frozen=True)
class Row:
    """What became of one legacy table; None: not known any more."""

    legacy: str
    new: str
    rows: int | None
    new_rows: int
    held: int
    flagged: int


@dataclass(frozen=True)
class Shown:
    """A check as the page shows it: ``mark`` is its class, ``word`` what is read aloud."""

    finding: Finding
    mark: str
    word: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: int


def check_writable(file: Path) -> None:
    """See that the report can be written, before hours of work.  Raises :class:`Unwritable`."""
    file = file.resolve()
    if file.exists() and not file.is_file():
        raise Unwritable(
            f"The report cannot be written to {file}: it is no ordinary file. Name another"
            " one with --html."
        )
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name[:50]}."):
            pass
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> Unwritable:
    return Unwritable(
        f"The report cannot be written to {file} ({error.strerror or error}). Name another"
        " file with --html."
    )


def write(file: Path, connection: BaseDatabaseWrapper, result: Verification) -> None:
    """Write the page; a reader sees the old one or the new one, whole.

    Raises :class:`Unwritable`.
    """
    check_writable(file)
    file = file.resolve()
    page = rendered(connection, result)
    aside = ""
    try:
        handle, aside = tempfile.mkstemp(
            dir=file.parent, prefix=f".{file.name[:50]}.", suffix=".partial"
        )
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as out:
            out.write(page)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(
            aside, 0o640
        )  # it quotes rows; mkstemp's own mode would hide it from groups
        os.replace(aside, file)
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        with suppress(OSError):
            os.unlink(aside)


def rendered(connection: BaseDatabaseWrapper, result: Verification) -> str:
    """The page.  Whatever comes from rows is escaped by the template."""
    moved = list(table_by_table(connection))
    return render_to_string(
        "legacy/report.html",
        {
            "database": connection.settings_dict["NAME"],
            "at": timezone.now(),
            "failures": len(result.failures),
            "checks": [_shown(each) for each in result.findings],
            "moved": moved,
            "rows": sum(each.rows or 0 for each in moved),
            "is_cleaned_up": cleanup.is_cleaned_up(connection),
            "migrated_at": cleanup.migrated_at(connection),
            "quarantined": _quarantined(connection),
            "versions": {
                "PostgreSQL": catalog.value(connection, "SHOW server_version"),
                "Django": django.get_version(),
                "Python": platform.python_version(),
            },
        },
    )


def table_by_table(connection: BaseDatabaseWrapper) -> Iterator[Row]:
    """What was moved where; after cleanup as far as the ledger and the new tables tell."""
    if catalog.is_moved(connection):
        for each in guide.summary(connection):
            yield Row(
                each.legacy,
                each.new,
                each.rows,
                each.new_rows,
                each.held,
                each.flagged,
            )
        return
    for lens in LENSES:
        run = ledger.last(copying.step_name(lens.legacy), connection.alias)
        if run is None:  # never migrated: a database that was new
            continue
        new_rows = catalog.value(
            connection, f"SELECT count(*) FROM public.{lens.new} n WHERE {lens.own}"
        )
        found = Quarantine.objects.using(connection.alias).filter(
            legacy_table=lens.legacy
        )
        yield Row(
            lens.legacy,
            f"{lens.new}, {lens.part.table}" if lens.part else lens.new,
            run.total,
            new_rows,
            found.filter(kind="held").count(),
            found.filter(kind="flagged").count(),
        )


def _shown(finding: Finding) -> Shown:
    mark, word = _MARKS.get(finding.severity, ("good", "✓ holds"))
    columns = tuple(dict.fromkeys(name for row in finding.rows for name in row))
    return Shown(
        finding,
        mark,
        word,
        columns,
        tuple(tuple(row.get(name) for name in columns) for row in finding.rows),
        max(0, finding.count - len(finding.rows)),
    )


def _quarantined(connection: BaseDatabaseWrapper) -> list[dict[str, Any]]:
    """Rows that need a person, by table and reason, with the sentence of one of them."""
    found = (
        Quarantine.objects.using(connection.alias)
        .values("legacy_table", "kind", "reason")
        .annotate(
            number=Count("id"), decided=Count("decided_at"), example=Min("detail")
        )
        .order_by("legacy_table", "kind", "reason")
    )
    return [dict(each) for each in found]
