"""Loads a dump and compares: the proof of a backup, and the heart of a restore."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from terrain.legacy.backup import fingerprints, manifest, scratch, tools
from terrain.legacy.backup.manifest import Backup
from terrain.legacy.backup.server import Connection, Server

Say = Callable[[str], None]

#: Statements of a dump that say whose things are.  Where a role is missing or out of reach
#: they fail, what they are about belongs to whoever restores, and no row is lost by that.
_OWNERSHIP = re.compile(
    r"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|COMMENT ON EXTENSION|SECURITY LABEL)\b"
    r"|ALTER .+ OWNER TO ",
    re.DOTALL,
)
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


class Unlike(Exception):
    """What came out is not what went in; the sentence names the first difference."""


class Unproven(Exception):
    """The backup is kept, and not proven; the sentence says why and what to do."""


@dataclass(frozen=True)
class Loaded:
    """What a dump became: how many tables and rows, and what could not be given away."""

    tables: int
    rows: int
    beyond: tuple[str, ...]


def load(server: Server, kept: Backup, database: str, jobs: int, say: Say) -> Loaded:
    """Restore a backup into an empty database and compare every table.

    Raises :class:`tools.Missing`, :class:`tools.Failed` and :class:`Unlike`.
    """
    with server.connect(database) as connection:
        major = connection.info.server_version // 10000
    found = tools.find(server, major, kept.tools_major)
    command = [
        found.program("pg_restore"),
        *("--format=directory", f"--jobs={jobs}", "--no-password"),
        # One at work in a copy would take the changes that are meant for the original.
        "--no-subscriptions",
        f"--dbname={server.target(database)}",
        str(kept.dump),
    ]
    with tools.running(command, server) as program:
        code = program.wait(lambda: say("  … restoring"))
        said = program.said()
    failed = _judge(code, said)
    with server.connect(database) as connection:
        beyond = list(_one_by_one(connection, failed))
        with fingerprints.one_moment(connection):
            now = fingerprints.of(connection)
    differences = fingerprints.differences(kept.manifest["tables"], now)
    if differences:
        more = f" And {len(differences) - 1:,} more." if differences[1:] else ""
        raise Unlike(differences[0] + more)
    return Loaded(len(now) - 1, fingerprints.rows(now), tuple(beyond))


def _judge(code: int, said: str) -> list[str]:
    """What pg_restore could not give away.  Raises :class:`tools.Failed` for anything else."""
    if code == 0:
        return []
    beyond = []
    for error in _ERROR.finditer(said):
        command = error["command"].strip().rstrip(";")
        if _OWNERSHIP.match(command):
            beyond.append(command)
        elif command not in _UNKNOWN:
            raise tools.Failed(
                "pg_restore", f"error: {error['why']} ({_short(command)})"
            )
    rest = _ERROR.sub("", said)
    if re.search(r"(error|fatal): ", rest) or "errors ignored on restore" not in rest:
        raise tools.Failed("pg_restore", rest)
    return beyond


def _one_by_one(connection: Connection, failed: list[str]) -> Iterator[str]:
    """Give away what can be; yields the statements that fail by themselves too, and why."""
    for command in failed:
        for statement in _NEXT_STATEMENT.split(command):
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                yield f"{_short(statement)}: {error.diag.message_primary or error}"


def _short(command: str) -> str:
    text = " ".join(command.split())
    return text if len(text) <= 120 else text[:119] + "…"


# --- the proof -----------------------------------------------------------------------------


def prove(server: Server, made: Backup, jobs: int, say: Say) -> Backup:
    """Restore a backup into a scratch database, compare, and write that into its manifest.

    Raises :class:`Unproven`, when the manifest says why.
    """
    started = time.monotonic()
    say("Proving it: restoring into a scratch database and comparing every table")
    try:
        with scratch.database(
            server, made.database, made.manifest["locale"], say
        ) as database:
            loaded = load(server, made, database.name, jobs, say)
    except scratch.MayNot as error:
        why = (
            "the role may not create the scratch database. As a superuser:"
            f" ALTER ROLE {_role(server)} CREATEDB; then run: python manage.py"
            " backup_database"
        )
        raise _unproven(made, why) from error
    except (tools.Missing, tools.Failed) as error:
        raise _unproven(made, f"it could not be restored: {error}") from error
    except Unlike as error:
        raise _unproven(made, f"what was restored differs: {error}") from error
    return _recorded(
        made,
        proof={
            "proven_at": datetime.datetime.now(datetime.UTC).isoformat(),
            "seconds": round(time.monotonic() - started, 3),
            "tables": loaded.tables,
            "rows": loaded.rows,
            "not_given_away": list(loaded.beyond),
        },
    )


def _unproven(made: Backup, why: str) -> Unproven:
    _recorded(made, proof=None, unproven=why)
    return Unproven(f"The backup in {made.path} is kept but not proven: {why}")


def _recorded(made: Backup, **entries: Any) -> Backup:
    content = {**made.manifest, **entries}
    manifest.write_manifest(made.path, content)
    return replace(made, manifest=content)


def _role(server: Server) -> str:
    with server.connect() as connection:
        row = connection.execute("SELECT quote_ident(current_user)").fetchone()
    return str(row[0]) if row else "…"
