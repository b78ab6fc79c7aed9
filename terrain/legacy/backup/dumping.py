"""Makes a backup: a parallel dump and its manifest, both of one moment."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors

from terrain.legacy.backup import fingerprints, manifest, tools
from terrain.legacy.backup.fingerprints import statement
from terrain.legacy.backup.manifest import DUMP, PARTIAL, Backup
from terrain.legacy.backup.server import Connection, Server
from terrain.legacy.backup.tools import Program, Tools

Say = Callable[[str], None]

#: What the folder of a run is called that has not finished: ours to remove, if it is dead.
_LEFTOVER = re.compile(r".+-\d{8}T\d{6}Z(-\d+)?" + re.escape(PARTIAL))

#: Milliseconds pg_dump waits for a table that somebody is altering.
LOCK_WAIT = 60_000


class Unwritable(Exception):
    """The folder for backups cannot be used."""


def take(server: Server, folder: Path, jobs: int, say: Say) -> Backup:
    """Back up the server's database into a new folder inside ``folder``.

    What was killed earlier is removed first.  Raises :class:`Unwritable`,
    :class:`tools.Missing` and :class:`tools.Failed`, and leaves nothing then.
    """
    with server.connect() as connection:
        found = tools.find(server, connection.info.server_version // 10000)
        taken_at = datetime.datetime.now(datetime.UTC)
        try:
            with _partial(folder, _name(server.database, taken_at), say) as partial:
                dump = _Dump(server, connection, found, partial.path, jobs, say)
                content = dump.run(partial.lock)
                content["taken_at"] = taken_at.isoformat()
                manifest.write_manifest(partial.path, content)
                return Backup(partial.finish(), content)
        except OSError as error:
            raise Unwritable(
                f"{error.filename or folder} cannot be written"
                f" ({error.strerror or error}). Name another folder with --output, or in"
                " BACKUP_DIR."
            ) from error


@dataclass(frozen=True)
class _Dump:
    """One run of ``pg_dump``, and what is found out beside it."""

    server: Server
    connection: Connection
    tools: Tools
    path: Path
    jobs: int
    say: Say

    def run(self, lock: int) -> dict[str, Any]:
        """Dump, and return the manifest, but for the time."""
        with fingerprints.one_moment(self.connection):
            self._one(f"SELECT set_config('lock_timeout', '{LOCK_WAIT}ms', true)")
            content = self._described()
            (snapshot,) = self._one("SELECT pg_export_snapshot()")
            self.say(
                f"Dumping {self.server.database} ({content['database_size'] / 1e6:,.1f} MB)"
                f" with pg_dump {self.tools.version}, {self.jobs} tables at a time"
            )
            command = self._command(snapshot, content["compression"])
            with tools.running(command, self.server, [lock]) as program:
                content["tables"] = self._fingerprints(program)
                program.wait(self._tell)
                self._check(program)
        content["files"] = manifest.described(self.path)
        content["size"] = sum(each["size"] for each in content["files"].values())
        return content

    def _fingerprints(self, program: Program) -> fingerprints.Contents:
        try:
            return fingerprints.of(self.connection, lambda: self._check(program))
        except errors.LockNotAvailable:
            program.wait(
                self._tell
            )  # pg_dump waits for the same lock, as long as we do
            self._check(program)
            raise
        except errors.InsufficientPrivilege:
            raise  # said in our own words
        except psycopg.Error:
            self._check(program)
            raise

    def _check(self, program: Program) -> None:
        try:
            program.check()
        except tools.Failed as error:
            # How the server says that --lock-wait-timeout has passed.
            if "due to statement timeout" not in error.said:
                raise
            raise tools.Failed(
                "pg_dump",
                f"error: somebody held a lock on a table for more than {LOCK_WAIT / 1e3:g} s",
            ) from error

    def _command(self, snapshot: str, compression: str) -> Sequence[str]:
        # Up to version 15 --compress takes a number only, and gzip is what it does anyway.
        method = [f"--compress={compression}"] if compression != "gzip" else []
        return [
            self.tools.program("pg_dump"),
            *("--format=directory", f"--file={self.path / DUMP}", *method),
            *(f"--jobs={self.jobs}", f"--snapshot={snapshot}"),
            *("--no-password", f"--lock-wait-timeout={LOCK_WAIT}ms"),
            f"--dbname={self.server.target(self.server.database)}",
        ]

    def _described(self) -> dict[str, Any]:
        (database,) = self._one(statement("database"))
        (has_migrations,) = self._one(
            "SELECT to_regclass('public.django_migrations') IS NOT NULL"
        )
        migrations = "SELECT app, name FROM public.django_migrations ORDER BY id"
        return {
            "manifest_version": manifest.MANIFEST_VERSION,
            "database": self.server.database,
            "system": fingerprints.system(lambda query: self._one(query)[0]),
            "database_size": database["size"],
            "owner": database["owner"],
            "comment": database["comment"],
            "locale": _locale(database),
            "server_version": self.connection.info.parameter_status("server_version"),
            "tools_version": self.tools.version,
            "compression": self.tools.compression(),
            "jobs": self.jobs,
            "migrations": self._all(migrations) if has_migrations else [],
            "settings": self._all(statement("settings")),
            "grants": self._all(statement("grants")),
            "proof": None,
        }

    def _one(self, query: str) -> Any:
        return self.connection.execute(query).fetchone()

    def _all(self, query: str) -> list[list[Any]]:
        return [list(row) for row in self.connection.execute(query)]

    def _tell(self) -> None:
        written = sum(path.stat().st_size for path in manifest.files(self.path))
        self.say(f"  … {written / 1e6:,.1f} MB written")


def _locale(database: dict[str, Any]) -> dict[str, Any]:
    """How text is encoded and sorted; the columns' names have changed with the versions."""
    return {
        "encoding": database["encoding"],
        "collate": database["datcollate"],
        "ctype": database["datctype"],
        "provider": database.get("datlocprovider", "c"),
        "locale": database.get("datlocale") or database.get("daticulocale"),
        "rules": database.get("daticurules"),
    }


# --- the folder ----------------------------------------------------------------------------


def _name(database: str, moment: datetime.datetime) -> str:
    plain = re.sub(r"[^\w.-]", "_", database)
    return f"{plain[:100]}-{moment:%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class _Partial:
    """The folder of a run at work; ``lock`` is held on it while anybody writes there."""

    path: Path
    lock: int

    def finish(self) -> Path:
        """Give the folder the name under which it counts as a backup."""
        manifest.sync(self.path)
        whole = self.path.with_name(self.path.name.removesuffix(PARTIAL))
        self.path.rename(whole)
        manifest.sync(whole.parent)
        return whole


@contextmanager
def _partial(folder: Path, name: str, say: Say) -> Iterator[_Partial]:
    """A folder to write into, gone afterwards if it was not finished."""
    folder = folder.resolve()
    folder.mkdir(
        mode=0o700, parents=True, exist_ok=True
    )  # it holds everything there is
    alone = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)  # nobody takes a new folder for a dead one
        _remove_leftovers(folder, say)
        path = _unused(folder, name)
        path.mkdir(mode=0o700)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(alone)
    try:
        yield _Partial(path, lock)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _unused(folder: Path, name: str) -> Path:
    number = 1
    while True:
        whole = folder / (name if number == 1 else f"{name}-{number}")
        path = whole.with_name(whole.name + PARTIAL)
        if not whole.exists() and not path.exists():
            return path
        number += 1


def _remove_leftovers(folder: Path, say: Say) -> None:
    """Remove what killed runs have left; a run at work holds the lock of its folder."""
    for path in sorted(folder.iterdir()):
        if not _LEFTOVER.fullmatch(path.name) or path.is_symlink():
            continue
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            say(f"Removed {path}, which an interrupted run had left.")
        except BlockingIOError:
            say(f"Left {path} alone: another run is writing it.")
        finally:
            os.close(lock)
