"""The server is stopped at once, at any point of any command; the same command finishes.

On a server of its own.  The commands come one after another, as in the guide; each is
stopped once, from the state that the one before it has made.  KILLS=250 looks at every
commit of each.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from terrain.embedded import OWNER, Cluster
from terrain.legacy.catalog import LEDGER_TABLES
from tests import dumps
from tests.conftest import Database
from tests.legacy import artist, insert, legacy_schema, order, table
from tests.settings import CLUSTER, POSTGRES
from tests.small import SMALL_SHOP

pytestmark = pytest.mark.migration

#: The database that is worked on: a backup is of a name.
SHOP = "shop"

#: The guide and the way back, in an order in which each has something to do.
COMMANDS = (
    ("migrate", "-v0"),
    ("settle", "-v0"),
    ("copy_models_to_assets", "-v0"),
    ("rollback_migration", "--yes", "-v0"),
    ("upgrade", "-v0"),
    ("cut_over", "--yes", "--ignore-activity", "-v0"),
    ("prepare_database",),
    ("prepare_database", "--undo"),
    ("cut_over", "--undo", "--yes", "-v0"),
    ("upgrade", "--cut-over", "-v0"),
    ("cleanup_legacy", "--yes", "-v0"),
)


@dataclass
class Server:
    """A server that may be stopped at any time, and the databases on it."""

    cluster: Cluster
    backups: Path

    def administer(self, statement: str) -> None:
        with psycopg.connect(
            self.cluster.dsn("postgres", "postgres"), autocommit=True
        ) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def put(self, source: str, name: str) -> Database:
        """Make ``name`` a copy of ``source``."""
        self.administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        # Copied page by page (WAL_LOG), a sequence comes with what is logged ahead of it in
        # the source only: after a crash it would begin where it was when it was copied.
        self.administer(
            f"CREATE DATABASE {name} TEMPLATE {source} OWNER {OWNER} STRATEGY FILE_COPY"
        )
        # What is set for a database is no part of it.
        for (path,) in Database(self.cluster, "postgres").rows(
            "SELECT split_part(c, '=', 2) FROM pg_db_role_setting s"
            "  JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c"
            " WHERE d.datname = %s AND starts_with(c, 'search_path=')",
            source,
        ):
            self.administer(f"ALTER DATABASE {name} SET search_path = {path}")
        return Database(self.cluster, name)

    def run(
        self,
        *command: str,
        stop: int = 0,
        moment: str = "after",
        backups: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "SERVER": str(self.cluster.folder),
            "MOMENT": moment,
            "BACKUP_DIR": str(backups or self.backups),
        }
        return subprocess.run(
            [sys.executable, "-m", "tests.killed", SHOP, str(stop), *command],
            capture_output=True,
            text=True,
            env=environment,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("stopped")
    # What was committed is to be there afterwards; nobody pulls the plug, so no fsync.
    settings = {**CLUSTER.settings, "synchronous_commit": "on"}
    cluster = Cluster(folder / "server", POSTGRES, settings)
    cluster.start()
    made = Server(cluster, folder / "backups")
    made.administer("CREATE ROLE shop_app LOGIN")
    yield made
    cluster.start()  # as a test that failed may have left it stopped
    cluster.stop()


@pytest.fixture(scope="module")
def before(server: Server) -> dict[tuple[str, ...], str]:
    """Command -> a database in the state in which it is run."""
    database = server.put("template0", SHOP)
    with database.connect(OWNER, "public") as owner:
        legacy_schema(owner)
        insert(owner, *SMALL_SHOP)
    states = {}
    for number, command in enumerate(COMMANDS):
        happens_meanwhile(server, command[0])
        states[command] = f"state_{number}"
        server.put(SHOP, states[command])
        done = server.run(*command)
        assert done.returncode == 0, done.stderr
    return states


def happens_meanwhile(server: Server, command: str) -> None:
    """What gives the command something to do."""
    database = Database(server.cluster, SHOP)
    if command == "settle":
        with database.connect("shop_app", "public") as old:
            insert(old, artist("#late", "buys1@shop.example"))
            insert(old, *(order(f"#late{n}", email=f"l{n}@at.example") for n in (1, 2)))
            insert(old, table("#latetable", "late@at.example"))
    if command == "cleanup_legacy":
        database.execute("UPDATE legacy_quarantine SET decided_at = now()")
        done = server.run("backup_database", "-v0")
        assert done.returncode == 0, done.stderr


#: Of the ledger, or the time of a run.
NOT_COMPARED = {*LEDGER_TABLES, "django_migrations"}


def contents(database: Database) -> dict[str, Any]:
    """Every row of every table, without what no two runs have alike."""
    found: dict[str, Any] = {
        f"{schema}.{name}": dumps.rows(database, f"{schema}.{name}")
        for schema, name in database.rows(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN"
            " ('public', 'terrain', 'legacy', 'rebuilt', 'legacy_parked') ORDER BY 1, 2"
        )
        if name not in NOT_COMPARED
    }
    there = {"terrain.legacy_quarantine", "public.legacy_quarantine"} & tables(database)
    found["quarantine"] = [
        database.rows(
            "SELECT (to_jsonb(q) - '{id,found_at,decided_at}'::text[])::text"
            f"  FROM {quarantine} q ORDER BY 1"
        )
        for quarantine in there
    ]
    found["paths"] = database.rows(
        "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d"
        " ON d.oid = s.setdatabase WHERE d.datname = current_database()"
    )
    return found


def tables(database: Database) -> set[str]:
    return {
        f"{schema}.{name}"
        for schema, name in database.rows("SELECT schemaname, tablename FROM pg_tables")
    }


def assert_no_batch_was_done_again(database: Database) -> None:
    """Of what was committed: the ranges of a shard follow each other without a gap."""
    if not {"terrain.legacy_batch", "public.legacy_batch"} & tables(database):
        return
    assert (
        database.rows(
            "SELECT * FROM (SELECT b.run_id, b.shard, b.after, lag(b.upto) OVER"
            "   (PARTITION BY b.run_id, b.shard ORDER BY b.id) AS before"
            "   FROM legacy_batch b) b WHERE b.after <> b.before"
        )
        == []
    )


def sampled(commits: int) -> range:
    """So many of the commits, evenly; one of each command unless KILLS asks for more."""
    number = int(os.environ.get("KILLS", "1"))
    step = max(1, commits // number)
    return range(1 + step // 2, commits + 1, step)


#: What is said when it happens, and then what is to be done.
SENTENCE = re.compile(
    r"The database cannot be used: [^\n]+\. (Run the same command again when it can|"
    r"Is the server running, and are host and port in DATABASE_URL right\?|"
    r"Wait until the server is up, then run it again)\.?\n"
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_stopped_at_any_point_the_same_command_finishes(
    server: Server,
    before: dict[tuple[str, ...], str],
    command: tuple[str, ...],
    tmp_path: Path,
) -> None:
    # Of upgrade's own each time, or none would have a backup to make.
    is_upgrade = command[0] == "upgrade"
    backups = tmp_path / "undisturbed" if is_upgrade else None
    database = server.put(before[command], SHOP)
    done = server.run(*command, backups=backups)
    assert (done.returncode, done.stderr) == (0, "")
    commits = int(done.stdout.split()[-1])
    assert commits > 0
    undisturbed = contents(database), dumps.schema(database)
    for number, stop in enumerate(sampled(commits)):
        moment = ("during", "before", "after")[(number + len(command)) % 3]
        backups = tmp_path / str(stop) if is_upgrade else None
        server.put(before[command], SHOP)
        stopped = server.run(*command, stop=stop, moment=moment, backups=backups)
        where = f"{moment} commit {stop} of {commits}"
        server.cluster.start()
        # Stopped after the last statement, nobody notices.
        if stopped.returncode != 0 or stop < commits - 1:
            assert stopped.returncode == 2, f"{where}: {stopped}"
            assert SENTENCE.fullmatch(stopped.stderr), f"{where}: {stopped.stderr}"
        again = server.run(*command, backups=backups)
        assert (again.returncode, again.stderr) == (0, ""), f"{where}: {again.stderr}"
        assert (contents(database), dumps.schema(database)) == undisturbed, where
        assert_no_batch_was_done_again(database)
