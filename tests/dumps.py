"""What is in a database, as text that can be compared."""

from __future__ import annotations

import re
import subprocess

from terrain.embedded import binaries
from terrain.legacy.catalog import NEW_TABLES
from tests.conftest import Database

#: Random, or the time of the run.
VOLATILE = ("session_token", "found_at", "last_seen", "counted_at")
#: What ``pg_dump`` writes that says nothing about the database.
_NOISE = re.compile(r"^(--.*|\\(un)?restrict .*|SET .*|SELECT pg_catalog\..*|)$")


def schema(database: Database, *options: str) -> list[str]:
    """The definitions of everything, owners and grants included, as pg_dump has them."""
    dumped = subprocess.run(
        [
            str(binaries(database.cluster.version) / "pg_dump"),
            "--schema-only",
            *options,
            database.cluster.dsn(database.name, "postgres"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line for line in dumped.stdout.splitlines() if not _NOISE.match(line)]


def rows(database: Database, table: str) -> list[str]:
    """The rows of a table, in order, without what no two runs have alike."""
    return [
        text
        for (text,) in database.rows(
            f"SELECT (to_jsonb(t) - %s::text[])::text FROM {table} t ORDER BY 1",
            list(VOLATILE),
        )
    ]


def contents(database: Database) -> dict[str, list[str]]:
    """The rows of the new tables and of the quarantine."""
    tables = {table: rows(database, f"public.{table}") for table in NEW_TABLES}
    tables["legacy_quarantine"] = [
        text
        for (text,) in database.rows(
            "SELECT (to_jsonb(q) - '{id,found_at}'::text[])::text"
            "  FROM public.legacy_quarantine q ORDER BY 1"
        )
    ]
    return tables


def schemas(database: Database) -> set[str]:
    """The schemas that are not PostgreSQL's own."""
    return {
        name
        for (name,) in database.rows(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'"
            " AND nspname <> 'information_schema'"
        )
    }
