"""Another server than the shop's, to prove a backup on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psycopg
from psycopg import sql as pg
from psycopg.conninfo import conninfo_to_dict

from terrain import embedded
from terrain.embedded import Cluster
from terrain.legacy.backup.server import CannotTell, Server

#: What ``--prove-on`` calls the server that is started for the proof alone.
EMBEDDED = "embedded"


class NotThere(Exception):
    """The server cannot be used; the sentence says why and what to type."""


def server(where: str, major: int, home: Path, *, is_argument: bool) -> Server:
    """The server of a URL or connection string, or one of our own in a folder of ``home``.

    ``major`` is the least version that will do.  Raises :class:`NotThere`,
    :class:`CannotTell` and :class:`embedded.EmbeddedError`.
    """
    if where == EMBEDDED:
        return _embedded(major, home)
    try:
        parts = {key: str(value) for key, value in conninfo_to_dict(where).items()}
    except psycopg.ProgrammingError:
        # libpq would quote what it could not read, and that may be a password.
        raise NotThere(
            "What --prove-on was given cannot be read. It has the form"
            " postgresql://user@host:5432/postgres, or service=NAME, or embedded."
        ) from None
    if is_argument and {"password", "sslpassword"} & set(parts):
        raise NotThere(
            "--prove-on was given a password, which everybody on this machine can read"
            " there. Put the URL into the variable PROVE_ON instead, or the password into"
            " PGPASSFILE, or name a service: --prove-on service=NAME."
        )
    database = parts.pop("dbname", "")
    found = Server.to(database or "postgres", {"connect_timeout": "10", **parts})
    _check(found, major)
    return found


def _check(found: Server, major: int) -> None:
    try:
        with found.connect() as connection:
            its = connection.info.server_version // 10000
    except psycopg.OperationalError as error:
        why = str(error).strip().splitlines()[0]
        raise NotThere(f"The server of --prove-on cannot be used: {why}") from error
    if its < major:
        raise NotThere(
            f"The server of --prove-on is PostgreSQL {its}, and a dump of PostgreSQL {major}"
            f" needs {major} or newer. Name another one, or: --prove-on {EMBEDDED}"
        )


def _embedded(major: int, home: Path) -> Server:
    """A server that goes when we do; killed, it is found and used again by the next run."""
    suited = [each for each in sorted(embedded.FOLDERS) if each >= major]
    if not suited:
        raise NotThere(
            f"The shop's server is PostgreSQL {major}, and the embedded one is"
            f" {max(embedded.FOLDERS)}. Name another server of that version:"
            " --prove-on postgresql://user@host/postgres"
        )
    cluster = Cluster(home / f".postgres-proof-{suited[0]}", suited[0])
    cluster.lease()
    params = {"host": str(cluster.socket_dir), "port": "5432", "user": "postgres"}
    return Server("postgres", params, cluster, is_ours=True)


def make_roles(server: Server, names: Iterable[str]) -> None:
    """On a server of our own, have the roles that the dump gives its things to."""
    if not server.is_ours:
        return
    with server.connect() as connection:
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for name in sorted(set(names) - there):
            connection.execute(
                pg.SQL("CREATE ROLE {} NOLOGIN").format(pg.Identifier(name))
            )


__all__ = ["CannotTell", "EMBEDDED", "NotThere", "make_roles", "server"]
