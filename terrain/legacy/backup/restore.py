"""Gives a backup back: beside what is there, compared, and only then in its place."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as replace_
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors
from psycopg import sql as pg

from terrain.legacy import search_path
from terrain.legacy.backup import loading, scratch
from terrain.legacy.backup.encryption import Key
from terrain.legacy.backup.fingerprints import statement
from terrain.legacy.backup.manifest import Backup, check, load
from terrain.legacy.backup.server import Connection, Server
from terrain.legacy.backup.telling import Teller

#: Settings that are lists of names; the catalog has them in one string.
_LISTS = (
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
)
#: Seconds somebody else's short session may delay taking the old database's place.
PATIENCE = 15.0


class Refused(Exception):
    """It may not be done; the sentence says why and what to do.  Nothing was changed."""


@dataclass(frozen=True)
class Restored:
    """What was restored.

    ``beyond`` could not be given back, ``unlike`` are objects defined otherwise than in the
    backup; ``replaced`` is the name that the old database has now, if any.
    """

    database: str
    tables: int
    rows: int
    beyond: tuple[str, ...]
    unlike: tuple[str, ...]
    replaced: str | None


@dataclass(frozen=True)
class _Target:
    """The database to be restored into, as it is before."""

    name: str
    exists: bool
    is_empty: bool
    may_create: bool


def restore(
    server: Server,
    path: Path,
    *,
    into: str | None = None,
    replace: bool = False,
    unproven: bool = False,
    jobs: int = 2,
    identity: Path | None = None,
    teller: Teller,
) -> Restored:
    """Restore the backup in ``path`` into a database, which need not be there.

    Raises :class:`Damaged`, :class:`Refused`, :class:`tools.Missing`,
    :class:`programs.Failed`, :class:`encryption.CannotDecrypt` and
    :class:`loading.Unlike`; the database is as it was then.
    """
    kept = _checked(path, unproven, identity, teller)
    target = _target(server, server.database if into is None else into, replace)
    if not target.may_create:
        return _in_place(server, kept, target.name, jobs, teller)
    teller.say(f"Restoring {kept.rows:,} rows into a new database beside")
    with scratch.database(server, target.name, kept.manifest["locale"], teller) as made:
        loaded = loading.load(server, kept, made.name, jobs, teller)
        made.alive.execute("ANALYZE")
        teller.say("Compared: every table is as it was")
        made.leave()
        replaced, beyond = _put_in_place(server, kept, made.name, target)
    return Restored(
        target.name,
        loaded.tables,
        loaded.rows,
        (*loaded.beyond, *beyond),
        loaded.unlike,
        replaced,
    )


def _checked(
    path: Path, unproven: bool, identity: Path | None, teller: Teller
) -> Backup:
    kept = with_key(load(path.resolve()), identity)
    teller.say(f"Checking {kept.size / 1e6:,.1f} MB against the manifest")
    check(kept, lambda done: teller.progress("checking", done, kept.size, "B"))
    if not kept.is_proven and not unproven:
        why = kept.manifest.get("unproven") or "the run that took it did not end"
        raise Refused(
            f"{path} has not been proven: {why.rstrip('.')}; to restore it all the same,"
            " add --unproven."
        )
    return kept


def with_key(kept: Backup, identity: Path | None) -> Backup:
    """The backup with what opens it.  Raises :class:`Refused`."""
    if kept.encryption is None:
        return kept
    if kept.encryption["program"] == "age" and identity is None:
        raise Refused(
            f"{kept.path} is encrypted to {kept.encryption['recipient']}. Name the file that"
            " has the key: --identity FILE"
        )
    if identity is not None and not identity.is_file():
        raise Refused(f"There is no file {identity}; --identity names the key's file.")
    return replace_(kept, key=Key(identity))


# --- before --------------------------------------------------------------------------------


def _target(server: Server, name: str, replace: bool) -> _Target:
    """Look at the database to be restored into.  Raises :class:`Refused`."""
    if not name or len(name.encode()) > 63 or name in ("template0", "template1"):
        raise Refused(f"{name!r} cannot be the name of a database to restore into.")
    with server.maintenance(besides=name) as connection:
        role, may_create, owner, is_ours = _rights(connection, name)
        if owner is None:
            if not may_create:
                raise Refused(
                    f"The database {name} is not there and the role {role} may not create it."
                    f" As a superuser: CREATE DATABASE {_quoted(name)} OWNER"
                    f" {_quoted(role)};"
                )
            return _Target(name, False, True, True)
        connected = list(_sessions(connection, name))
    with server.connect(name) as there:
        is_empty = scratch.is_empty(there)
    if not is_empty and not replace:
        raise Refused(
            f"The database {name} is not empty, and was not touched. To put the backup in"
            " its place (it is kept under another name), add --replace; to restore beside"
            " it, add --into NAME."
        )
    if not is_ours and not (is_empty and not may_create):
        raise Refused(
            f"The database {name} belongs to {owner}, so the role {role} may not rename it."
            " Connect as its owner, or restore beside it with --into NAME."
        )
    if not is_empty and not may_create:
        raise Refused(
            f"To replace {name} a new database is made beside it, and the role {role} may"
            f" not. As a superuser: ALTER ROLE {_quoted(role)} CREATEDB;"
        )
    if connected:
        raise Refused(_who(name, connected))
    return _Target(name, True, is_empty, may_create)


def _rights(connection: Connection, name: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(
        statement("rights"), {"database": name}
    ).fetchone()
    assert row is not None
    return row


def _sessions(connection: Connection, name: str) -> Iterator[str]:
    for pid, role, application in connection.execute(
        statement("sessions"), {"database": name}
    ):
        yield f"process {pid} of the server (role {role}, {application})"


def _who(name: str, connected: list[str]) -> str:
    return (
        f"The database {name} is in use and was not touched: {'; '.join(connected[:5])}."
        " Stop those applications, or restore beside it with --into NAME."
    )


def _quoted(name: str) -> str:
    return pg.Identifier(name).as_string(None)


# --- after ---------------------------------------------------------------------------------


def _put_in_place(
    server: Server, kept: Backup, made: str, target: _Target
) -> tuple[str | None, list[str]]:
    """Give the restored database its name, in one transaction; the old one's new name."""
    old = _old_name(target.name)
    with server.maintenance(besides=target.name) as connection:
        deadline = time.monotonic() + PATIENCE
        while not _is_free(connection, target.name, deadline):
            time.sleep(0.1)
        try:
            with connection.transaction():
                if target.exists:
                    _rename(connection, target.name, old)
                _rename(connection, made, target.name)
                beyond = _set_again(connection, kept, target.name)
        except errors.ObjectInUse as error:
            raise Refused(_who(target.name, ["somebody who has just come"])) from error
        except errors.DuplicateDatabase as error:
            raise Refused(
                f"Somebody has made a database {target.name} meanwhile; it was not"
                " touched. Run the command again."
            ) from error
        if target.exists and target.is_empty:
            connection.execute(pg.SQL("DROP DATABASE {}").format(pg.Identifier(old)))
    return (old if target.exists and not target.is_empty else None), beyond


def _is_free(connection: Connection, name: str, deadline: float) -> bool:
    """Whether nobody is connected.  Raises :class:`Refused` after the deadline.

    Asked rather than tried: a rename that finds somebody there waits five seconds for them
    to go, and lets nobody else in meanwhile.
    """
    connected = list(_sessions(connection, name))
    if connected and time.monotonic() > deadline:
        raise Refused(_who(name, connected))
    return not connected


def _old_name(name: str) -> str:
    now = datetime.datetime.now(datetime.UTC)
    ending = f"_replaced_{now:%Y%m%dT%H%M%SZ}"
    return name.encode()[: 63 - len(ending)].decode("utf-8", "ignore") + ending


def _rename(connection: Connection, name: str, to: str) -> None:
    connection.execute(
        pg.SQL("ALTER DATABASE {} RENAME TO {}").format(
            pg.Identifier(name), pg.Identifier(to)
        )
    )


def _set_again(connection: Connection, kept: Backup, name: str) -> list[str]:
    """What a dump of one database lacks: its settings, grants, comment and owner.

    Returns what this role may not set, or what is about roles that are not here.
    """
    beyond = []
    for command in _about_the_database(kept.manifest, pg.Identifier(name)):
        try:
            with connection.transaction():
                connection.execute(command)
        except psycopg.Error as error:
            why = error.diag.message_primary or error
            beyond.append(f"{command.as_string(None)}: {why}")
    return beyond


def _about_the_database(
    manifest: dict[str, Any], name: pg.Identifier
) -> Iterator[pg.Composed]:
    yield pg.SQL("COMMENT ON DATABASE {} IS {}").format(
        name, pg.Literal(manifest["comment"])
    )
    for role, setting, value in manifest["settings"]:
        whose = pg.SQL("DATABASE {}").format(name)
        if role is not None:
            whose = pg.SQL("ROLE {} IN DATABASE {}").format(pg.Identifier(role), name)
        values = search_path.split(value) if setting in _LISTS else (value,)
        yield pg.SQL("ALTER {} SET {} = {}").format(
            whose,
            pg.Identifier(*setting.split(".")),
            pg.SQL(", ").join(map(pg.Literal, values)),
        )
    if manifest["grants"]:
        yield pg.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name)
    for role, privilege, grantable in manifest["grants"]:
        yield pg.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
            pg.SQL(privilege),
            name,
            pg.SQL("PUBLIC") if role is None else pg.Identifier(role),
            pg.SQL(" WITH GRANT OPTION" if grantable else ""),
        )
    yield pg.SQL("ALTER DATABASE {} OWNER TO {}").format(
        name, pg.Identifier(manifest["owner"])
    )


def _in_place(
    server: Server, kept: Backup, name: str, jobs: int, teller: Teller
) -> Restored:
    """Restore into an empty database, where no other may be made."""
    teller.say(f"Restoring {kept.rows:,} rows into {name}, which is empty")
    try:
        loaded = loading.load(server, kept, name, jobs, teller)
    except BaseException:
        teller.say(
            f"! {name} holds a part of the backup now. Have it dropped and made again"
            " before the next attempt: DROP DATABASE and CREATE DATABASE, as a superuser."
        )
        raise
    with server.maintenance(besides=name) as connection:
        beyond = _set_again(connection, kept, name)
    return Restored(
        name, loaded.tables, loaded.rows, (*loaded.beyond, *beyond), loaded.unlike, None
    )
