"""What is in a database, as text that can be compared."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

from terrain.embedded import OWNER, binaries
from terrain.legacy.catalog import NEW_TABLES
from tests.conftest import Database

#: Random, or the time of the run.
VOLATILE = ("session_token", "found_at", "last_seen", "counted_at")
#: What ``pg_dump`` writes that says nothing about the database.
_NOISE = re.compile(r"^(--.*|\\(un)?restrict .*|SET .*|SELECT pg_catalog\..*|)$")

#: Databases as an earlier version left them; the README beside them says what is in them.
BEFORE_CUT_OVER = Path(__file__).with_name("kept") / "migrated-before-cut-over"


def restore(database: Database, name: str, user: str = OWNER) -> None:
    """Load ``migrated`` or ``rolled-back`` into an empty database, which ``user`` owns."""
    dumped = gzip.decompress((BEFORE_CUT_OVER / f"{name}.sql.gz").read_bytes())
    psql = [str(binaries(database.cluster.version) / "psql"), "--no-psqlrc", "--quiet"]
    psql += ["--set=ON_ERROR_STOP=1", "--single-transaction", "--output=/dev/null"]
    psql += [f"--dbname={database.cluster.dsn(database.name, user)}"]
    subprocess.run(psql, input=dumped, check=True)
    with database.connect(user) as owner:
        owner.execute(
            f"ALTER DATABASE {database.name} SET search_path = legacy, public"
        )


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


def place_of(database: Database) -> str:
    """The schema of the new tables."""
    is_before = database.value("SELECT to_regclass('terrain.users') IS NOT NULL")
    return "terrain" if is_before else "public"


def contents(database: Database) -> dict[str, list[str]]:
    """The rows of the new tables and of the quarantine."""
    there = place_of(database)
    tables = {table: rows(database, f"{there}.{table}") for table in NEW_TABLES}
    tables["legacy_quarantine"] = [
        text
        for (text,) in database.rows(
            "SELECT (to_jsonb(q) - '{id,found_at}'::text[])::text"
            f"  FROM {there}.legacy_quarantine q ORDER BY 1"
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
