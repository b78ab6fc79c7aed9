"""A report that was saved: read again, and compared with the database as it is now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from terrain.legacy import usage
from terrain.legacy.backup import manifest
from terrain.legacy.report import content, page
from terrain.legacy.report.content import VERSION, Document
from terrain.postgresql.schemas import PUBLIC
from terrain.words import counted


class Altered(Exception):
    """The file is no report, or no longer the one that was written; the sentence says why."""


@dataclass(frozen=True)
class Difference:
    """What is another than it was: ``what`` is a table, or money; the sentence says how.

    ``then`` and ``now`` are rows or pennies.
    """

    what: str
    then: int | str | None
    now: int | str | None
    sentence: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


# --- reading -------------------------------------------------------------------------------


class _Embedded(HTMLParser):
    """The data that a page carries."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = self.inside or ("id", page.DATA) in attrs

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.data += data


def load(file: Path) -> Document:
    """The report in a file, JSON or HTML.  Raises :class:`Altered`.

    The digest tells what was changed by accident or in passing.  It is no signature: who
    means to deceive can compute another, so note it elsewhere if that matters.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Altered(
            f"{file} cannot be read ({why}). Give the file that verify_migration --json or"
            " --html has written."
        ) from error
    is_page = text.lstrip().startswith("<")
    found = _parsed(file, _embedded(text) if is_page else text)
    if found["digest"] != manifest.digest(_without_digest(found)):
        raise Altered(
            f"{file} has been changed since it was written: its digest is not that of its"
            " content. Nothing was compared."
        )
    if is_page and found.get("page") == page.fingerprint():
        if page.rendered(found) != text:
            raise Altered(
                f"{file} has been changed since it was written: its text is not what its"
                " data says. Nothing was compared."
            )
    return found


def _embedded(text: str) -> str:
    parser = _Embedded()
    parser.feed(text)
    return parser.data


def _parsed(file: Path, text: str) -> Document:
    try:
        found = json.loads(text)
        version = found["report_version"]
        found["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise Altered(
            f"{file} is no report, or not a whole one. Give the file that verify_migration"
            " --json or --html has written."
        ) from error
    if version > VERSION:
        raise Altered(
            f"{file} has version {version}, and this project reads up to version {VERSION}."
            " Use the version of the project that wrote it."
        )
    return dict(found)


def _without_digest(found: Document) -> Document:
    return {key: value for key, value in found.items() if key != "digest"}


# --- comparing -----------------------------------------------------------------------------


def differences(connection: BaseDatabaseWrapper, then: Document) -> list[Difference]:
    """What has changed in the database since the report: tables first, then money."""
    with usage.ours(connection):
        tables, money = content.tables(connection), content.money(connection)
    before = {_by_side(name): each for name, each in then["tables"].items()}
    return [*_of_tables(before, tables), *_of_money(then["money"], money)]


def _by_side(name: str) -> str:
    """A table's name in a report; a version before this called the new ones by their schema."""
    schema, _, table = name.partition(".")
    return f"new.{table}" if schema == PUBLIC else name


def _of_tables(then: Document, now: Document) -> Iterator[Difference]:
    for name in sorted({*then, *now}):
        was, is_ = then.get(name), now.get(name)
        if was != is_:
            yield Difference(
                name,
                was["rows"] if was else None,
                is_["rows"] if is_ else None,
                _of_table(name, was, is_),
            )


def _of_table(name: str, was: Document | None, is_: Document | None) -> str:
    if is_ is None:
        return f"{name} is gone; it had {counted(was['rows'] if was else 0, 'row')}."
    if was is None:
        return f"{name} is new, with {counted(is_['rows'], 'row')}."
    if was["rows"] == is_["rows"]:
        return f"{name} has as many rows as it had, and other values in them."
    return (
        f"{name} has {counted(is_['rows'], 'row')} and had {was['rows']:,}"
        f" ({is_['rows'] - was['rows']:+,})."
    )


def _of_money(
    then: list[dict[str, Any]], now: list[dict[str, Any]]
) -> Iterator[Difference]:
    before = {(each["of"], each["status"]): each["after"] for each in then}
    after = {(each["of"], each["status"]): each["after"] for each in now}
    titles = {each["of"]: each["title"] for each in [*then, *now]}
    for of, status in sorted({*before, *after}):
        was, is_ = before.get((of, status), 0), after.get((of, status), 0)
        if was == is_:
            continue
        change = Decimal(is_) - Decimal(was)
        yield Difference(
            f"{of} {status}".strip(),
            was,
            is_,
            f"{titles[of]}, {status or 'without status'}: {page.pounds(is_)} and was"
            f" {page.pounds(was)} ({change:+,f} pennies).",
        )
