"""verify_migration --html: one page, whatever the rows hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from terrain.legacy import checks, cleanup, cut_over, ledger, report
from terrain.legacy.backup import manifest
from terrain.legacy.models import Quarantine
from terrain.legacy.report import page
from terrain.legacy.report.page import pounds
from tests.conftest import Database, Result

pytestmark = pytest.mark.migration

Manage = Callable[..., Result]

#: What a row may hold, for a browser to stumble over.
NASTY = "<script>alert(1)</script>&amp;\"'>{{ 7|add:7 }}{% now 'Y' %}<b>\x1b[31m\u202e"


class Page(HTMLParser):
    """The text of a page, its tables, and whether its tags are closed in order."""

    VOID = {"meta", "br", "rect", "path"}

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.hidden = False
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.hidden = ("hidden", None) in attrs
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, first: str) -> list[list[str]]:
        """The table whose first heading this is."""
        (found,) = (each for each in self.tables if each[0][0] == first)
        return found


def _page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_page(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    result = manage("verify_migration", "--html", file)
    assert result.code == 0, result.out
    assert f"The report is in {file}." in result.out.splitlines()
    shown = _page(file)
    assert shown.tables[0][0] == [
        "legacy table", "new table", "legacy rows", "new rows", "held", "flagged",
    ]  # fmt: skip
    moved = {row[0]: row[1:] for row in shown.tables[0][1:]}
    orders = str(migrated.value("SELECT count(*) FROM public.orders"))
    assert moved["orders"] == ["→ orders, order_items", orders, orders, "0", "0"]
    assert list(moved) == [
        "artists", "assets", "user_tables", "example_tables", "orders", "stripe_transfers",
    ]  # fmt: skip
    checked = checks.verify(connection)
    assert f"✓ All {len(checked.findings)} checks passed." in shown.text
    for finding in checked.findings:
        assert finding.name in shown.text and finding.sentence in shown.text
    assert f"Verification of {migrated.name}" in shown.text
    assert f"PostgreSQL{migrated.value('SHOW server_version')}\n" in shown.text
    assert "None is in quarantine." in shown.text


def test_needs_nothing_else(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    """No script, no image, no font, no address: what is sent is all there is."""
    file = tmp_path / "report.html"
    assert manage("verify_migration", "--html", file).code == 0
    shown = _page(file)
    assert not shown.tags & {"script", "link", "img", "iframe", "object", "a", "form"}
    assert not {name for name, _ in shown.attributes} & {
        "src",
        "href",
        "srcset",
        "style",
    }
    source = file.read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", source)
    assert ("name", "viewport") in shown.attributes  # readable on a phone
    assert "@media print" in source


def test_failures_and_quarantine(
    migrated: Database, manage: Manage, tmp_path: Path
) -> None:
    """A planted fault whose rows hold markup, and held rows that do too."""
    migrated.execute(
        "UPDATE public.user_tables SET table_config = '[]' WHERE id ="
        " (SELECT id FROM public.user_tables ORDER BY id LIMIT 1)"
    )
    Quarantine.objects.update(detail=NASTY)
    # As if somebody had switched the triggers off.
    with migrated.superuser as superuser:
        superuser.execute("ALTER TABLE public.artists DISABLE TRIGGER ALL")
        superuser.execute("UPDATE public.artists SET name = %s", [NASTY])
        superuser.execute("ALTER TABLE public.artists ENABLE TRIGGER ALL")
    file = tmp_path / "report.html"
    assert Quarantine.objects.count() == 1
    result = manage("verify_migration", "--html", file)
    assert result.code == 1
    shown = _page(file)
    assert re.search(r"✗ \d of \d+ checks failed\.", shown.text)
    differing = shown.table("id")
    assert differing[0] == ["id", "legacy", "rebuilt"]
    assert len(differing) == 1 + migrated.value("SELECT count(*) FROM public.artists")
    assert "<script>alert(1)</script>" in differing[1][1]
    (table,) = (each for each in shown.tables if each[0][1] == "kind")
    row = table[1]
    assert [row[0], *row[3:]] == ["user_tables", "1", "0", NASTY]
    assert "script" not in shown.tags


def test_everything_is_escaped(migrated: Database, tmp_path: Path) -> None:
    from terrain.legacy.findings import Finding, Severity

    finding = Finding(
        NASTY, Severity.FAILS, NASTY, NASTY, ({NASTY: NASTY}, {"n": None}), 7
    )
    file = tmp_path / "report.html"
    verification = checks.Verification((finding,), ())
    report.write(file, report.document(connection, verification))
    shown = _page(file)
    assert "✗ 1 of 1 checks failed." in shown.text
    assert shown.text.count(NASTY) == 5
    assert "script" not in shown.tags
    assert shown.table(NASTY) == [[NASTY, "n"], [NASTY, "–"], ["–", "–"]]
    assert report.load(file)["checks"][0]["sentence"] == NASTY
    assert "… and 5 more; verify_migration --json prints all." in shown.text


def test_after_cleanup(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    rows = migrated.value("SELECT count(*) FROM public.orders")
    cleanup.clean_up(connection)
    file = tmp_path / "report.html"
    result = manage("verify_migration", "--html", file)
    assert result.code == 0, result.out
    shown = _page(file)
    assert "legacy tables\ndropped since" in shown.text
    moved = {row[0]: row[1:] for row in shown.tables[0][1:]}
    assert moved["orders"] == ["→ orders, order_items", str(rows), str(rows), "0", "0"]
    assert "Legacy rows are as counted when they were copied." in shown.text


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
    file = tmp_path / "report.html"
    result = manage("verify_migration", "--json", "--html", file)
    document: dict[str, Any] = json.loads(result.out)
    assert document["passed"] and _page(file).tables


# --- the same as data ----------------------------------------------------------------------


def test_as_data(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    """Everything the page shows, and of each table and each kind of money how much."""
    migrated.execute(
        "UPDATE public.stripe_transfers SET amount = 'NaN' WHERE id ="
        " (SELECT min(id::text)::uuid FROM public.stripe_transfers)"
    )
    result = manage("verify_migration", "--json")
    document = json.loads(result.out)
    assert document["report_version"] == 1
    assert document["database"] == migrated.name
    assert document["tables"]["new.orders"]["rows"] == 500
    assert document["tables"]["legacy.orders"]["rows"] == 500
    (moved,) = (each for each in document["moved"] if each["legacy"] == "orders")
    assert (moved["new"], moved["rows"], moved["new_rows"]) == (
        "orders, order_items",
        500,
        500,
    )
    orders = [each for each in document["money"] if each["of"] == "orders"]
    assert sum(each["after"] for each in orders) == migrated.value(
        "SELECT sum((pricing ->> 'total')::numeric * 100)::bigint FROM public.orders"
    )
    for each in document["money"]:
        assert each["before"] == each["after"], each
        assert each["rows_before"] == each["rows_after"], each
    assert [each["reason"] for each in document["quarantined"]] == ["amount_nan"]
    steps = {each["step"]: each["seconds"] for each in document["times"]}
    assert {"copy orders", "verify"} <= set(steps)


def test_the_diagram_has_every_table(
    migrated: Database, manage: Manage, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    assert manage("verify_migration", "--html", file).code == 0
    source = file.read_text(encoding="utf-8")
    svg = source[source.index("<svg") : source.index("</svg>")]
    for name in ("artists", "user_tables", "stripe_transfers", "users", "order_items"):
        assert f">{name}</text>" in svg
    assert '<title id="flow">artists to users; assets to models; ' in svg
    assert svg.count("<path") == 7 + 2  # orders go to two tables; two make customers


@pytest.fixture
def saved(migrated: Database, manage: Manage, tmp_path: Path) -> tuple[Path, Path]:
    """A report as JSON and as a page."""
    as_json, page = tmp_path / "report.json", tmp_path / "report.html"
    result = manage("verify_migration", "--json", "--html", page)
    as_json.write_text(result.out, encoding="utf-8")
    return as_json, page


def test_against_what_has_not_changed(
    saved: tuple[Path, Path], migrated: Database, manage: Manage
) -> None:
    for file in saved:
        digest = report.load(file)["digest"]
        result = manage("verify_migration", "--against", file)
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0].startswith(f"The report is of {migrated.name}, ")
        assert lines[0].endswith(f" UTC, digest {digest}.")
        assert lines[1:] == ["✓ Nothing has changed since."]


def test_against_what_has(
    saved: tuple[Path, Path], migrated: Database, manage: Manage
) -> None:
    """Per table, and in pennies."""
    migrated.execute(
        "UPDATE public.stripe_transfers SET amount = amount + 1.25, status = 'completed'"
        " WHERE id = (SELECT min(id::text)::uuid FROM public.stripe_transfers"
        "              WHERE status = 'completed')"
    )
    migrated.execute("DELETE FROM public.user_tables WHERE name = 'Table 3'")
    then = report.load(saved[0])
    (before,) = (
        each["after"]
        for each in then["money"]
        if (each["of"], each["status"]) == ("payments", "completed")
    )
    result = manage("verify_migration", "--against", saved[1])
    assert (result.code, result.err) == (1, "")
    rows = migrated.value("SELECT count(*) FROM public.user_tables")
    assert result.out.splitlines()[1:] == [
        "! legacy.stripe_transfers has as many rows as it had, and other values in them.",
        f"! legacy.user_tables has {rows} rows and had 200 ({rows - 200:+}).",
        "! new.payments has as many rows as it had, and other values in them.",
        f"! new.tables has {rows + 5} rows and had 205 ({rows - 200:+}).",
        f"! Payments to artists, completed: {pounds(before + 125)} and was {pounds(before)}"
        " (+125 pennies).",
        "Different since: 5.",
    ]
    document = json.loads(
        manage("verify_migration", "--against", saved[1], "--json").out
    )
    assert document["digest"] == then["digest"]
    assert document["differences"][-1]["then"] == before
    assert document["differences"][-1]["now"] == before + 125


def test_against_after_cleanup(
    saved: tuple[Path, Path], migrated: Database, manage: Manage
) -> None:
    cut_over.cut_over(connection)
    unchanged = manage("verify_migration", "--against", saved[0])
    assert (unchanged.code, unchanged.err) == (0, ""), unchanged.out
    cleanup.clean_up(connection)
    result = manage("verify_migration", "--against", saved[0])
    assert result.code == 1
    assert "! legacy.orders is gone; it had 500 rows." in result.out.splitlines()
    assert result.out.endswith("Different since: 6.\n")


def test_against_a_report_of_the_version_before(
    saved: tuple[Path, Path], migrated: Database, manage: Manage
) -> None:
    """It calls the new tables by the schema that they were in then."""
    document = report.load(saved[0])
    document["tables"] = {
        name.replace("new.", "public."): each
        for name, each in document["tables"].items()
    }
    assert "public.orders" in document["tables"]
    document["digest"] = manifest.digest(document)
    saved[0].write_text(json.dumps(document), encoding="utf-8")
    result = manage("verify_migration", "--against", saved[0])
    assert (result.code, result.err) == (0, ""), result.out


ALTERED = "has been changed since it was written: its {} Nothing was compared.\n"
DIGEST = "digest is not that of its content."
TEXT = "text is not what its data says."
NO_REPORT = (
    "is no report, or not a whole one. Give the file that verify_migration --json or --html"
    " has written.\n"
)


@pytest.mark.parametrize(
    ("kind", "was", "is_", "sentence"),
    [
        (0, '"rows": 500', '"rows": 501', ALTERED.format(DIGEST)),
        (0, '"passed": true', '"passed": false', ALTERED.format(DIGEST)),
        (0, '"digest": "', '"digest": "0', ALTERED.format(DIGEST)),
        (0, '"report_version": 1,', "", NO_REPORT),
        (0, "{", "[", NO_REPORT),
        (1, "&quot;rows&quot;: 500", "&quot;rows&quot;: 501", ALTERED.format(DIGEST)),
        (1, "All 26 checks passed", "All 27 checks passed", ALTERED.format(TEXT)),
        (1, '<pre id="report-data"', '<pre id="other"', NO_REPORT),
        (
            0,
            '"report_version": 1,',
            '"report_version": 2,',
            "has version 2, and this project reads up to version 1. Use the version of the"
            " project that wrote it.\n",
        ),
    ],
)
def test_an_edited_report_is_refused(
    saved: tuple[Path, Path],
    manage: Manage,
    kind: int,
    was: str,
    is_: str,
    sentence: str,
) -> None:
    file = saved[kind]
    text = file.read_text(encoding="utf-8")
    assert was in text
    file.write_text(text.replace(was, is_, 1), encoding="utf-8")
    assert manage("verify_migration", "--against", file) == Result(
        2, "", f"{file} {sentence}"
    )


def test_a_page_of_another_version_is_known_by_its_data(
    saved: tuple[Path, Path], manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "fingerprint", lambda: "of a later page")
    assert manage("verify_migration", "--against", saved[1]).code == 0


def test_no_file(migrated: Database, manage: Manage, tmp_path: Path) -> None:
    file = tmp_path / "missing.json"
    assert manage("verify_migration", "--against", file).err == (
        f"{file} cannot be read (No such file or directory). Give the file that"
        " verify_migration --json or --html has written.\n"
    )


@pytest.mark.parametrize(
    ("pennies", "said"),
    [
        (123456, "£1,234.56"),
        (-5, "−£0.05"),
        (0, "£0.00"),
        ("0.5", "£0.005"),
        ("NaN", "NaN"),
        (10**15, "£10,000,000,000,000.00"),
    ],
)
def test_pounds(pennies: int | str, said: str) -> None:
    assert pounds(pennies) == said
