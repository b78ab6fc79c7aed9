"""The page of a report: one HTML file that needs nothing else, to send or print.

It is made from the data alone and carries it along, so that the same data gives the same
page: that is how an edited one is told (``saved``).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

from django.template.loader import render_to_string

from terrain.legacy.report import diagram
from terrain.progress import duration

TEMPLATE = "legacy/report.html"

#: The id of the element that has the data.
DATA = "report-data"

_MARKS = {
    "blocks": ("bad", "✗ fails"),
    "fails": ("bad", "✗ fails"),
    "warns": ("odd", "! warns"),
    "tells": ("odd", "· tells"),
}


class Unwritable(Exception):
    """The report cannot be written where it was wanted."""


@dataclass(frozen=True)
class Shown:
    """A check as the page shows it: ``mark`` is its class, ``word`` what is read aloud."""

    finding: dict[str, Any]
    mark: str
    word: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: int


def fingerprint() -> str:
    """Of everything but the data that a page is made of."""
    folder = Path(__file__).parent
    template = folder.parent / "templates" / TEMPLATE
    made_of = [folder / "page.py", folder / "diagram.py", template]
    return hashlib.sha256(b"".join(each.read_bytes() for each in made_of)).hexdigest()


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


def write(file: Path, document: dict[str, Any]) -> None:
    """Write the page; a reader sees the old one or the new one, whole.

    Raises :class:`Unwritable`.
    """
    check_writable(file)
    file = file.resolve()
    page = rendered(document)
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


# --- what is shown -------------------------------------------------------------------------


def rendered(document: dict[str, Any]) -> str:
    """The page.  Whatever comes from rows is escaped by the template."""
    checks = sorted(
        map(_shown, document["checks"]), key=lambda each: each.mark == "good"
    )
    moved = document["moved"]
    return render_to_string(
        TEMPLATE,
        {
            **document,
            "at": _moment(document["at"]),
            "migrated_at": _moment(document["migrated_at"]),
            "checks": checks,
            "failures": sum(each.mark == "bad" for each in checks),
            "diagram": diagram.drawn(moved, document["tables"]) if moved else "",
            "moved": [_grouped(each) for each in moved],
            "quarantined": [_grouped(each) for each in document["quarantined"]],
            "rows": f"{sum(each['rows'] or 0 for each in moved):,}",
            "figures": list(_figures(document)),
            "money": list(_money(document)),
            "times": list(_times(document)),
            "data_id": DATA,
            # One line, and what is beyond ASCII escaped: no editor or mail changes it.
            "data": json.dumps(document),
        },
    )


def _grouped(row: dict[str, Any]) -> dict[str, Any]:
    """The same with whole numbers as they are read: 500,000."""
    return {
        name: f"{value:,}" if isinstance(value, int) else value
        for name, value in row.items()
    }


def _moment(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None


def _figures(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The four numbers somebody in a hurry looks for, each with what it is."""
    moved = document["moved"]
    if moved:
        total = sum(each["rows"] or 0 for each in moved)
        yield f"{total:,}", "old rows accounted for"
    orders = [each for each in document["money"] if each["of"] == "orders"]
    if orders:
        after = sum(Decimal(each["after"]) for each in orders)
        known = all(each["before"] is not None for each in orders)
        same = known and all(each["before"] == each["after"] for each in orders)
        yield pounds(after), (
            "in orders, as before, to the penny" if same else "in orders"
        )
    waiting = sum(each["rows"] - each["decided"] for each in document["quarantined"])
    yield f"{waiting:,}", f"{'row' if waiting == 1 else 'rows'} that somebody should look at"
    seconds = sum(
        each["seconds"]
        for each in document["times"]
        if each["step"].startswith(("move ", "copy "))
    )
    if seconds:
        yield duration(seconds) if seconds >= 1 else "1 s", "of moving and copying"


def _money(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of the table of money: each status, and then all of a kind together."""
    for title, group in groupby(document["money"], key=lambda each: each["title"]):
        rows = list(group)
        for number, each in enumerate(rows):
            yield _line(title if number == 0 else "", each["status"] or "–", [each])
        if len(rows) > 1:
            yield {**_line("", "together", rows), "is_total": True}


def _line(title: str, status: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    before, after = None, sum(Decimal(each["after"]) for each in rows)
    if all(each["before"] is not None for each in rows):
        before = sum(Decimal(each["before"]) for each in rows)
    change = None if before is None else after - before
    return {
        "title": title,
        "status": status,
        "rows": f"{sum(each['rows_after'] for each in rows):,}",
        "before": "–" if before is None else pounds(before),
        "after": pounds(after),
        "is_same": change == 0,
        "change": "" if change is None else pounds(change, sign=True),
    }


def pounds(pennies: int | str | Decimal, *, sign: bool = False) -> str:
    """Pennies as pounds: £1,234.56; a part of a penny is not rounded away."""
    amount = Decimal(pennies) / 100
    if not amount.is_finite():
        return str(pennies)
    places = max(2, -int(amount.normalize().as_tuple().exponent))
    minus = "−" if amount < 0 else "+" if sign and amount > 0 else ""
    return f"{minus}£{abs(amount):,.{places}f}"


def _times(document: dict[str, Any]) -> Iterator[dict[str, str]]:
    for each in document["times"]:
        seconds = each["seconds"]
        yield {
            "step": each["step"],
            "took": duration(seconds) if seconds >= 10 else f"{seconds:.1f} s",
            "rows": f"{each['rows']:,}" if each["rows"] else "",
            "at": f"{_moment(each['finished_at']):%Y-%m-%d %H:%M}",
        }


def _shown(finding: dict[str, Any]) -> Shown:
    mark, word = _MARKS.get(finding["severity"], ("good", "✓ holds"))
    columns = tuple(dict.fromkeys(name for row in finding["rows"] for name in row))
    return Shown(
        finding,
        mark,
        word,
        columns,
        tuple(tuple(row.get(name) for name in columns) for row in finding["rows"]),
        max(0, finding["count"] - len(finding["rows"])),
    )
