"""A server of a test's own with a standby, and an archive that works or does not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings

from terrain.embedded import Cluster, binaries
from tests.waiting import until

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "min_wal_size": "32MB",
    "max_prepared_transactions": "4",
}
#: What the standby calls itself, and its slot.
NAME, SLOT = "near", "near_slot"


@dataclass
class Pair:
    """A primary and its hot standby."""

    primary: Cluster
    standby: Cluster

    def ask(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Have the primary's superuser run a statement."""
        return _run(self.primary, statement, params)

    def ask_standby(self, statement: str) -> list[tuple[Any, ...]]:
        return _run(self.standby, statement, ())

    def set(self, name: str, value: str) -> None:
        """Change a setting of the primary's, and wait until it is in force."""
        self.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("SELECT pg_reload_conf()")
        until(lambda: self.ask(f"SHOW {name}") == [(value,)])

    @contextmanager
    def replay_paused(self) -> Iterator[None]:
        self.ask_standby("SELECT pg_wal_replay_pause()")
        until(
            lambda: self.ask_standby("SELECT pg_get_wal_replay_pause_state()")
            == [("paused",)]
        )
        try:
            yield
        finally:
            self.ask_standby("SELECT pg_wal_replay_resume()")

    def wait_until_replayed(self) -> None:
        ((position,),) = self.ask("SELECT pg_current_wal_lsn()::text")
        until(
            lambda: self.ask_standby(
                f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
            )
            == [(True,)]
        )


def _run(cluster: Cluster, statement: str, params: tuple[Any, ...]) -> Any:
    with psycopg.connect(
        cluster.dsn("postgres", "postgres"), autocommit=True
    ) as superuser:
        done = superuser.execute(statement, params or None)  # type: ignore[arg-type]
        return done.fetchall() if done.description else []


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    """Both started, in step; the primary archives while its data has a file ``archives``."""
    version = settings.CLUSTER.version
    primary = Cluster(
        folder / "primary",
        version,
        {**FAST, "archive_mode": "on", "archive_command": "test -f archives"},
    )
    standby = Cluster(folder / "standby", version, {**FAST, "hot_standby": "on"})
    try:
        primary.start()
        (primary.folder / "data" / "archives").touch()
        with (primary.folder / "pg_hba.conf").open("a") as access:
            access.write("local replication all peer map=embedded\n")
        _run(primary, "SELECT pg_reload_conf()", ())
        until(lambda: _copied(primary, standby))
        standby.start()
        both = Pair(primary, standby)
        until(lambda: both.ask("SELECT 1 FROM pg_stat_replication"))
        yield both
    finally:
        standby.stop()
        primary.stop()


def _copied(primary: Cluster, standby: Cluster) -> bool:
    """Whether a copy could be taken; not before the server lets us."""
    standby.folder.mkdir(exist_ok=True)
    standby.folder.chmod(0o755)
    where = f"{primary.dsn('postgres', 'postgres')} application_name={NAME}"
    known = _run(primary, "SELECT 1 FROM pg_replication_slots", ())
    done = subprocess.run(
        [
            str(binaries(primary.version) / "pg_basebackup"),
            f"--dbname={where}",
            f"--pgdata={standby.folder / 'data'}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            *(() if known else ("--create-slot",)),
            f"--slot={SLOT}",
        ],
        capture_output=True,
        text=True,
    )
    return done.returncode == 0
