"""Debian's pgbouncer in front of the test server, in transaction mode, on a socket of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from terrain.embedded import Cluster
from tests.conftest import OLD_ROLE
from tests.waiting import until

PORT = 6543
#: Who may use pgbouncer's own console.
CONSOLE = "console"

CONFIGURATION = """\
[databases]
* = host='{server}' port=5432

[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = trust
auth_file = {folder}/users
admin_users = {console}
pool_mode = transaction
default_pool_size = 3
server_reset_query = DISCARD ALL
logfile = {folder}/log
pidfile = {folder}/pid
"""


def program() -> str | None:
    """Where pgbouncer is: Debian puts it where only root's PATH looks."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class Pooler:
    """A pgbouncer at work, and the connections of its clients."""

    folder: Path
    opened: list[psycopg.Connection[Any]] = field(default_factory=list)

    def connect(self, database: str, user: str = OLD_ROLE) -> psycopg.Connection[Any]:
        """A client's connection, without prepared statements: this pool does not know them."""
        made = psycopg.connect(
            host=str(self.folder),
            port=PORT,
            dbname=database,
            user=user,
            autocommit=True,
            prepare_threshold=None,
        )
        self.opened.append(made)
        return made

    def console(self, command: str) -> list[tuple[Any, ...]]:
        """A command of pgbouncer's own, such as RECONNECT; it knows the simple protocol only."""
        with psycopg.connect(
            host=str(self.folder),
            port=PORT,
            dbname="pgbouncer",
            user=CONSOLE,
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
        ) as connection:
            cursor = connection.execute(command)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


@contextmanager
def in_front_of(cluster: Cluster) -> Iterator[Pooler]:
    """Start it as the server's own user, whom the server admits as any role."""
    found = program()
    if found is None:
        pytest.skip("pgbouncer is not installed; type: apt-get install pgbouncer")
    user = cluster._user()
    try:
        pwd.getpwuid(user)
    except KeyError:
        pytest.skip(f"The test server runs as user id {user}, which has no name.")
    with tempfile.TemporaryDirectory(prefix="pooler-") as name:
        folder = Path(name)
        text = CONFIGURATION.format(
            server=cluster.socket_dir, folder=folder, port=PORT, console=CONSOLE
        )
        (folder / "pgbouncer.ini").write_text(text)
        (folder / "users").write_text(f'"{OLD_ROLE}" ""\n"{CONSOLE}" ""\n')
        if os.geteuid() == 0:
            for path in (folder, *folder.iterdir()):
                os.chown(path, user, -1)
        process = subprocess.Popen(
            [*cluster._become(user), found, str(folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        pooler = Pooler(folder)
        try:
            _wait_until_up(pooler, process)
            yield pooler
        finally:
            for connection in pooler.opened:
                connection.close()
            process.terminate()
            process.wait(10)


def _wait_until_up(pooler: Pooler, process: subprocess.Popen[bytes]) -> None:
    def is_up() -> bool:
        assert process.poll() is None, (pooler.folder / "log").read_text()
        try:
            pooler.console("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True

    until(is_up, "pgbouncer answering", seconds=10)
