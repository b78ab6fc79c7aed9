"""The guide, rehearsed: everything is done to a restored copy of the newest backup.

The live database is only asked how large it is.  The copy is a database of its own on the
same server, called ``<database>_rehearsal_<hex>``; a killed rehearsal leaves it behind, and
the next one drops it and begins anew, because what is gone on with measures nothing."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count
from psycopg import sql as pg

from terrain.legacy import backup, catalog, guide, ledger, rehearsed
from terrain.legacy.backup import restore, scratch
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.server import Connection, Server
from terrain.legacy.backup.telling import Teller
from terrain.legacy.mapping import LENSES
from terrain.legacy.models import Quarantine
from terrain.legacy.rehearsed import Document
from terrain.pace import control
from terrain.waiting import Say

#: Runs a command; raises :class:`Stopped`.
Run = Callable[[str, tuple[str, ...]], None]
#: What is rehearsed, in order.  The last is the way back.
COMMANDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("preflight", ()),
    ("migrate", ("--no-cut-over",)),
    ("settle", ()),
    ("copy_models_to_assets", ()),
    ("verify_migration", ()),
    ("cut_over", ("--yes", "--ignore-activity")),
)
BACK = (rehearsed.BACK, ("--yes",))


class CannotRehearse(Exception):
    """There is nothing to rehearse on; the sentence says what to do."""


class Stopped(Exception):
    """A command of the rehearsal said no, or failed; the sentence is what it said."""


@dataclass(frozen=True)
class Rehearsal:
    """What came of it, and the name of the copy if it was kept."""

    document: Document
    kept: str | None


def rehearse(
    connection: BaseDatabaseWrapper,
    backups: Path,
    run: Run,
    *,
    jobs: int,
    keep: bool,
    identity: Path | None = None,
    teller: Teller,
) -> Rehearsal:
    """Do the whole guide to a copy, and write down how it went.

    Raises :class:`CannotRehearse` and what :func:`restore.restore` raises.
    """
    with _alone(backups / rehearsed.FOLDER):
        source = _source(connection, backups)
        live_rows = rows_now(connection)
        live = connection.settings_dict["NAME"]
        server = Server.of(connection)
        drop_leftovers(server, teller.say)
        connection.close()
        with _copy(server, source, jobs, identity, teller) as copy:
            started = time.monotonic()
            with _elsewhere(connection, copy.name):
                control.forget(connection)  # the live database may be paused
                document = _done(connection, run, back=not keep, say=teller.say)
            document["seconds"] = round(time.monotonic() - started, 3)
            kept = copy.keep() if keep else None
        document |= {
            "rehearsal_version": rehearsed.VERSION,
            "database": live,
            "system": source.system,
            "at": _now().isoformat(),
            "backup": source.path.name,
            "backup_taken_at": source.manifest["taken_at"],
            "backup_seconds": _backup_seconds(source),
            "restore_seconds": round(copy.seconds, 3),
            "rows_now": live_rows,
        }
        document["forecast"] = rehearsed.forecast(document)
        rehearsed.write(backups, document)
        return Rehearsal(document, kept)


def rows_now(connection: BaseDatabaseWrapper) -> int:
    """Rows of the legacy tables by the planner's count: how much there is to move."""
    found = catalog.legacy_tables(connection)
    return sum(
        max(
            0,
            catalog.value(
                connection,
                "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
                [f"{schema}.{table}"],
            ),
        )
        for table, schema in found.items()
    )


def _source(connection: BaseDatabaseWrapper, backups: Path) -> Backup:
    database = connection.settings_dict["NAME"]
    source = backup.latest_proven(backups, database, catalog.system(connection))
    if source is None:
        raise CannotRehearse(
            f"There is no proven backup of {database} in {backups} to rehearse on."
            " Run: python manage.py backup_database"
        )
    if list(catalog.SETTLED) in source.manifest["migrations"]:
        raise CannotRehearse(
            f"The newest backup, {source.path.name}, was taken after the migration, so there"
            " is nothing left in it to rehearse."
        )
    return source


def _backup_seconds(source: Backup) -> float:
    proven = datetime.datetime.fromisoformat(source.manifest["proof"]["proven_at"])
    return round((proven - source.taken_at).total_seconds(), 3)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


# --- the copy ------------------------------------------------------------------------------


@dataclass
class _Copy:
    """The database that is rehearsed on; ``seconds`` is what restoring it took."""

    server: Server
    name: str
    seconds: float

    def keep(self) -> str:
        """Give it a name under which it is nobody's leftover."""
        name = f"{_short(self.server.database)}_rehearsed_{_now():%Y%m%dT%H%M%SZ}"
        with self.server.maintenance(besides=self.name) as connection:
            _say_what_it_is(
                connection, self.name, "kept: drop it when it is not needed"
            )
            connection.execute(
                pg.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    pg.Identifier(self.name), pg.Identifier(name)
                )
            )
        return name


def _short(database: str) -> str:
    """So much of a name that with an ending it is a name still."""
    return database.encode()[:35].decode("utf-8", "ignore")


def _say_what_it_is(connection: Connection, name: str, more: str) -> None:
    connection.execute(
        pg.SQL("COMMENT ON DATABASE {} IS {}").format(
            pg.Identifier(name),
            pg.Literal(f"A copy that upgrade --rehearse has made ({more})."),
        )
    )


@contextmanager
def _copy(
    server: Server, source: Backup, jobs: int, identity: Path | None, teller: Teller
) -> Iterator[_Copy]:
    """A restored copy of a backup, gone afterwards unless it was kept."""
    name = f"{_short(server.database)}_rehearsal_{secrets.token_hex(4)}"
    started = time.monotonic()
    try:
        restore.restore(
            server,
            source.path,
            into=name,
            jobs=jobs,
            identity=identity,
            teller=teller,
        )
        copy = _Copy(server, name, time.monotonic() - started)
        with server.maintenance(besides=name) as connection:
            _say_what_it_is(connection, name, "at work")
        yield copy
    finally:
        # The server may be what is gone; the next rehearsal drops what is left.
        with suppress(psycopg.OperationalError, OperationalError):
            with server.maintenance(besides=name) as connection:
                scratch.drop(connection, name)


def drop_leftovers(server: Server, say: Say) -> None:
    """Drop the copies that killed rehearsals of this database have left.

    Ours by name and owner, or by what a scratch database says it was to become; called by
    the only rehearsal there is, so none is at work.
    """
    name = re.escape(_short(server.database)) + "_rehearsal_[0-9a-f]{8}"
    with server.maintenance(besides="") as connection:
        for (left,) in connection.execute(
            "SELECT datname::text FROM pg_database"
            " WHERE pg_has_role(datdba, 'USAGE') AND (datname ~ %(name)s"
            "       OR starts_with(datname, %(scratch)s)"
            "          AND shobj_description(oid, 'pg_database') ~ %(comment)s)"
            " ORDER BY 1",
            {
                "name": f"^{name}$",
                "scratch": scratch.PREFIX,
                "comment": f" {name}[, ]",
            },
        ).fetchall():
            scratch.drop(connection, left)
            say(
                f"Dropped the database {left}, which an interrupted rehearsal had left."
            )


@contextmanager
def _elsewhere(connection: BaseDatabaseWrapper, name: str) -> Iterator[None]:
    """Django's connections, in every thread, are to another database meanwhile."""
    parameters = connections.databases[connection.alias]
    before = parameters["NAME"]
    connection.close()
    parameters["NAME"] = connection.settings_dict["NAME"] = name
    try:
        there = catalog.value(connection, "SELECT current_database()")
        assert there == name, there  # or the live database would be moved
        yield
    finally:
        connection.close()
        parameters["NAME"] = connection.settings_dict["NAME"] = before


# --- doing it ------------------------------------------------------------------------------


def _done(
    connection: BaseDatabaseWrapper, run: Run, *, back: bool, say: Say
) -> Document:
    """Every command with its time; what was moved and held; how large it was and is."""
    document: Document = {
        "size_before": _size(connection),
        "steps": [],
        "stopped": None,
        "moved": [],
        "quarantined": [],
        "times": {},
        "locks": {},
    }
    for number, (command, arguments) in enumerate(COMMANDS, 1):
        if not _step(document, run, command, arguments):
            return document
        seconds = document["steps"][-1]["seconds"]
        say(f"[{number}/{len(COMMANDS)}] {command}: {seconds:,.1f} s")
    document |= {
        "moved": [each.as_json() for each in guide.summary(connection)],
        "quarantined": list(_quarantined(connection)),
        "times": dict(_times(connection)),
        "size_after": _size(connection),
    }
    went_back = back and _step(document, run, *BACK)
    document["locks"] = ledger.locks_before(connection.alias)
    if went_back:
        say(f"and back, {BACK[0]}: {document['steps'][-1]['seconds']:,.1f} s")
    return document


def _step(
    document: Document, run: Run, command: str, arguments: tuple[str, ...]
) -> bool:
    started = time.monotonic()
    state = "done"
    try:
        run(command, arguments)
    except Stopped as error:
        document["stopped"], state = f"{command}: {error}", "failed"
    document["steps"].append(
        {
            "command": command,
            "seconds": round(time.monotonic() - started, 3),
            "state": state,
        }
    )
    return state == "done"


def _size(connection: BaseDatabaseWrapper) -> int:
    return int(catalog.value(connection, "SELECT pg_database_size(current_database())"))


def _quarantined(connection: BaseDatabaseWrapper) -> Iterator[dict[str, Any]]:
    for each in (
        Quarantine.objects.using(connection.alias)
        .values("legacy_table", "kind", "reason")
        .annotate(rows=Count("id"))
        .order_by("legacy_table", "kind", "reason")
    ):
        yield dict(each)


def _times(connection: BaseDatabaseWrapper) -> Iterator[tuple[str, float]]:
    """The copies, by the name they have in the ledger -> seconds."""
    for table in ("customers", *(lens.legacy for lens in LENSES)):
        run = ledger.last(f"copy {table}", connection.alias)
        if run is not None:
            yield run.step, round(run.seconds, 3)


# --- one at a time -------------------------------------------------------------------------


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One rehearsal at a time; raises :class:`CannotRehearse`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CannotRehearse(
            f"{folder} cannot be used ({error.strerror}), and the result of the rehearsal is"
            " kept there. Name another folder in BACKUP_DIR."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CannotRehearse(
            "Another rehearsal is at work. Wait for it, then run the command again."
        ) from error
    finally:
        os.close(lock)
