"""What stays of the project names no schema of its own tables, because they change theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from terrain.settings import BASE_DIR

#: What goes when the move is over (it deals with both schemas), and what is no part of it.
APART = (
    BASE_DIR / "terrain" / "legacy",
    BASE_DIR / "tests",
    BASE_DIR / "bench",
)

#: A relation or function with its schema before it, be the name filled in later.
PUBLIC = r"""\bpublic"?\.["{%\w]"""
#: ``terrain.`` begins names in Python, and of settings; a table's stands where SQL has one.
OWN = (
    r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|INDEX|EXISTS|FUNCTION|ONLY|ON|USING|CALL|PERFORM"
    r"|REFERENCES)"
    r"""\s+"?terrain"?\.["{%\w]"""
    r"""|(?:to_regclass|to_regproc|to_regprocedure)\(\s*'"?terrain"?\."""
)
#: The catalog asked about what is in one schema.
CATALOG = (
    r"\b(?:nspname|schemaname|\w*_schema)\s*(?:=|<>|IN\b)\s*\(?\s*'(?:public|terrain)'"
    r"|'(?:public|terrain)'\s*::\s*regnamespace"
    r"|to_regnamespace\(\s*'(?:public|terrain)'"
    r"|\bSCHEMA\s+(?:public|terrain)\b"
)
#: The connection's path, which is one place's to choose.
PATH = r"\bsearch_path\b[^\n]*\b(?:public|terrain)\b"

NAMED = re.compile("|".join((PUBLIC, OWN, CATALOG, PATH)))

#: The one place that looks where the tables are.
LOOKS = BASE_DIR / "terrain" / "postgresql"


def permanent(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path in (*APART, LOOKS) or path.name.startswith("."):
            continue
        if path.is_dir():
            yield from permanent(path)
        elif path.suffix in (".py", ".sql"):
            yield path


def test_permanent_code_names_no_schema_of_its_own() -> None:
    files = list(permanent(BASE_DIR))
    assert BASE_DIR / "catalogue" / "assets.sql" in files
    assert BASE_DIR / "catalogue" / "migrations" / "0003_limits.sql" in files
    named = [
        f"{path.relative_to(BASE_DIR)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if NAMED.search(line)
    ]
    assert named == []


@pytest.mark.parametrize(
    "line",
    [
        "SELECT count(*) FROM public.orders o",
        'LOCK TABLE "public"."orders" IN SHARE MODE',
        "to_regclass('public.orders')",
        'f"public.{table}"',
        "UPDATE terrain.orders SET status = 'x'",
        "CREATE TRIGGER x AFTER INSERT ON terrain.orders",
        "SELECT to_regclass('terrain.orders')",
        " WHERE s.nspname = 'public' AND c.relname = %s",
        " WHERE n.nspname IN ('public')",
        "c.relnamespace = 'public'::regnamespace",
        "GRANT USAGE ON SCHEMA public TO somebody",
        "SET search_path = public, pg_temp",
    ],
)
def test_it_is_seen(line: str) -> None:
    assert NAMED.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "from terrain.online import build_index",
        "current_setting('terrain.sync', true) IS DISTINCT FROM 'on'",
        "WHEN 'published' THEN 'public'",
        'PUBLIC = "public"',
        "if self.is_public.something:",
        "LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$",
        "REVOKE ALL ON FUNCTION f() FROM PUBLIC",
    ],
)
def test_nothing_else_is(line: str) -> None:
    assert not NAMED.search(line)
