"""Databases that are there for a while: to prove a backup in, or to take a place later."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import OperationalError
from psycopg import errors
from psycopg import sql as pg

from terrain.legacy.backup.fingerprints import statement
from terrain.legacy.backup.server import Connection, Server
from terrain.legacy.backup.telling import Teller

PREFIX = "terrain_scratch_"
_PATTERN = f"^{PREFIX}[0-9a-f]{{12}}$"

#: Advisory lock: one run at a time makes a scratch database, or looks for dead ones.
LOCK = 0x7E44A104

#: How often a database is tried to be dropped; each attempt may take five seconds.
ATTEMPTS = 3

_PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}


class MayNot(Exception):
    """The role may not create databases."""


@dataclass(frozen=True)
class Scratch:
    """A scratch database.  A session of ours is there, so that nobody thinks it dead."""

    name: str
    alive: Connection

    def leave(self) -> None:
        """End that session: nobody may be connected to a database that is renamed."""
        self.alive.close()


def comment(database: str) -> str:
    """What a scratch database says of itself."""
    return (
        f"Scratch copy of {database}, made by backup_database or restore_database."
        " It is dropped by itself; if nobody is connected, it may be dropped by hand."
    )


@contextmanager
def database(
    server: Server, of: str, locale: Mapping[str, Any], teller: Teller
) -> Iterator[Scratch]:
    """A new database, gone afterwards unless it has been renamed.

    Those that killed runs have left are dropped first.  Raises :class:`MayNot`.
    """
    name = PREFIX + secrets.token_hex(6)
    try:
        with server.maintenance(besides=of) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            drop_leftovers(server, connection, of, teller)
            _create(connection, name, locale, teller)
            connection.execute(
                pg.SQL("COMMENT ON DATABASE {} IS {}").format(
                    pg.Identifier(name), pg.Literal(comment(of))
                )
            )
            alive = server.connect(name)
        with closing(alive):
            yield Scratch(name, alive)
    finally:
        # The server may be what is gone; the next run drops what is left.
        with suppress(psycopg.OperationalError, OperationalError):
            with server.maintenance(besides=of) as connection:
                if not drop(connection, name):
                    teller.say(
                        f"! The database {name} could not be dropped: somebody is connected."
                        " The next run drops it."
                    )


def drop(connection: Connection, name: str) -> bool:
    """Drop a database, ending the sessions that are there; whether it is gone.

    ``FORCE`` ends our own programs' sessions, but fails at once where autovacuum is at
    work, which is not ours to end.  Without it the server ends autovacuum itself and waits
    five seconds for everybody else to go.
    """
    command = pg.SQL("DROP DATABASE IF EXISTS {}").format(pg.Identifier(name))
    for _ in range(ATTEMPTS):
        for how in (pg.SQL(" WITH (FORCE)"), pg.SQL("")):
            with suppress(errors.InsufficientPrivilege, errors.ObjectInUse):
                connection.execute(pg.Composed([command, how]))
                return True
    return False


def _create(
    connection: Connection,
    name: str,
    locale: Mapping[str, Any],
    teller: Teller,
) -> None:
    create = pg.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
        pg.Identifier(name), pg.Literal(locale["encoding"])
    )
    alike: list[pg.Composable] = [
        pg.SQL(" LC_COLLATE {}").format(pg.Literal(locale["collate"])),
        pg.SQL(" LC_CTYPE {}").format(pg.Literal(locale["ctype"])),
    ]
    if connection.info.server_version >= 150000:
        provider = _PROVIDERS[locale["provider"]]
        alike.append(pg.SQL(f" LOCALE_PROVIDER {provider}"))
        if locale["locale"] and provider != "libc":
            alike.append(
                pg.SQL(f" {provider.upper()}_LOCALE {{}}").format(
                    pg.Literal(locale["locale"])
                )
            )
        if locale["rules"]:
            alike.append(pg.SQL(" ICU_RULES {}").format(pg.Literal(locale["rules"])))
    try:
        connection.execute(pg.Composed([create, *alike]))
    except errors.InsufficientPrivilege as error:
        raise MayNot(str(error)) from error
    except (errors.WrongObjectType, errors.InvalidParameterValue, errors.SyntaxError):
        # Another machine, or an older server.  The same rows, perhaps in another order.
        connection.execute(create)
        teller.say(
            f"! This server has no locale {locale['locale'] or locale['collate']}, so text"
            " is sorted as in its other databases."
        )


def drop_leftovers(
    server: Server, connection: Connection, of: str, teller: Teller
) -> None:
    """Drop the scratch copies of this database whose run is dead.

    Ours by name, owner and comment; without a comment only if empty, which is how a run
    killed between two statements leaves it.
    """
    for name, says in connection.execute(
        statement("scratch_databases"), {"pattern": _PATTERN}
    ).fetchall():
        if says != comment(of) and not (says is None and _is_empty(server, name)):
            continue
        with suppress(errors.ObjectInUse, errors.InvalidCatalogName):  # alive, or gone
            connection.execute(pg.SQL("DROP DATABASE {}").format(pg.Identifier(name)))
            teller.say(
                f"Dropped the database {name}, which an interrupted run had left."
            )


def _is_empty(server: Server, name: str) -> bool:
    try:
        with server.connect(name) as connection:
            return is_empty(connection)
    except psycopg.OperationalError:
        return False


def is_empty(connection: Connection) -> bool:
    """Whether nobody has put anything into the database."""
    row = connection.execute(statement("is_empty")).fetchone()
    return row is not None and bool(row[0])
