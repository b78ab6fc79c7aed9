"""Loads a dump into an empty database and compares: the heart of proof and restore."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from terrain.legacy.backup import archive, definitions, fingerprints, tools
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.programs import Failed, Pipe, Program, running
from terrain.legacy.backup.server import Connection, Server
from terrain.legacy.backup.telling import Teller
from terrain.legacy.backup.tools import Tools

#: What newer programs set in a session, and an older server does not know.
_UNKNOWN = ("SET transaction_timeout = 0",)
_ERROR = re.compile(
    r"error: could not execute query: \w+: +(?P<why>[^\n]*)\n"
    r"(?:(?!pg_restore: ).)*?"
    r"Command was: (?P<command>.*?)(?=\npg_restore: |\Z)",
    re.DOTALL,
)
#: Several grants may come as one query, of which then none takes effect.
_NEXT_STATEMENT = re.compile(r";\n(?=GRANT |REVOKE |ALTER DEFAULT PRIVILEGES )")

#: All that is not rows.  A subscription at work in a copy would take the changes that are
#: meant for the original.
_DEFINITIONS = ("--section=pre-data", "--section=post-data", "--no-subscriptions")


class Unlike(Exception):
    """What came out is not what went in; the sentence names the first difference."""


@dataclass(frozen=True)
class Loaded:
    """What a dump became: tables, rows and objects; what could not be given away, and why.

    ``objects`` are those whose definitions were compared, None if they were not: another
    version of PostgreSQL writes them otherwise.  ``unlike`` are those that differ.
    """

    tables: int
    rows: int
    beyond: tuple[str, ...]
    objects: int | None
    unlike: tuple[str, ...]


def load(
    server: Server, kept: Backup, database: str, jobs: int, teller: Teller
) -> Loaded:
    """Restore a backup into an empty database and compare every table and definition.

    Raises :class:`tools.Missing`, :class:`programs.Failed`,
    :class:`encryption.CannotDecrypt` and, for rows or sequences that differ,
    :class:`Unlike`.
    """
    with server.connect(database) as connection:
        major = connection.info.server_version // 10000
        zstd = kept.manifest["compression"] == "zstd"
        found = tools.find(server, major, kept.tools_major, zstd=zstd)
        failed = _restore(server, kept, connection, found, jobs, teller)
        lost = dict(_one_by_one(connection, failed))
        now = _compare(connection, kept, teller)
    objects: int | None = None
    unlike: tuple[str, ...] = ()
    if (major, found.major) == (kept.server_major, kept.tools_major):
        objects, unlike = _redefined(server, kept, database, found, lost)
        if not lost and fingerprints.have_other_owners(kept.manifest["tables"], now):
            unlike += ("Large objects have other owners or grants restored.",)
    beyond = tuple(f"{_short(each)}: {why}" for each, why in lost.items())
    return Loaded(len(now) - 1, fingerprints.rows(now), beyond, objects, unlike)


def one_and_more(differences: list[str] | tuple[str, ...]) -> str:
    """The first of several sentences, and how many there are besides."""
    more = f" And {len(differences) - 1:,} more." if differences[1:] else ""
    return differences[0] + more


# --- restoring -----------------------------------------------------------------------------


def _restore(
    server: Server,
    kept: Backup,
    connection: Connection,
    found: Tools,
    jobs: int,
    teller: Teller,
) -> list[str]:
    """Run ``pg_restore``; what it could not give away."""
    command = [
        *(found.program("pg_restore"), "--no-password", "--no-subscriptions"),
        f"--dbname={server.target(connection.info.dbname)}",
    ]
    expected = kept.manifest["database_size"]

    def tell() -> None:
        row = connection.execute(
            "SELECT pg_database_size(current_database())"
        ).fetchone()
        assert row is not None
        teller.progress("restoring", min(row[0], expected), expected, "B")

    with archive.reading(command, server, kept, jobs) as program:
        code = program.wait(tell)
        if isinstance(program, Pipe):
            program.check_source()
        return _judge(code, program.said())


def _judge(code: int, said: str) -> list[str]:
    """What pg_restore could not give away.  Raises :class:`Failed` for anything else."""
    if code == 0:
        return []
    beyond = []
    for error in _ERROR.finditer(said):
        command = error["command"].strip().rstrip(";")
        if definitions.OWNERSHIP.match(command):
            beyond.append(command)
        elif command not in _UNKNOWN:
            raise Failed("pg_restore", f"error: {error['why']} ({_short(command)})")
    rest = _ERROR.sub("", said)
    if re.search(r"(error|fatal): ", rest) or "errors ignored on restore" not in rest:
        raise Failed("pg_restore", rest)
    return beyond


def _one_by_one(
    connection: Connection, failed: list[str]
) -> Iterator[tuple[str, object]]:
    """Give away what can be; yields the statements that fail by themselves too, and why."""
    for command in failed:
        for statement in _NEXT_STATEMENT.split(command):
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                yield statement, error.diag.message_primary or error


def _short(command: str) -> str:
    text = " ".join(command.split())
    return text if len(text) <= 120 else text[:119] + "…"


# --- comparing -----------------------------------------------------------------------------


def _compare(
    connection: Connection, kept: Backup, teller: Teller
) -> fingerprints.Contents:
    """Read every table again.  Raises :class:`Unlike`."""
    tables, done = kept.manifest["tables"], 0

    def read(table: str) -> None:
        nonlocal done
        done += tables.get(table, {"rows": 0})["rows"]
        teller.progress("comparing", done, kept.rows, "rows")

    with fingerprints.one_moment(connection):
        method = kept.manifest.get("fingerprints", 1)
        now = fingerprints.of(connection, read, method)
        places = fingerprints.sequences(connection)
    found = fingerprints.differences(tables, now)
    if (was := kept.manifest.get("sequences")) is not None:
        before = {name: ends[0] for name, ends in was.items()}
        after = {name: ends[1] for name, ends in was.items()}
        found += fingerprints.out_of_place(before, after, places)
    if found:
        raise Unlike(one_and_more(found))
    return now


def _redefined(
    server: Server, kept: Backup, database: str, found: Tools, lost: dict[str, object]
) -> tuple[int, tuple[str, ...]]:
    """How many objects a dump has, and which are made otherwise in what became of it."""
    pg_restore = [found.program("pg_restore"), *_DEFINITIONS, "--file=-"]
    with archive.reading(pg_restore, server, kept, out=subprocess.PIPE) as reading:
        was = definitions.of(_script(reading))
    pg_dump = [
        *(found.program("pg_dump"), *_DEFINITIONS, "--no-password"),
        f"--dbname={server.target(database)}",
    ]
    ends = (subprocess.DEVNULL, subprocess.PIPE)
    with running(pg_dump, server.environment(), (), ends) as dumping:
        is_ = definitions.of(_script(dumping))
    return len(was), tuple(definitions.differences(was, is_, lost))


def _script(program: Program | Pipe) -> str:
    script = program.output()
    last = program.second if isinstance(program, Pipe) else program
    last.wait(lambda: None)
    last.check()
    return script
