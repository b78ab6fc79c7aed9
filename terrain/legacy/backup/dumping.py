"""Makes a backup: a parallel dump and its manifest, both of one moment."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors

from terrain.legacy.backup import archive, fingerprints, manifest, tools
from terrain.legacy.backup.encryption import Cipher, Key
from terrain.legacy.backup.fingerprints import statement
from terrain.legacy.backup.folder import name, partial
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.programs import INTERVAL, Failed, Pipe, Program
from terrain.legacy.backup.server import Connection, Server
from terrain.legacy.backup.telling import Every, Teller
from terrain.legacy.backup.tools import Tools
from terrain.legacy.mapping import LENSES
from terrain.legacy.schema import fingerprint
from terrain.postgresql import schemas

#: Milliseconds pg_dump waits for a table that somebody is altering.
LOCK_WAIT = 60_000


class Unwritable(Exception):
    """The folder for backups cannot be used."""


def take(
    server: Server,
    folder: Path,
    jobs: int,
    teller: Teller,
    cipher: Cipher | None = None,
    expected: int | None = None,
) -> Backup:
    """Back up the server's database into a new folder inside ``folder``.

    ``expected`` is about how many bytes it will have, to tell how far it is.  What was
    killed earlier is removed first.  Raises :class:`Unwritable`, :class:`tools.Missing` and
    :class:`programs.Failed`, and leaves nothing then.
    """
    with server.connect() as connection:
        found = tools.find(server, connection.info.server_version // 10000)
        taken_at = datetime.datetime.now(datetime.UTC)
        try:
            with partial(folder, name(server.database, taken_at), teller) as made:
                dump = _Dump(
                    server, connection, found, made.path, jobs, teller, cipher, expected
                )
                content = dump.run(made.lock)
                content["taken_at"] = taken_at.isoformat()
                manifest.write_manifest(made.path, content)
                key = cipher.key if cipher else Key()
                return Backup(made.finish(), content, key)
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
    teller: Teller
    cipher: Cipher | None
    expected: int | None
    started: float = field(default_factory=time.monotonic)

    def run(self, lock: int) -> dict[str, Any]:
        """Dump, and return the manifest, but for the time."""
        with fingerprints.one_moment(self.connection):
            self._one(f"SELECT set_config('lock_timeout', '{LOCK_WAIT}ms', true)")
            content = self._described()
            (snapshot,) = self._one("SELECT pg_export_snapshot()")
            self._announce(content["database_size"])
            before = fingerprints.sequences(self.connection)
            command = self._command(snapshot, content["compression"])
            with archive.writing(
                command, self.server, self.path, self.jobs, self.cipher, lock
            ) as program:
                content["tables"] = self._fingerprints(program)
                program.wait(self._tell)
                self._check(program)
            after = fingerprints.sequences(self.connection)
        content["sequences"] = {each: [before[each], after[each]] for each in before}
        content["files"] = manifest.described(self.path)
        content["size"] = sum(each["size"] for each in content["files"].values())
        content["seconds"] = round(time.monotonic() - self.started, 3)
        return content

    def _announce(self, size: int) -> None:
        how = f"{self.jobs} tables at a time"
        if self.cipher is not None:
            how = f"as one stream that {self.cipher.program} encrypts"
        self.teller.say(
            f"Dumping {self.server.database} ({size / 1e6:,.1f} MB) with pg_dump"
            f" {self.tools.version}, {how}"
        )

    def _fingerprints(self, program: Program | Pipe) -> fingerprints.Contents:
        every = Every(INTERVAL)

        def read(table: str) -> None:
            self._check(program)
            if every.is_due():  # there may be very many tables
                self._tell()

        try:
            return fingerprints.of(self.connection, read)
        except errors.LockNotAvailable:
            # pg_dump waits for the same lock, as long as we do.
            program.wait(self._tell)
            self._check(program)
            raise
        except errors.InsufficientPrivilege:
            raise  # said in our own words
        except psycopg.Error:
            self._check(program)
            raise

    def _check(self, program: Program | Pipe) -> None:
        try:
            program.check()
        except Failed as error:
            # How the server says that --lock-wait-timeout has passed.
            if "due to statement timeout" not in error.said:
                raise
            raise Failed(
                "pg_dump",
                f"error: somebody held a lock on a table for more than {LOCK_WAIT / 1e3:g} s",
            ) from error

    def _command(self, snapshot: str, compression: str) -> Sequence[str]:
        # Up to version 15 --compress takes a number only, and gzip is what it does anyway.
        method = [f"--compress={compression}"] if compression != "gzip" else []
        return [
            self.tools.program("pg_dump"),
            *(f"--snapshot={snapshot}", *method),
            *("--no-password", f"--lock-wait-timeout={LOCK_WAIT}ms"),
            f"--dbname={self.server.target(self.server.database)}",
        ]

    def _described(self) -> dict[str, Any]:
        (database,) = self._one(statement("database"))
        with self.connection.cursor() as cursor:
            schema = schemas.find(cursor)[0]
        (has_migrations,) = self._one(
            f"SELECT to_regclass('{schema}.django_migrations') IS NOT NULL"
        )
        migrations = f"SELECT app, name FROM {schema}.django_migrations ORDER BY id"
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
            "encryption": self.cipher.described if self.cipher else None,
            "fingerprints": fingerprints.METHOD,
            "jobs": self.jobs,
            "declaration": fingerprint(LENSES),
            "migrations": self._all(migrations) if has_migrations else [],
            "settings": self._all(statement("settings")),
            "grants": self._all(statement("grants")),
            "roles": [name for (name,) in self._all(statement("roles"))],
            "proof": None,
        }

    def _one(self, query: str) -> Any:
        return self.connection.execute(query).fetchone()

    def _all(self, query: str) -> list[list[Any]]:
        return [list(row) for row in self.connection.execute(query)]

    def _tell(self) -> None:
        written = sum(path.stat().st_size for path in manifest.files(self.path))
        self.teller.progress("dumping", written, self.expected, "B")


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
