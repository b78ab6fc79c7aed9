"""verify_migration --html: one page, whatever the rows hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from terrain.legacy import checks, cleanup, ledger, report
from terrain.legacy.models import Quarantine
from tests.conftest import Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

#: What a row may hold, for a browser to stumble over.
NASTY = "<script>alert(1)</script>&amp;\"'>{{ 7|add:7 }}{% now 'Y' %}<b>\x1b[31m\u202e"


class Page(HTMLParser):
    """The text of a page, its tables, and whether its tags are closed in order."""

    VOID = {"meta", "br"}

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def _page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_page(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    result = manage("verify_migration", "--html", file)
    assert result.code == 0, result.out
    assert f"The report is in {file}." in result.out.splitlines()
    page = _page(file)
    assert page.tables[0][0] == [
        "legacy table", "new table", "legacy rows", "new rows", "held", "flagged",
    ]  # fmt: skip
    moved = {row[0]: row[1:] for row in page.tables[0][1:]}
    orders = str(migrated.value("SELECT count(*) FROM legacy.orders"))
    assert moved["orders"] == ["→ orders, order_items", orders, orders, "0", "0"]
    assert list(moved) == [
        "artists", "assets", "user_tables", "example_tables", "orders", "stripe_transfers",
    ]  # fmt: skip
    checked = checks.verify(connection)
    assert f"✓ All {len(checked.findings)} checks passed." in page.text
    for finding in checked.findings:
        assert finding.name in page.text and finding.sentence in page.text
    assert f"Verification of {migrated.name}" in page.text
    assert f"PostgreSQL {migrated.value('SHOW server_version')}" in page.text
    assert "None is in quarantine." in page.text


def test_needs_nothing_else(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    """No script, no image, no font, no address: what is sent is all there is."""
    file = tmp_path / "report.html"
    assert manage("verify_migration", "--html", file).code == 0
    page = _page(file)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "a", "form"}
    assert not {name for name, _ in page.attributes} & {
        "src",
        "href",
        "srcset",
        "style",
    }
    source = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", source)
    assert ("name", "viewport") in page.attributes  # readable on a phone
    assert "@media print" in source


def test_failures_and_quarantine(
    migrated: Database, manage: Manage, tmp_path: Path
) -> None:
    """A planted fault whose rows hold markup, and held rows that do too."""
    migrated.execute(
        "UPDATE legacy.user_tables SET table_config = '[]' WHERE id ="
        " (SELECT id FROM legacy.user_tables ORDER BY id LIMIT 1)"
    )
    Quarantine.objects.update(detail=NASTY)
    # As if somebody had switched the triggers off.
    with migrated.superuser as superuser:
        superuser.execute("ALTER TABLE legacy.artists DISABLE TRIGGER ALL")
        superuser.execute("UPDATE legacy.artists SET name = %s", [NASTY])
        superuser.execute("ALTER TABLE legacy.artists ENABLE TRIGGER ALL")
    file = tmp_path / "report.html"
    assert Quarantine.objects.count() == 1
    result = manage("verify_migration", "--html", file)
    assert result.code == 1
    page = _page(file)
    assert re.search(r"✗ \d of \d+ checks failed\.", page.text)
    differing = page.tables[1]
    assert differing[0] == ["id", "legacy", "rebuilt"]
    assert len(differing) == 1 + migrated.value("SELECT count(*) FROM legacy.artists")
    assert "<script>alert(1)</script>" in differing[1][1]
    row = page.tables[-1][1]
    assert row[:2] + row[3:] == ["user_tables", "held", "1", "0", NASTY]
    assert "script" not in page.tags


def test_everything_is_escaped(migrated: Database, tmp_path: Path) -> None:
    from terrain.legacy.findings import Finding, Severity

    finding = Finding(
        NASTY, Severity.FAILS, NASTY, NASTY, ({NASTY: NASTY}, {"n": None}), 7
    )
    file = tmp_path / "report.html"
    report.write(file, connection, checks.Verification((finding,), ()))
    page = _page(file)
    assert "✗ 1 of 1 checks failed." in page.text
    assert page.text.count(NASTY) == 5
    assert "script" not in page.tags
    assert page.tables[1] == [[NASTY, "n"], [NASTY, "–"], ["–", "–"]]
    assert "… and 5 more; verify_migration --json prints all." in page.text


def test_after_cleanup(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    rows = migrated.value("SELECT count(*) FROM legacy.orders")
    cleanup.clean_up(connection)
    file = tmp_path / "report.html"
    result = manage("verify_migration", "--html", file)
    assert result.code == 0, result.out
    page = _page(file)
    assert "legacy tables\ndropped since" in page.text
    moved = {row[0]: row[1:] for row in page.tables[0][1:]}
    assert moved["orders"] == ["→ orders, order_items", str(rows), str(rows), "0", "0"]
    assert "Legacy rows are as counted when they were copied." in page.text


def test_database_that_was_new(empty: Database, manage: Manage, tmp_path: Path) -> None:
    assert manage("migrate", "-v0").code == 0
    file = tmp_path / "report.html"
    assert manage("verify_migration", "--html", file).code == 0
    assert "There were no legacy tables: the database was made new." in _page(file).text


def test_file_that_cannot_be_written(
    migrated: Database, manage: Manage, tmp_path: Path
) -> None:
    """Said before anything is verified."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    before = ledger.last("verify")
    for name, why in {
        "missing/report.html": " (No such file or directory). Name another file",
        ".": ": it is no ordinary file. Name another one",
        "fifo": ": it is no ordinary file. Name another one",
        "file/report.html": " (Not a directory). Name another file",
    }.items():
        result = manage("verify_migration", "--html", tmp_path / name)
        file = (tmp_path / name).resolve()
        assert (result.code, result.out, result.err) == (
            2,
            "",
            f"The report cannot be written to {file}{why} with --html.\n",
        )
    assert ledger.last("verify") == before


def test_disk_full_at_the_end(
    migrated: Database, manage: Manage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.html"
    file.write_text("the one before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = manage("verify_migration", "--html", file)
    assert (result.code, result.err) == (
        2,
        f"The report cannot be written to {file} (No space left on device). Name another"
        " file with --html.\n",
    )
    assert file.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [file]


def test_takes_the_place_of_the_one_before(
    migrated: Database, manage: Manage, tmp_path: Path
) -> None:
    target, link = tmp_path / "report.html", tmp_path / "link.html"
    link.symlink_to(target)
    for _ in range(2):
        assert manage("verify_migration", "--html", link, "-v0").out == ""
    assert link.is_symlink() and _page(target).tables
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_json_and_html(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    import json

    file = tmp_path / "report.html"
    result = manage("verify_migration", "--json", "--html", file)
    document: dict[str, Any] = json.loads(result.out)
    assert document["passed"] and _page(file).tables
