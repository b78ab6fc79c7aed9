"""A PostgreSQL server seen from outside: its databases, and the programs that talk to it.

Django's connection is to one database; dumps and restores concern several, some of which
are not there yet.  Secrets reach the programs through their environment, never as
arguments, which everybody on the machine can read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from terrain.embedded import Cluster

Connection = psycopg.Connection[Any]

#: Databases that every server has, to connect to while another is made or renamed.
MAINTENANCE = ("postgres", "template1")

#: Connection parameters that are secret and that libpq has no variable for.
_SECRETS = ("sslpassword", "scram_client_key", "scram_server_key")

#: libpq's parameters -> the environment variable for each, or None.
_VARIABLES = {
    each.keyword.decode(): each.envvar.decode() if each.envvar else None
    for each in Conninfo.get_defaults()
}


class CannotTell(Exception):
    """A connection parameter cannot be passed on to PostgreSQL's programs in secret."""


@dataclass(frozen=True)
class Server:
    """Where ``DATABASE_URL`` leads: ``database`` is the one it names.

    ``is_ours`` is a server that is there for a proof and nothing else.
    """

    database: str
    params: Mapping[str, str] = field(repr=False)
    cluster: Cluster | None = None
    is_ours: bool = False

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper) -> Server:
        """The server of a Django connection, which need not be open."""
        cluster = connection.settings_dict["OPTIONS"].get("embedded")
        if cluster is not None:
            cluster.lease()
        params = {
            key: str(value)
            for key, value in connection.get_connection_params().items()
            if key in _VARIABLES and key != "dbname"
        }
        return cls.to(connection.settings_dict["NAME"], params, cluster)

    @classmethod
    def to(
        cls, database: str, params: Mapping[str, str], cluster: Cluster | None = None
    ) -> Server:
        """A server by connection parameters.  Raises :class:`CannotTell`."""
        for secret in _SECRETS:
            if secret in params:
                raise CannotTell(
                    f"DATABASE_URL has {secret}, which pg_dump and pg_restore only take as an"
                    " argument, where everybody on this machine can read it. Use a key"
                    " without a password, or a password in PGPASSFILE."
                )
        return cls(database, params, cluster)

    def connect(self, database: str | None = None) -> Connection:
        """A connection of our own, in autocommit mode, which no time-out cuts short."""
        connection: Connection = psycopg.connect(
            **{**self.params, "dbname": database or self.database},  # type: ignore[arg-type]
            autocommit=True,
        )
        for setting in ("statement_timeout", "idle_session_timeout", "lock_timeout"):
            connection.execute(
                psycopg.sql.SQL("SET {} = 0").format(psycopg.sql.Identifier(setting))
            )
        return connection

    @contextmanager
    def maintenance(self, besides: str) -> Iterator[Connection]:
        """A connection to any database but ``besides``, to make, rename and drop it from."""
        refused: list[str] = []
        for name in dict.fromkeys((*MAINTENANCE, self.database)):
            if name == besides:
                continue
            try:
                connection = self.connect(name)
            except psycopg.OperationalError as error:
                refused.append(str(error))
                continue
            with connection:
                yield connection
            return
        raise OperationalError(refused[0])

    def target(self, database: str) -> str:
        """What to give to ``--dbname``: no name is mistaken for something else, no secret."""
        plain = {
            key: value
            for key, value in self.params.items()
            if _VARIABLES[key] is None and key not in _SECRETS
        }
        return make_conninfo("", dbname=database, **plain)

    def environment(self) -> dict[str, str]:
        """What PostgreSQL's programs need to know, and nothing else of ours."""
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key.startswith("PG") or key in ("PATH", "HOME", "TMPDIR", "KRB5CCNAME")
        }
        given = {
            variable: value
            for key, value in self.params.items()
            if (variable := _VARIABLES[key]) and value
        }
        # The embedded server's user map goes by the account's name, not by a password.
        return {"PATH": os.defpath, **inherited, **given, "LC_ALL": "C"}

    @property
    def demands_ssl(self) -> bool:
        """Whether no connection without encryption will do."""
        mode = self.params.get("sslmode", os.environ.get("PGSSLMODE", ""))
        return mode in ("require", "verify-ca", "verify-full")
