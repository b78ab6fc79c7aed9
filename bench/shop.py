"""The databases that are measured: shops of any scale, and clones of them.

A shop is generated once and kept as a template, together with its *reference*: the same
legacy tables beside the new schema, empty, with every index and constraint in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from terrain.embedded import OWNER, Cluster
from terrain.legacy.place import AFTER, BEFORE, Place
from terrain.postgresql.schemas import SCHEMA, marked

BASE_DIR = Path(__file__).resolve().parent.parent
#: As PostgreSQL comes: fsync, 128 MB of shared buffers, autovacuum and all.
CLUSTER = Cluster(BASE_DIR / ".postgres-bench")

LEGACY = (
    "artists",
    "assets",
    "user_tables",
    "example_tables",
    "orders",
    "stripe_transfers",
)


class Failed(Exception):
    """A command that was to be measured did not end well."""


@dataclass(frozen=True)
class Run:
    """What a process took: seconds, its largest resident size, and what it reported."""

    seconds: float
    megabytes: float
    said: dict[str, Any]


def connect(name: str, **options: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(CLUSTER.dsn(name), autocommit=True, **options)


def superuser() -> psycopg.Connection[Any]:
    return psycopg.connect(CLUSTER.dsn("postgres", "postgres"), autocommit=True)


def checkpoint() -> None:
    """What came before is on disk: nobody pays for another's pages."""
    with superuser() as connection:
        connection.execute("CHECKPOINT")


def ask(name: str, query: str) -> list[tuple[Any, ...]]:
    with connect(name) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def shop(scale: float) -> str:
    """The name of the legacy shop of this scale, made if it is not there."""

    def fill(name: str) -> None:
        run(name, "manage.py", "load_sample", "--scale", str(scale))

    return _template(
        f"shop_{_suffix(scale)}", ["terrain/legacy/sample/*.*"], "template0", fill
    )


def reference(scale: float) -> str:
    """The same shop, its tables in ``legacy``, beside the new schema as it ends up."""

    def fill(name: str) -> None:
        # Out of the project's sight, so that it makes the new schema of an empty database.
        with connect(name) as connection:
            connection.execute("CREATE SCHEMA aside")
            for table in LEGACY:
                connection.execute(f"ALTER TABLE {table} SET SCHEMA aside")
        run(name, "manage.py", "migrate", "--verbosity", "0")
        with connect(name) as connection:
            connection.execute("ALTER SCHEMA aside RENAME TO legacy")

    made_from = ["terrain/legacy/sample/*.*", "*/migrations/*.*", "*/*/migrations/*.*"]
    return _template(f"reference_{_suffix(scale)}", made_from, shop(scale), fill)


def _suffix(scale: float) -> str:
    return f"{scale:g}".replace(".", "_").replace("-", "_")


def _template(
    name: str, made_from: list[str], source: str, fill: Callable[[str], None]
) -> str:
    """A database by this name and the digest of what it is made from; older ones go."""
    digest = hashlib.sha256()
    for path in sorted(path for glob in made_from for path in BASE_DIR.glob(glob)):
        if path.suffix in (".py", ".sql"):
            digest.update(path.read_bytes())
    current = f"{name}_at_{digest.hexdigest()[:8]}"
    with connect("postgres") as connection:
        there = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)",
            [f"{name}_at_"],
        ).fetchall()
    for (other,) in there:
        if other != current:
            _drop(other)
    if (current,) not in there:
        _create(current, source)
        try:
            fill(current)
        except BaseException:
            _drop(current)
            raise
    return current


def _create(name: str, source: str) -> None:
    with connect("postgres") as connection:
        connection.execute(
            # FILE_COPY writes no log of what it copies: nothing for the checkpointer
            # to catch up with while the clone is measured.
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(source)
            )
        )


def _drop(name: str) -> None:
    # Autovacuum may be at it, which only a superuser may stop.
    with superuser() as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(name)
            )
        )


@contextmanager
def clone(template: str, suffix: str = "") -> Iterator[str]:
    """A database to measure in, gone afterwards; ``suffix`` tells a second one apart."""
    name = f"bench_{os.getpid()}{suffix and '_' + suffix}"
    _drop(name)
    _create(name, template)
    try:
        yield name
    finally:
        _drop(name)


@contextmanager
def empty() -> Iterator[str]:
    """A database with nothing in it, gone afterwards."""
    with clone("template0") as name:
        yield name


def address(database: str) -> str:
    """The URL of a database, for DATABASE_URL."""
    return f"postgresql://{OWNER}@/{database}?host={quote(str(CLUSTER.socket_dir), safe='')}"


def run(database: str, *arguments: str) -> Run:
    """Run Python in a process of its own, with this database for its own.

    What it writes to the file that BENCH_REPORT names, as JSON, comes back with the Run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        output = Path(folder, "output")
        environment = {
            **os.environ,
            "DATABASE_URL": address(database),
            "DJANGO_SETTINGS_MODULE": "terrain.settings",
            "BENCH_REPORT": str(report),
        }
        started = time.perf_counter()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=BASE_DIR,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            # Of this one process; getrusage would give the largest of all so far.
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Failed(f"{' '.join(arguments)}: {output.read_text()[-20_000:]}")
        said = json.loads(report.read_text()) if report.exists() else {}
    return Run(seconds, usage.ru_maxrss / 1024, said)


def place(connection: psycopg.Connection[Any]) -> Place:
    """Where the tables of a migrated shop are: before a cut-over or after it."""
    ((comment,),) = connection.execute(
        "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", [SCHEMA]
    ).fetchall()
    return BEFORE if marked(comment) == BEFORE.own else AFTER


def rows(database: str, *tables: str) -> int:
    """How many rows these tables have together."""
    return sum(
        int(ask(database, f"SELECT count(*) FROM {table}")[0][0]) for table in tables
    )


def size(database: str, schema: str, tables: tuple[str, ...]) -> int:
    """Bytes of these tables with their indexes."""
    names = ", ".join(f"'{schema}.{table}'" for table in tables)
    query = (
        f"SELECT sum(pg_total_relation_size(t::regclass)) FROM unnest(ARRAY[{names}]) t"
    )
    return int(ask(database, query)[0][0])
